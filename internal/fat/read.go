package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// ErrFormat says that the bytes are no FAT file system, or a damaged one.
var ErrFormat = errors.New("not a well-formed FAT file system")

const (
	maxEntries = 1 << 16
	maxDepth   = 32
	maxContent = 64 << 20 // of all files together
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Read loads a whole file system of size bytes.
func Read(r io.ReaderAt, size int64) (Volume, error) {
	d, err := open(r, size)
	if err != nil {
		return Volume{}, fmt.Errorf("reading FAT volume: %w", err)
	}
	root, err := d.root()
	if err == nil {
		err = d.folder("", root, 0)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("reading FAT volume: %w", err)
	}
	return d.v, nil
}

// disk is a volume being read.
type disk struct {
	r          io.ReaderAt
	cluster    int64 // bytes
	rootAt     int64
	rootSize   int64
	rootFirst  uint32 // FAT32
	dataAt     int64
	clusters   uint32
	bits       int
	table      []byte
	entries    int
	content    int64
	v          Volume
	seenFolder map[uint32]bool
}

func open(r io.ReaderAt, size int64) (*disk, error) {
	b := make([]byte, sectorSize)
	if _, err := r.ReadAt(b, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, malformed("%d bytes", size)
		}
		return nil, err
	}
	le := binary.LittleEndian
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	fats, roots := int64(b[16]), int64(le.Uint16(b[17:]))
	sectors, perFAT := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	if perFAT == 0 {
		perFAT = int64(le.Uint32(b[36:]))
	}
	switch {
	case b[510] != 0x55 || b[511] != 0xaa,
		sector < 512 || sector > 4096 || sector&(sector-1) != 0,
		perCluster == 0 || perCluster&(perCluster-1) != 0,
		fats < 1 || fats > 2, perFAT == 0, sectors == 0:
		return nil, malformed("no boot sector of one")
	}
	d := &disk{r: r, cluster: sector * perCluster, seenFolder: map[uint32]bool{}}
	fatAt := int64(le.Uint16(b[14:])) * sector
	d.rootAt = fatAt + fats*perFAT*sector
	d.rootSize = (roots*entrySize + sector - 1) / sector * sector
	d.dataAt = d.rootAt + d.rootSize
	count := (sectors*sector - d.dataAt) / d.cluster
	if count <= 0 || sectors*sector > size {
		return nil, malformed("%d sectors in %d bytes", sectors, size)
	}
	d.clusters = uint32(min(count, 1<<28))
	switch {
	case count <= maxFAT12:
		d.bits = 12
	case count <= maxFAT16:
		d.bits = 16
	default:
		d.bits = 32
		d.rootFirst = le.Uint32(b[44:])
	}
	need := (count + 2) * int64(d.bits) / 8
	if need > perFAT*sector || need > maxContent {
		return nil, malformed("allocation table of %d bytes for %d clusters", perFAT*sector, count)
	}
	d.table = make([]byte, need+4)
	if _, err := r.ReadAt(d.table, fatAt); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return d, nil
}

func (d *disk) next(cluster uint32) uint32 {
	switch d.bits {
	case 12:
		v := uint32(binary.LittleEndian.Uint16(d.table[cluster*3/2:]))
		if cluster%2 != 0 {
			return v >> 4
		}
		return v & 0xfff
	case 16:
		return uint32(binary.LittleEndian.Uint16(d.table[cluster*2:]))
	}
	return binary.LittleEndian.Uint32(d.table[cluster*4:]) & 0x0fffffff
}

// chain reads the clusters from first on, up to limit bytes.
func (d *disk) chain(first uint32, limit int64) ([]byte, error) {
	if d.content += limit; d.content > maxContent {
		return nil, malformed("more than %d bytes of content", maxContent)
	}
	var data []byte
	end := uint32(1)<<min(d.bits, 28) - 8
	for n := uint32(0); int64(len(data)) < limit; n++ {
		if n > d.clusters || first < 2 || first-2 >= d.clusters {
			return nil, malformed("chain of clusters leaves the volume")
		}
		b := make([]byte, min(d.cluster, limit-int64(len(data))))
		if _, err := d.r.ReadAt(b, d.dataAt+int64(first-2)*d.cluster); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		data = append(data, b...)
		if first = d.next(first); first >= end {
			break
		}
	}
	return data, nil
}

func (d *disk) root() ([]byte, error) {
	if d.bits == 32 {
		return d.folderData(d.rootFirst)
	}
	b := make([]byte, d.rootSize)
	_, err := d.r.ReadAt(b, d.rootAt)
	if errors.Is(err, io.EOF) {
		err = malformed("cut short")
	}
	return b, err
}

// folderData reads a folder, whose entries do not say how long it is.
func (d *disk) folderData(first uint32) ([]byte, error) {
	if d.seenFolder[first] {
		return nil, malformed("a folder is met twice")
	}
	d.seenFolder[first] = true
	length := int64(0)
	end := uint32(1)<<min(d.bits, 28) - 8
	for c := first; c >= 2 && c-2 < d.clusters && c < end && length <= maxEntries*entrySize; c = d.next(c) {
		length += d.cluster
	}
	return d.chain(first, min(length, maxEntries*entrySize))
}

func (d *disk) folder(prefix string, data []byte, depth int) error {
	if depth > maxDepth {
		return malformed("folders are nested too deeply")
	}
	var long [][]uint16
	for len(data) >= entrySize {
		e := data[:entrySize]
		data = data[entrySize:]
		if d.entries++; d.entries > maxEntries {
			return malformed("more than %d entries", maxEntries)
		}
		switch {
		case e[0] == 0:
			return nil
		case e[0] == 0xe5:
			long = nil
			continue
		case e[11]&0x3f == attrLong:
			piece := make([]uint16, 0, 13)
			for _, at := range longSlots {
				if u := binary.LittleEndian.Uint16(e[at:]); u != 0 && u != 0xffff {
					piece = append(piece, u)
				}
			}
			if e[0]&0x40 != 0 {
				long = nil
			}
			if len(long) < 20 {
				long = append([][]uint16{piece}, long...)
			}
			continue
		case e[11]&attrVolume != 0:
			d.v.Label = strings.TrimRight(string(e[:11]), " ")
			long = nil
			continue
		}
		name := shortName(e)
		if len(long) > 0 {
			var units []uint16
			for _, p := range long {
				units = append(units, p...)
			}
			name = string(utf16.Decode(units))
			long = nil
		}
		if name == "." || name == ".." {
			continue
		}
		if name == "" || strings.ContainsAny(name, "/\x00") {
			return malformed("unusable name %q", name)
		}
		first := uint32(binary.LittleEndian.Uint16(e[26:]))
		if d.bits == 32 {
			first |= uint32(binary.LittleEndian.Uint16(e[20:])) << 16
		}
		if e[11]&attrFolder != 0 {
			below, err := d.folderData(first)
			if err != nil {
				return err
			}
			if err := d.folder(prefix+name+"/", below, depth+1); err != nil {
				return err
			}
			continue
		}
		content, err := d.chain(first, int64(binary.LittleEndian.Uint32(e[28:])))
		if err != nil {
			return err
		}
		d.v.Files = append(d.v.Files, File{Path: prefix + name, Data: content})
	}
	return nil
}

// shortName is an 8.3 name as Linux's vfat shows it: byte 12 says which half is in
// lower case.
func shortName(e []byte) string {
	name, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if strings.HasPrefix(name, "\x05") {
		name = "\xe5" + name[1:]
	}
	if e[12]&0x08 != 0 {
		name = strings.ToLower(name)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		name += "." + ext
	}
	return name
}
