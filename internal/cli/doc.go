// Package cli is the command line of mica: one file a command, flags in, calls
// to the packages below, lines or JSON out. It holds no logic of its own.
//
// Standard output is the result; progress, logs, warnings and errors go to
// standard error. Every failure prints one line that says what went wrong, then
// hint lines that say what to do, and exits with the code of its class
// (package fail).
package cli
