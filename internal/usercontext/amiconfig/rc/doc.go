// Package rc has the context applied on systems without systemd: it writes the file
// that System V's init scripts, OpenRC or busybox's init start at each boot.
//
// It is for the moment of hand-over, when the system's tree is mounted and nothing
// of it runs yet. It changes the machine's own layer only, and it does not start
// anything. Systems with systemd get units instead (package boot/units).
//
// The files run the guest binary where hand-over leaves it, and do nothing on a
// boot without it.
package rc
