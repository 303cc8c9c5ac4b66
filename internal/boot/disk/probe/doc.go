// Package probe tells what is on a block device or in an image by its
// superblocks: file systems, swap, encrypted containers, volume managers, RAID
// members. It reads through io.ReaderAt, never writes, never mounts, and does
// not trust a byte of what it reads.
//
// It answers one question, "may this be overwritten?", so it errs to the safe
// side: any signature counts, several at once are all reported, and unlike
// libblkid it does not ask for a valid checksum before it reports one.
//
// The magic numbers are those of the Linux kernel's file systems and of
// util-linux: libblkid/src/superblocks, with which the tests compare.
package probe
