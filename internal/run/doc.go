// Package run is the one way the project starts other programs on the host:
// an argument list (never a shell), a fixed locale, a deadline, captured
// output, secrets masked in what is logged, and a transcript that a test can
// replay in place of the program.
package run
