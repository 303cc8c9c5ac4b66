package libvirt

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/micavm/mica/internal/fail"
)

// Clusters of an empty qcow2 image, version 3, as QEMU's docs/interop/qcow2.txt
// has it: the header, one table of reference counts with one block of them, and
// the table of mappings, which are all empty.
const (
	clusterBits = 16
	cluster     = 1 << clusterBits
	entry       = 8 // bytes of a table's entry
	headerSize  = 104
	perEntry    = int64(cluster) * (cluster / entry) // what one second-level table maps
	magic       = "QFI\xfb"
)

// makeDisk makes an empty disk that takes no space until it is written to, of a
// format that can hold snapshots.
func makeDisk(path string, size int64) error {
	mappings := (size + perEntry - 1) / perEntry
	table := (mappings*entry + cluster - 1) / cluster // clusters of the first-level table
	mappings = table * cluster / entry                // all of it, so that the disk can grow
	const counts, block, first = 1, 2, 3              // numbers of the clusters
	used := first + table

	data := make([]byte, first*cluster)
	be := binary.BigEndian
	copy(data, magic)
	be.PutUint32(data[4:], 3)
	be.PutUint32(data[20:], clusterBits)
	be.PutUint64(data[24:], uint64(size))
	be.PutUint32(data[36:], uint32(mappings))
	be.PutUint64(data[40:], first*cluster)
	be.PutUint64(data[48:], counts*cluster)
	be.PutUint32(data[56:], 1) // clusters of the table of counts
	be.PutUint32(data[96:], 4) // counts have 1<<4 bits
	be.PutUint32(data[100:], headerSize)
	be.PutUint64(data[counts*cluster:], block*cluster)
	for n := range used {
		be.PutUint16(data[block*cluster+2*n:], 1)
	}

	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making disk: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Truncate(used * cluster)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fail.New(fail.Failed, "making a disk of %d MiB: %w", size/mebi, err)
	}
	return nil
}

// growDisk gives a disk that nobody uses more room: its header names the size,
// and its first-level table has entries to spare.
func growDisk(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("growing disk: %w", err)
	}
	defer f.Close()
	var header [headerSize]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return fmt.Errorf("growing disk: %w", err)
	}
	be := binary.BigEndian
	now, most := int64(be.Uint64(header[24:])), int64(be.Uint32(header[36:]))*perEntry
	switch {
	case string(header[:4]) != magic || be.Uint32(header[20:]) != clusterBits:
		return fail.New(fail.Failed, "growing disk: %s is not the qcow2 image that was made", path)
	case size < now:
		return fail.New(fail.Usage, "the disk has %d MiB and cannot become smaller", now/mebi)
	case size > most:
		return fail.New(fail.Usage, "this disk can have %d MiB at most", most/mebi).Hint("make a larger machine, and copy what is in this one")
	case size == now:
		return nil
	}
	be.PutUint64(header[24:], uint64(size))
	if _, err := f.WriteAt(header[24:32], 24); err != nil {
		return fmt.Errorf("growing disk: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("growing disk: %w", err)
	}
	return f.Close()
}
