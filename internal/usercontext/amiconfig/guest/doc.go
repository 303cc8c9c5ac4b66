// Package guest is the running operating system as the context agent may touch
// it: files, accounts, services, commands, mounts, all through one value, Root.
//
// A Root stands for the real "/" or for any directory that looks like one. Paths
// are resolved the way the operating system booted from that directory would
// resolve them: an absolute symbolic link starts at the Root, ".." stops at it,
// and nothing outside is ever reached, not even by a link that is swapped while
// a file is being written (the last step goes through os.Root).
//
// What is done is recorded as Actions, and only what changes something is done:
// writing a file that already has that content, mode and owner is no action.
// Applying the same thing twice therefore leaves an empty second record, commands
// excepted, which always run.
//
// Accounts are edited natively, under the lock of shadow-utils
// (/etc/.pwd.lock, lckpwdf(3)); neither useradd nor any other program is needed.
// The formats are those of passwd(5), group(5), shadow(5) and gshadow(5). Lines
// that do not parse are kept as they are.
//
// The package knows nothing of contexts, never runs a shell by itself, and never
// takes a secret as a program argument. A pretending Root (Options.Pretend) runs
// nothing, reaches no network and takes every program as present: what is left is
// the record of what would have been done.
//
// A Root is for one goroutine at a time.
package guest
