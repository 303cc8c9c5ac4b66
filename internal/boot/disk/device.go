package disk

import (
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/boot/disk/probe"
)

// Device is one block device as it was found: a whole disk or a partition. It
// is a plain value, so a decision can be made, and tested, without the device.
type Device struct {
	Name string // the kernel's name, "vda1"; empty for a partition that only the table knows
	Path string // device file, "/dev/vda1"; empty if the kernel has no such device
	Kind Kind

	Parent    string // kernel's name of the disk that holds this partition
	Partition int    // number in the partition table, from 1; 0 for a whole disk
	Start     int64  // bytes from the start of the disk, for a partition
	Size      int64  // bytes
	Sector    int64  // logical block size in bytes
	Type      string // partition type: a GUID in lower case, or "0x83"
	PartName  string // partition name of a GPT

	Removable bool // of the whole disk, also set on its partitions
	ReadOnly  bool
	InUse     bool   // mounted, swap, or part of another device
	Model     string // of the whole disk, also set on its partitions
	Serial    string // of the whole disk, also set on its partitions; empty if it has none

	// Table is what the first and last sectors of a whole disk describe.
	Table gpt.Table

	// Content is what is on the device itself.
	Content probe.Content

	// Blank says that the first and the last MiB and every sample in between
	// are zero, apart from an empty partition table.
	Blank bool

	// DataAt is the offset of the first byte found that is not zero, where Blank
	// was looked into and is false.
	DataAt int64

	// Unfinished says that an earlier Prepare was stopped half-way on exactly
	// this device, a partition or a whole disk, and nobody has used it since.
	Unfinished bool
	marked     bool // by an intent; else it is a half-written partition table

	// Boot says that the device has the sentinel of a boot partition, or is a
	// disk with such a partition.
	Boot bool

	// Free is the largest unpartitioned piece of a whole disk that lies on MiB
	// boundaries; FreeBlank says that its samples are zero.
	Free      Extent
	FreeBlank bool

	// Problem is why the device could not be looked at; such a device is never
	// used.
	Problem string
}

// Extent is a piece of a disk in bytes.
type Extent struct{ Start, Size int64 }

// Kind says what the kernel means by a device.
type Kind string

// The kinds. Only plain disks and their partitions are ever written to.
const (
	Disk    Kind = "disk"
	Part    Kind = "partition"
	Optical Kind = "optical"
	Floppy  Kind = "floppy"
	Virtual Kind = "virtual" // loop, ram, zram, device mapper, md, network
)

// further reports whether the host says that the disk is one of those that the
// user added to the machine, which the machine must not make its own. They have
// the serial numbers mica-disk1, mica-disk2 and so on; the data disk is mica-disk.
func (d Device) further() bool {
	number, ok := strings.CutPrefix(d.Serial, "mica-disk")
	return ok && number != ""
}

// title is how messages call the device.
func (d Device) title() string {
	switch {
	case d.Path != "":
		return d.Path
	case d.Name != "":
		return d.Name
	}
	return fmt.Sprintf("partition %d of %s", d.Partition, d.Parent)
}
