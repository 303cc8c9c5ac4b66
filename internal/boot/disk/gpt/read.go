package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"
	"strings"
	"unicode/utf16"
)

const (
	headerMagic = "EFI PART"
	headerSize  = 92
	maxSlots    = 1024
	maxLogical  = 64
)

// Read reads the table of a disk of size bytes with logical sectors of sector
// bytes. The error is for bytes that could not be read; a table that is not
// whole is reported as Damaged.
func Read(r io.ReaderAt, size, sector int64) (Table, error) {
	if sector < 512 || sector > 64<<10 || sector&(sector-1) != 0 {
		return Table{}, fmt.Errorf("a disk with sectors of %d bytes is not supported", sector)
	}
	sectors := size / sector
	if sectors < 2 {
		return Table{}, nil
	}
	d := &disk{r: r, sector: sector, sectors: sectors}
	boot, err := d.at(0, 1)
	if err != nil {
		return Table{}, err
	}
	mbr, mbrOK := readMBR(boot, sectors)
	t, found, err := d.readGPT()
	if err != nil {
		return Table{}, err
	}
	switch {
	case found && (t.PrimaryOK || t.BackupOK) && (!mbrOK || mbr.protective || len(mbr.table.Entries) == 0):
		return t, nil
	case mbrOK && !mbr.protective:
		// A GPT that the MBR does not announce is a leftover: the kernel goes by
		// the MBR, and so do we.
		if err := d.logical(&mbr.table); err != nil {
			return Table{}, err
		}
		if found && len(mbr.table.Entries) == 0 {
			mbr.table.Scheme = Damaged
		}
		return mbr.table, nil
	case found, mbrOK && mbr.protective:
		return Table{Scheme: Damaged}, nil
	}
	return Table{}, nil
}

type disk struct {
	r               io.ReaderAt
	sector, sectors int64
}

func (d *disk) at(lba int64, count int64) ([]byte, error) {
	if lba < 0 || count < 1 || lba > d.sectors-count {
		return nil, nil
	}
	buf := make([]byte, count*d.sector)
	if n, err := d.r.ReadAt(buf, lba*d.sector); n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading sector %d: %w", lba, err)
	}
	return buf, nil
}

// readGPT returns the primary copy, else the backup. found says that there is
// any trace of a GPT, also one made for another sector size.
func (d *disk) readGPT() (t Table, found bool, err error) {
	primary, traceP, err := d.copyAt(1)
	if err != nil {
		return Table{}, false, err
	}
	backup, traceB, err := d.copyAt(d.sectors - 1)
	if err != nil {
		return Table{}, false, err
	}
	found = traceP || traceB
	switch {
	case primary != nil:
		t = *primary
		t.PrimaryOK, t.BackupOK = true, backup != nil
		return t, true, nil
	case backup != nil:
		t = *backup
		t.BackupLBA = d.sectors - 1
		t.BackupOK = true
		return t, true, nil
	}
	for _, off := range []int64{512, 4096} {
		if off == d.sector || off+8 > d.sector*d.sectors {
			continue
		}
		var b [8]byte
		if _, err := d.r.ReadAt(b[:], off); err != nil {
			return Table{}, false, fmt.Errorf("reading 8 bytes at %d: %w", off, err)
		}
		found = found || string(b[:]) == headerMagic
	}
	return Table{}, found, nil
}

// copyAt reads the header in sector lba and its entries. The table is nil unless
// both checksums hold; trace says that there is a header of some sort.
func (d *disk) copyAt(lba int64) (t *Table, trace bool, err error) {
	h, err := d.at(lba, 1)
	if h == nil || string(h[:8]) != headerMagic {
		return nil, false, err
	}
	le := binary.LittleEndian
	length := int64(le.Uint32(h[12:]))
	if length < headerSize || length > d.sector || le.Uint64(h[24:]) != uint64(lba) {
		return nil, true, nil
	}
	sum := slices.Clone(h[:length])
	clear(sum[16:20])
	count, slot := int64(le.Uint32(h[80:])), int64(le.Uint32(h[84:]))
	array := int64(le.Uint64(h[72:]))
	if crc32.ChecksumIEEE(sum) != le.Uint32(h[16:]) || slot < 128 || slot > 4096 || slot%8 != 0 ||
		count < 1 || count > maxSlots || array < 0 {
		return nil, true, nil
	}
	raw, err := d.at(array, (count*slot+d.sector-1)/d.sector)
	if err != nil {
		return nil, true, err
	}
	if raw == nil || crc32.ChecksumIEEE(raw[:count*slot]) != le.Uint32(h[88:]) {
		return nil, true, nil
	}
	t = &Table{
		Scheme: GPT, DiskID: guid(h[56:72]),
		FirstUsable: int64(le.Uint64(h[40:])), LastUsable: int64(le.Uint64(h[48:])), BackupLBA: int64(le.Uint64(h[32:])),
		sector: d.sector, sectors: d.sectors, slots: int(count), slotSize: int(slot), raw: raw[:count*slot],
	}
	if t.FirstUsable < 0 || t.LastUsable >= d.sectors || t.BackupLBA < 0 {
		return nil, true, nil
	}
	for i := range t.slots {
		e, used := DecodeEntry(t.raw[i*t.slotSize:][:128])
		if !used {
			continue
		}
		e.Number = i + 1
		if e.Sectors < 1 || // hybrid images have one that starts before the first usable sector
			e.Start > d.sectors || e.Sectors > d.sectors-e.Start {
			return nil, true, nil
		}
		t.Entries = append(t.Entries, e)
	}
	return t, true, nil
}

