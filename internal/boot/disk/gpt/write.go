package gpt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"unicode/utf16"
)

// Write is some bytes to be written to a disk.
type Write struct {
	Offset int64
	Data   []byte
	What   string // for messages
}

// New returns an empty GPT for a disk of size bytes.
func New(size, sector int64, diskID string) (Table, error) {
	if _, err := ParseGUID(diskID); err != nil {
		return Table{}, err
	}
	t := Table{Scheme: GPT, DiskID: diskID, sector: sector, sectors: size / sector, slots: 128, slotSize: 128}
	t.raw = make([]byte, t.slots*t.slotSize)
	t.place()
	if t.FirstUsable > t.LastUsable {
		return Table{}, fmt.Errorf("a disk of %d bytes is too small for a partition table", size)
	}
	return t, nil
}

// Relocated returns the table as it has to be on a disk of size bytes, with the
// backup at its end: a disk image that was made larger needs that before the new
// space can be used.
func (t Table) Relocated(size int64) (Table, error) {
	if t.Scheme != GPT {
		return Table{}, fmt.Errorf("a %q table has no backup to move", t.Scheme)
	}
	first := t.FirstUsable
	t.sectors = size / t.sector
	t.place()
	t.FirstUsable = max(first, 2) // some images keep the sectors before it for a boot loader
	for _, e := range t.Entries {
		if e.End() > t.LastUsable+1 {
			return Table{}, fmt.Errorf("partition %d ends in sector %d, behind the last usable one, %d", e.Number, e.End()-1, t.LastUsable)
		}
	}
	return t, nil
}

func (t *Table) place() {
	array := t.arraySectors()
	t.FirstUsable, t.LastUsable = 2+array, t.sectors-2-array
	t.BackupLBA = t.sectors - 1
}

// arraySectors is the length of the array of entries.
func (t Table) arraySectors() int64 {
	return (int64(t.slots)*int64(t.slotSize) + t.sector - 1) / t.sector
}

// Add returns the table with one more partition, in the first slot that is free
// or in number if that is not zero. Overlaps are refused.
func (t Table) Add(e Entry) (Table, error) {
	if t.Scheme != GPT {
		return Table{}, fmt.Errorf("a partition cannot be added to a %q table here", t.Scheme)
	}
	used := make(map[int]bool)
	for _, o := range t.Entries {
		used[o.Number] = true
		if e.Start < o.End() && o.Start < e.End() {
			return Table{}, fmt.Errorf("sectors %d to %d overlap partition %d", e.Start, e.End()-1, o.Number)
		}
	}
	if e.Sectors < 1 || e.Start < t.FirstUsable || e.End() > t.LastUsable+1 {
		return Table{}, fmt.Errorf("sectors %d to %d are not all usable (%d to %d)", e.Start, e.End()-1, t.FirstUsable, t.LastUsable)
	}
	if e.Number == 0 {
		for e.Number = 1; used[e.Number]; e.Number++ {
		}
	}
	if e.Number > t.slots || used[e.Number] {
		return Table{}, fmt.Errorf("partition number %d is not free", e.Number)
	}
	t.Entries = append(slices.Clone(t.Entries), e)
	return t, t.encodeEntry(e)
}

// Resize returns the table with partition number of another length.
func (t Table) Resize(number int, sectors int64) (Table, error) {
	t.Entries = slices.Clone(t.Entries)
	for i, e := range t.Entries {
		if e.Number != number {
			continue
		}
		e.Sectors = sectors
		for _, o := range t.Entries {
			if o.Number != number && e.Start < o.End() && o.Start < e.End() {
				return Table{}, fmt.Errorf("partition %d would overlap partition %d", number, o.Number)
			}
		}
		if sectors < 1 || e.End() > t.LastUsable+1 {
			return Table{}, fmt.Errorf("partition %d would end in sector %d, behind the last usable one, %d", number, e.End()-1, t.LastUsable)
		}
		t.Entries[i] = e
		return t, t.encodeEntry(e)
	}
	return Table{}, fmt.Errorf("there is no partition %d", number)
}

// encodeEntry writes e into a fresh copy of the array, and touches no other.
func (t *Table) encodeEntry(e Entry) error {
	kind, err := ParseGUID(e.Type)
	if err != nil {
		return fmt.Errorf("type of partition %d: %w", e.Number, err)
	}
	id, err := ParseGUID(e.ID)
	if err != nil {
		return fmt.Errorf("identifier of partition %d: %w", e.Number, err)
	}
	name := utf16.Encode([]rune(e.Name))
	if len(name) > 36 {
		return fmt.Errorf("name of partition %d is longer than 36 characters", e.Number)
	}
	t.raw = slices.Clone(t.raw)
	b := t.raw[(e.Number-1)*t.slotSize:][:128]
	clear(b)
	le := binary.LittleEndian
	copy(b, kind[:])
	copy(b[16:], id[:])
	le.PutUint64(b[32:], uint64(e.Start))
	le.PutUint64(b[40:], uint64(e.End()-1))
	le.PutUint64(b[48:], e.Attributes)
	for i, u := range name {
		le.PutUint16(b[56+2*i:], u)
	}
	return nil
}

