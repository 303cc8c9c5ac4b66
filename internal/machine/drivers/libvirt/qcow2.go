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
)

// makeDisk makes an empty disk that takes no space until it is written to, of a
// format that can hold snapshots.
func makeDisk(path string, size int64) error {
	perEntry := int64(cluster) * (cluster / entry) // what one second-level table maps
	mappings := (size + perEntry - 1) / perEntry
	table := (mappings*entry + cluster - 1) / cluster // clusters of the first-level table
	const counts, block, first = 1, 2, 3              // numbers of the clusters
	used := first + table

	data := make([]byte, first*cluster)
	be := binary.BigEndian
	copy(data, "QFI\xfb")
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
