// Package disk finds, chooses and prepares UROOT: the ext4 partition that keeps
// a machine's cache and everything its operating system writes.
//
// Scan describes every block device without mounting anything (mounting a dirty
// journal writes to it, even read-only). Choose is a pure function from those
// descriptions and the user's wishes to a decision. Prepare carries it out,
// after looking again. Mounting is the caller's.
//
// The rule above all others: a device that holds a file system, a volume, a
// partition table that is not ours, or just data that nobody recognises, is
// never written to. A blank device is one whose first and last MiB and every
// sample in between are zero. Everything refused is named, with the reason.
//
// # Being stopped half-way
//
// A machine may lose power at any moment of its first boot, and must neither
// lose data nor get stuck. Before mke2fs runs, a record (see intent.go) is
// written to the last sectors of the partition; mke2fs works on the space before
// it, under the label UROOT-NEW; then the label becomes UROOT, and the record is
// cleared. A partition with a valid record whose content is nothing known, or
// such a file system that was never mounted, is ours and is made anew. A
// partition table that is half written is recognised by making it again from the
// identifier in its first entry, which is written first: every sector must be
// either zero or what we would have written.
//
// The rules follow cernvm-micro: scripts.d/04devices and 10root, where unknown
// partitions and disks without a partition table were formatted.
//
// Differs: whole-disk file systems, LVM, LUKS, RAID, swap and unknown data are
// never taken for empty; devices are told apart by sysfs, not by their names.
package disk