// DecodeEntry reads one slot of the array; used says that it has a partition.
// It panics if b has less than 128 bytes.
func DecodeEntry(b []byte) (Entry, bool) {
	le := binary.LittleEndian
	if bytes.Equal(b[:16], make([]byte, 16)) {
		return Entry{}, false
	}
	first, last := le.Uint64(b[32:]), le.Uint64(b[40:])
	e := Entry{Type: guid(b[:16]), ID: guid(b[16:32]), Attributes: le.Uint64(b[48:])}
	if first < 1<<62 && last < 1<<62 && last >= first {
		e.Start, e.Sectors = int64(first), int64(last-first)+1
	}
	var name []uint16
	for i := 56; i < 128; i += 2 {
		u := le.Uint16(b[i:])
		if u == 0 {
			break
		}
		name = append(name, u)
	}
	e.Name = string(utf16.Decode(name))
	return e, true
}

type mbr struct {
	table      Table
	protective bool
}

// readMBR accepts a boot sector as a table only if every entry could be one: the
// boot sectors of FAT and NTFS end in the same two bytes.
func readMBR(b []byte, sectors int64) (mbr, bool) {
	if b[510] != 0x55 || b[511] != 0xAA {
		return mbr{}, false
	}
	le := binary.LittleEndian
	m := mbr{table: Table{Scheme: MBR}}
	if id := le.Uint32(b[440:]); id != 0 {
		m.table.DiskID = fmt.Sprintf("%08x", id)
	}
	for i := range 4 {
		p := b[446+16*i:][:16]
		if p[0]&0x7f != 0 {
			return mbr{}, false
		}
		kind, start, length := p[4], int64(le.Uint32(p[8:])), int64(le.Uint32(p[12:]))
		if kind == 0 {
			continue
		}
		if kind == mbrProtective {
			m.protective = true
		}
		if length == 0 || start > sectors {
			return mbr{}, false
		}
		m.table.Entries = append(m.table.Entries, Entry{
			Number: i + 1, Start: start, Sectors: length, Type: fmt.Sprintf("0x%02x", kind),
			Boot: p[0] == 0x80, Container: isContainer(kind),
		})
	}
	return m, true
}

func isContainer(kind byte) bool { return kind == 0x05 || kind == 0x0f || kind == 0x85 }

// logical adds the partitions inside of an extended one: a chain of sectors,
// each with one partition and the way to the next.
func (d *disk) logical(t *Table) error {
	for _, outer := range slices.Clone(t.Entries) {
		if !outer.Container {
			continue
		}
		number := 5
		for at, hops := outer.Start, 0; hops < maxLogical; hops++ {
			b, err := d.at(at, 1)
			if err != nil {
				return err
			}
			if b == nil || b[510] != 0x55 || b[511] != 0xAA {
				break
			}
			le := binary.LittleEndian
			if kind, length := b[450], int64(le.Uint32(b[458:])); kind != 0 && length != 0 && !isContainer(kind) {
				t.Entries = append(t.Entries, Entry{
					Number: number, Start: at + int64(le.Uint32(b[454:])), Sectors: length,
					Type: fmt.Sprintf("0x%02x", kind), Boot: b[446] == 0x80,
				})
				number++
			}
			next := int64(le.Uint32(b[470:]))
			if !isContainer(b[466]) || next == 0 {
				break
			}
			at = outer.Start + next
		}
		break // only one extended partition is followed, as the kernel does
	}
	return nil
}

// guid writes the sixteen bytes of a GUID, the first three groups of which are
// little endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// ParseGUID is the reverse of how GUIDs are shown.
func ParseGUID(text string) ([16]byte, error) {
	var b [16]byte
	var raw []byte
	if n, err := fmt.Sscanf(strings.ReplaceAll(text, "-", ""), "%32x", &raw); n != 1 || err != nil || len(raw) != 16 || len(text) != 36 {
		return b, fmt.Errorf("%q is not a GUID", text)
	}
	copy(b[:], raw)
	for _, swap := range [][2]int{{0, 3}, {1, 2}, {4, 5}, {6, 7}} {
		b[swap[0]], b[swap[1]] = b[swap[1]], b[swap[0]]
	}
	return b, nil
}

func sortedByStart(entries []Entry) []Entry {
	sorted := slices.Clone(entries)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Start < sorted[j].Start })
	return sorted
}