// Backup returns the writes of the copy at the end of the disk, array first: a
// header must never point to an array that is not there yet.
func (t Table) Backup() []Write {
	array := t.BackupLBA - t.arraySectors()
	return []Write{
		{array * t.sector, t.array(), "entries of the backup partition table"},
		{t.BackupLBA * t.sector, t.header(t.BackupLBA, 1, array), "header of the backup partition table"},
	}
}

// Primary returns the writes of the copy at the start of the disk. Between the
// two the copy is not valid, so the backup must be written, and on the disk, by
// then.
func (t Table) Primary() []Write {
	return []Write{
		{2 * t.sector, t.array(), "entries of the partition table"},
		{t.sector, t.header(1, t.BackupLBA, 2), "header of the partition table"},
	}
}

// Protective returns the write of an MBR that keeps programs which know nothing
// of GPT away. It has no boot code.
func (t Table) Protective() Write {
	b := make([]byte, t.sector)
	p := b[446:462]
	copy(p, []byte{0x00, 0x00, 0x02, 0x00, mbrProtective, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(p[8:], 1)
	binary.LittleEndian.PutUint32(p[12:], uint32(min(t.sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xAA
	return Write{0, b, "protective MBR"}
}

func (t Table) array() []byte {
	b := make([]byte, t.arraySectors()*t.sector)
	copy(b, t.raw)
	return b
}

func (t Table) header(self, other, array int64) []byte {
	id, err := ParseGUID(t.DiskID)
	if err != nil {
		panic("gpt: table with the identifier " + t.DiskID) //nolint:forbidigo // New and Read let no such table through
	}
	h := make([]byte, t.sector)
	le := binary.LittleEndian
	copy(h, headerMagic)
	le.PutUint32(h[8:], 0x00010000)
	le.PutUint32(h[12:], headerSize)
	le.PutUint64(h[24:], uint64(self))
	le.PutUint64(h[32:], uint64(other))
	le.PutUint64(h[40:], uint64(t.FirstUsable))
	le.PutUint64(h[48:], uint64(t.LastUsable))
	copy(h[56:], id[:])
	le.PutUint64(h[72:], uint64(array))
	le.PutUint32(h[80:], uint32(t.slots))
	le.PutUint32(h[84:], uint32(t.slotSize))
	le.PutUint32(h[88:], crc32.ChecksumIEEE(t.raw))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
	return h
}

// AddMBR returns the boot sector with one more primary partition of type 0x83,
// and its number. Everything else in the sector stays as it is.
func AddMBR(boot []byte, start, sectors int64) ([]byte, int, error) {
	if len(boot) < 512 {
		return nil, 0, fmt.Errorf("a boot sector has 512 bytes, not %d", len(boot))
	}
	if start < 1 || sectors < 1 || start > 0xffffffff || sectors > 0xffffffff {
		return nil, 0, fmt.Errorf("sectors %d to %d are beyond the reach of an MBR", start, start+sectors-1)
	}
	boot = slices.Clone(boot)
	for i := range 4 {
		p := boot[446+16*i:][:16]
		if p[4] != 0 {
			continue
		}
		// Addresses by cylinder are long dead; this is how partitioners say so.
		copy(p, []byte{0x00, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff})
		binary.LittleEndian.PutUint32(p[8:], uint32(start))
		binary.LittleEndian.PutUint32(p[12:], uint32(sectors))
		return boot, i + 1, nil
	}
	return nil, 0, fmt.Errorf("all four partitions of the MBR are taken")
}

// ResizeMBR returns the boot sector with primary partition number of another
// length.
func ResizeMBR(boot []byte, number int, sectors int64) ([]byte, error) {
	if len(boot) < 512 || number < 1 || number > 4 || boot[446+16*(number-1)+4] == 0 {
		return nil, fmt.Errorf("there is no primary partition %d", number)
	}
	if sectors < 1 || sectors > 0xffffffff {
		return nil, fmt.Errorf("%d sectors are beyond the reach of an MBR", sectors)
	}
	boot = slices.Clone(boot)
	binary.LittleEndian.PutUint32(boot[446+16*(number-1)+12:], uint32(sectors))
	return boot, nil
}
