// Package mount shows a repository as a file system of the kernel, by FUSE. It
// mounts with mount(2), as root and without a helper program.
//
// Invariants: an inode number is a 64-bit hash of the path (of the hard link
// group, for members of one) and of a regular file's content; it does not change
// while the mount stands, nor between mounts or revisions as long as the file is
// the same; a file that is open shows that content whatever the revision does;
// attributes and names of a pinned revision are given to the kernel for ever,
// since they cannot change; the kernel opens files and directories without asking
// (see recent.go). The mount is read-only, as a lower
// layer of overlayfs needs it: unknown ioctls are ENOTTY, extended attributes of
// all name spaces are served, security.capability among them.
//
// Hazards: a request that waits for the network ends early only for a caller that
// is being killed, and only that caller's wait; other signals do not disturb it. A
// process must never touch its own mount, it would wait for itself.
package mount
