// Package config reads the configuration of CernVM-FS clients as it is installed
// below /etc/cvmfs, and tells for each value which file and line it comes from.
// For well-known repositories there is a table of servers and public keys, which
// stands in where the installed files name no server.
//
// The files are in the language of a shell, and are data here: assignments,
// quoting, variables, tests and if, other files read in, sums. Nothing is ever
// run; whatever would take a shell is an error that names its line. The order of
// the files, and the rule that a variable set by a file read in counts only if
// the outer file assigns it too, are the original's (cvmfs: cvmfs/options.cc).
//
// Differs: a value is what was assigned, without the splitting and globbing that
// an unquoted echo does; a variable that is assigned in a branch not taken stays
// unset instead of becoming empty.
//
// The package opens no connection. Reading a configuration repository below
// /cvmfs may make an automounter mount it.
package config
