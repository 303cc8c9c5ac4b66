// Package switchroot leaves the initramfs: it makes a mounted tree the root of
// everything and runs its init, which becomes PID 1.
//
// It follows what busybox and util-linux do: the file systems that both sides need
// are moved, the old root's files are deleted to free their memory, the new root is
// moved over the old one. Whether there is an init to run is checked before anything
// is given up, and the memory is freed last.
//
// Hazards: deleting goes by device number and never enters a mount; it refuses
// to start on anything that is not a RAM file system.
package switchroot
