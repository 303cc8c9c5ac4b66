package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// relabelled reads the superblock of an ext4 file system and returns it with
// another label, its checksum set right: what "tune2fs -L" writes.
func relabelled(r io.ReaderAt, name string) ([]byte, error) {
	const checksum, metadataCsum = 1020, 0x400
	sb := make([]byte, 1024)
	if _, err := r.ReadAt(sb, 1024); err != nil {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(sb[56:]) != 0xEF53 || len(name) > 16 {
		return nil, fmt.Errorf("there is no ext4 superblock to label %q", name)
	}
	sum := func() uint32 { return ^crc32.Checksum(sb[:checksum], crc32.MakeTable(crc32.Castagnoli)) }
	checked := le.Uint32(sb[100:])&metadataCsum != 0
	if checked && sum() != le.Uint32(sb[checksum:]) {
		return nil, fmt.Errorf("the checksum of the superblock does not hold")
	}
	copy(sb[120:136], bytes.Repeat([]byte{0}, 16))
	copy(sb[120:136], name)
	if checked {
		le.PutUint32(sb[checksum:], sum())
	}
	return sb, nil
}
