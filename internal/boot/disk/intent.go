package disk

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// An intent is the record that Prepare keeps in the last 4 KiB of a partition
// while it makes the file system there: "what is on this partition now is mine,
// unfinished, and may be made anew". It names the place and the length of the
// partition, so that a copy of it elsewhere means nothing.
//
//	0   24  magic
//	24   8  start of the partition in the disk, bytes
//	32   8  length of the partition, bytes
//	40   4  CRC-32 (IEEE) of the above
//
// All of it is in one sector, which a disk writes whole or not at all. Integers
// are little endian. mke2fs is told to leave the last MiB of the partition alone.
const (
	intentMagic = "mica makes a UROOT here\n"
	intentSize  = 4096
	reserve     = mib
)

func intent(start, size int64) []byte {
	b := make([]byte, intentSize)
	copy(b, intentMagic)
	binary.LittleEndian.PutUint64(b[24:], uint64(start))
	binary.LittleEndian.PutUint64(b[32:], uint64(size))
	binary.LittleEndian.PutUint32(b[40:], crc32.ChecksumIEEE(b[:40]))
	return b
}

// hasIntent looks for the record at the end of a partition.
func hasIntent(r io.ReaderAt, start, size int64) (bool, error) {
	if size < 2*reserve {
		return false, nil
	}
	b := make([]byte, intentSize)
	if _, err := r.ReadAt(b, size-intentSize); err != nil && err != io.EOF {
		return false, err
	}
	return string(b) == string(intent(start, size)), nil
}
