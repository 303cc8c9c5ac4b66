// Package launch answers as cernvm-launch does: the program that made CernVM
// machines in VirtualBox before Mica. It reads and writes that program's own
// files, so that a user can switch to it and back without losing a machine.
//
// It has the original's operations, prompts, lines and exit codes, and drives
// machines through machine.Driver, so that VirtualBox is the default and not
// the only one. It does not have the original's losses: it never deletes a
// machine that another command made, never adopts one that another program
// made, and what fails ends with code 4 and says so.
//
// Files, all below the runtime folder (~/.cernvm on Linux):
//
//	cache/                       images, each with its .sha256
//	run/vbsess-<uuid>.conf       one record a machine, key=value lines
//	run/vbsess-<uuid>.conf.orig  the record as the original left it
//	run/vbsess-<uuid>.lock       held by whoever changes the machine
//	run/create.lock              held while a name and a port are being claimed
//	run/<uuid>/                  the machine's folder
//
// Invariants: a record is on disk before anything of its machine is; a record
// goes last; keys this package does not know stay in the record; nothing below
// run/ is removed but the folder that carries the record's own uuid.
//
// Specification: cernvm-launch 1.2.0 and libcernvm 2.0.12. Where they are
// departed from, the comment begins with "Differs:".
//
// Hazards: standard output is part of the contract, so everything the original
// did not say goes to standard error. Prompts read standard input one byte at a
// time, because what follows belongs to ssh.
package launch
