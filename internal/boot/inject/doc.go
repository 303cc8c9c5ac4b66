// Package inject unpacks the archive that a context carries for the root of
// the operating system (cernvm_inject), once.
//
// The archive is the user's and is unpacked as root over a running system's
// tree, so it is not trusted to stay inside it: every name is opened through
// os.Root, which refuses to leave the tree by "..", an absolute name or a symbolic
// link that was there or came with the archive. Devices, pipes and hard links to
// outside are refused, sizes and counts are bounded.
package inject
