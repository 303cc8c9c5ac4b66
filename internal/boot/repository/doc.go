// Package repository runs the CernVM-FS client of a guest as a process of its
// own. PID 1 calls Start, which executes the guest binary once more under the
// name Argv0; that child calls Serve, mounts the repository, and reports through
// a pipe. From then on it answers to the control socket in its cache directory
// (ReadStatus, Talk), with the commands of the original client that a boot image
// and its tools use.
//
// The child outlives everything: it is there before the switch of root and is
// the last process to end at shutdown, since the root file system of the
// machine runs on it. Therefore it
//
//   - works in the cache directory and, once the mount stands, makes it its own
//     root: names of the initramfs are gone after the switch of root, and so are
//     /proc and /dev as it knew them. Whatever it needs from there (name
//     servers, certificate authorities, keys, /dev/kmsg) it takes at the start;
//   - keeps out of the way of a shutdown: its name begins with '@', which
//     systemd spares, it has a session of its own, and it ignores the signals
//     that end a system. SIGUSR1, the command "quit" and an unmount end it;
//   - can never be the victim of the kernel's out-of-memory killer.
//
// The control socket is that of every mount, see package talk, with a few
// commands more.
package repository
