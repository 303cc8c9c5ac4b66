package iso9660

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode/utf16"
)

// ErrFormat says that the bytes are no ISO 9660 image, or a damaged one.
var ErrFormat = errors.New("not a well-formed ISO 9660 image")

// Bounds of what the reader loads.
const (
	maxDescriptors    = 64
	maxEntries        = 1 << 18
	maxDirectoryBytes = 32 << 20
	maxCatalog        = 31 // boot entries looked at
)

// Names says which names and attributes of an image to show.
type Names int

// The kinds of names. Auto is Rock Ridge where the image has it, else Joliet,
// else plain ones.
const (
	Auto Names = iota
	Plain
	RockRidge
	Joliet
)

// BootEntry is one El Torito entry of an image.
type BootEntry struct {
	Platform Platform
	Bootable bool
	Sector   uint32 // where the boot image begins
	Sectors  uint16 // units of 512 bytes to load
}

// Image is an open image. It is an fs.FS with fs.ReadLinkFS, fs.ReadDirFS and
// fs.StatFS, safe for concurrent use as far as its reader is.
type Image struct {
	Label     string // of the descriptor whose names are shown
	Publisher string
	Created   time.Time // zero where the image does not say
	Size      int64     // bytes, as the primary descriptor has it
	RockRidge bool      // the image has Rock Ridge attributes
	Joliet    bool      // the image has a Joliet tree
	Boot      []BootEntry

	// Disk is the firmware that the image is a disk to start from for, by the
	// partitions in its first sector: BIOS by an active one, EFI by one of its
	// type.
	Disk []Platform

	r    io.ReaderAt
	root *object
}

// object is one loaded directory entry.
type object struct {
	name     string
	mode     fs.FileMode
	link     string
	extent   uint32
	size     int64
	time     time.Time
	children []*object
}

// Open reads the descriptors and the directory tree of an image of size bytes.
// Errors wrap ErrFormat where the bytes are at fault.
func Open(r io.ReaderAt, size int64, names Names) (*Image, error) {
	l := &loader{r: r, size: size, sectors: uint32(min(size/SectorSize, 1<<31)), seen: map[uint32]bool{}}
	img, err := l.open(names)
	if err != nil {
		return nil, fmt.Errorf("reading image: %w", err)
	}
	return img, nil
}

// loader is the state of one Open.
type loader struct {
	r       io.ReaderAt
	size    int64  // of the file
	sectors uint32 // in the file
	seen    map[uint32]bool
	entries int
	bytes   int64
	joliet  bool
	rock    bool
	skip    int // bytes before system use entries, from SP
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// sector reads one sector.
func (l *loader) sector(n uint32) ([]byte, error) {
	if n >= l.sectors {
		return nil, malformed("sector %d is beyond the end", n)
	}
	b := make([]byte, SectorSize)
	if _, err := l.r.ReadAt(b, int64(n)*SectorSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

func (l *loader) open(names Names) (*Image, error) {
	img := &Image{r: l.r}
	var primary, joliet []byte
	var catalog uint32
	for n := uint32(primarySector); ; n++ {
		if n == primarySector+maxDescriptors {
			return nil, malformed("no end of the volume descriptors")
		}
		d, err := l.sector(n)
		if err != nil {
			return nil, err
		}
		if string(d[1:6]) != "CD001" {
			return nil, malformed("no volume descriptor in sector %d", n)
		}
		switch {
		case d[0] == 1 && primary == nil:
			primary = d
		case d[0] == 2 && joliet == nil && d[88] == '%' && d[89] == '/' && bytes.IndexByte([]byte("@CE"), d[90]) >= 0:
			joliet = d
		case d[0] == 0 && bytes.HasPrefix(d[7:], []byte("EL TORITO SPECIFICATION")):
			catalog = binary.LittleEndian.Uint32(d[71:])
		}
		if d[0] == 255 {
			break
		}
	}
	if primary == nil {
		return nil, malformed("no primary volume descriptor")
	}
	if block := binary.LittleEndian.Uint16(primary[128:]); block != SectorSize {
		return nil, malformed("logical blocks of %d bytes", block)
	}
	img.Size = int64(binary.LittleEndian.Uint32(primary[80:])) * SectorSize
	if img.Size > l.size {
		return nil, malformed("cut short, %d of %d bytes", l.size, img.Size)
	}
	img.Joliet = joliet != nil
	if catalog != 0 {
		boot, err := l.catalog(catalog)
		if err != nil {
			return nil, err
		}
		img.Boot = boot
	}
	first, err := l.sector(0)
	if err != nil {
		return nil, err
	}
	img.Disk = disk(first)
	if err := l.detectRockRidge(primary); err != nil {
		return nil, err
	}
	img.RockRidge = l.rock
	shown := primary
	switch {
	case names == RockRidge && !l.rock:
		return nil, fmt.Errorf("no Rock Ridge names: %w", fs.ErrNotExist)
	case names == Joliet && joliet == nil:
		return nil, fmt.Errorf("no Joliet names: %w", fs.ErrNotExist)
	case names == Joliet, names == Auto && !l.rock && joliet != nil:
		shown, l.joliet, l.rock = joliet, true, false
	case names == Plain:
		l.rock = false
	}
	img.Label = l.text(shown[40:72])
	img.Publisher = l.text(shown[318:446])
	img.Created = readLongTime(primary[813:830])
	record, _, err := parseRecord(shown[156:190])
	if err != nil {
		return nil, err
	}
	img.root = &object{name: ".", mode: fs.ModeDir | 0o555, extent: record.extent, size: int64(record.size), time: record.time}
	return img, l.load(img.root)
}

// disk reads the partitions of a boot sector.
func disk(b []byte) []Platform {
	var bios, efi bool
	for at := 446; at < 510; at += 16 {
		e := b[at : at+16]
		used := binary.LittleEndian.Uint32(e[12:]) != 0
		bios, efi = bios || used && e[0] == 0x80, efi || used && e[4] == efiSystem
	}
	var list []Platform
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	if bios {
		list = append(list, BIOS)
	}
	if efi {
		list = append(list, EFI)
	}
	return list
}

// text reads a descriptor's field.
func (l *loader) text(b []byte) string {
	if l.joliet {
		return strings.TrimRight(fromUCS2(b), " \x00")
	}
	return strings.TrimRight(string(b), " \x00")
}

func fromUCS2(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

// catalog reads the El Torito catalogue.
func (l *loader) catalog(sector uint32) ([]BootEntry, error) {
	b, err := l.sector(sector)
	if err != nil {
		return nil, err
	}
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	if b[0] != 1 || b[30] != 0x55 || b[31] != 0xaa || sum != 0 {
		return nil, malformed("boot catalogue does not validate")
	}
	var boot []BootEntry
	platform, left := Platform(b[1]), 1
	for at := 32; at+32 <= len(b) && len(boot) < maxCatalog; at += 32 {
		e := b[at : at+32]
		switch {
		case left > 0:
			left--
			boot = append(boot, BootEntry{
				Platform: platform, Bootable: e[0] == 0x88,
				Sectors: binary.LittleEndian.Uint16(e[6:]), Sector: binary.LittleEndian.Uint32(e[8:]),
			})
		case e[0] == 0x90 || e[0] == 0x91:
			platform, left = Platform(e[1]), int(binary.LittleEndian.Uint16(e[2:]))
		default:
			return boot, nil
		}
	}
	return boot, nil
}

// record is a parsed directory record.
type record struct {
	extent, size uint32
	time         time.Time
	flags        byte
	id           []byte
	systemUse    []byte
}

// parseRecord reads the record at the start of b and returns its length. A
// zero length means that no record follows in this sector.
func parseRecord(b []byte) (record, int, error) {
	if len(b) == 0 || b[0] == 0 {
		return record{}, 0, nil
	}
	n := int(b[0])
	if n < 34 || n > len(b) {
		return record{}, 0, malformed("directory record of %d bytes", n)
	}
	b = b[:n]
	idEnd := 33 + int(b[32])
	if idEnd > n || b[32] == 0 {
		return record{}, 0, malformed("directory record's name of %d bytes", b[32])
	}
	r := record{
		extent: binary.LittleEndian.Uint32(b[2:]), size: binary.LittleEndian.Uint32(b[10:]),
		time: readShortTime(b[18:25]), flags: b[25], id: b[33:idEnd],
	}
	if use := idEnd + 1 - int(b[32])%2; use < n {
		r.systemUse = b[use:]
	}
	return r, n, nil
}

func readShortTime(b []byte) time.Time {
	zone := time.FixedZone("", int(int8(b[6]))*15*60)
	return time.Date(1900+int(b[0]), time.Month(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5]), 0, zone).UTC()
}

func readLongTime(b []byte) time.Time {
	t, err := time.Parse("20060102150405", string(b[:14]))
	if err != nil {
		return time.Time{}
	}
	return t.Add(-time.Duration(int8(b[16])) * 15 * time.Minute)
}

// each calls f for every record of a directory's extent.
func (l *loader) each(extent uint32, size int64, f func(record) error) error {
	sectors := int64(sectorsOf(size))
	if int64(extent)+sectors > int64(l.sectors) {
		return malformed("directory of %d bytes at sector %d goes beyond the end", size, extent)
	}
	if l.bytes += size; l.bytes > maxDirectoryBytes {
		return malformed("more than %d bytes of directories", maxDirectoryBytes)
	}
	for s := range uint32(sectors) {
		b, err := l.sector(extent + s)
		if err != nil {
			return err
		}
		for len(b) > 0 {
			r, n, err := parseRecord(b)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			b = b[n:]
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads the children of a directory and of those below it.
func (l *loader) load(top *object) error {
	queue := []*object{top}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		if l.seen[d.extent] {
			return malformed("directory at sector %d is met twice", d.extent)
		}
		l.seen[d.extent] = true
		names := map[string]bool{}
		err := l.each(d.extent, d.size, func(r record) error {
			if len(r.id) == 1 && r.id[0] == 0 {
				return l.self(d, r)
			}
			if len(r.id) == 1 && r.id[0] == 1 {
				return nil
			}
			if l.entries++; l.entries > maxEntries {
				return malformed("more than %d entries", maxEntries)
			}
			o, err := l.object(r)
			if err != nil {
				return err
			}
			if !fs.ValidPath(o.name) || o.name == "." || strings.ContainsRune(o.name, '/') || names[o.name] {
				return malformed("unusable or repeated name %q", o.name)
			}
			names[o.name] = true
			d.children = append(d.children, o)
			if o.mode.IsDir() {
				queue = append(queue, o)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// object makes an object of a record.
func (l *loader) object(r record) (*object, error) {
	o := &object{extent: r.extent, size: int64(r.size), time: r.time, mode: 0o444}
	if r.flags&flagDirectory != 0 {
		o.mode = fs.ModeDir | 0o555
	}
	if r.flags&0x80 != 0 {
		return nil, malformed("a file of several extents")
	}
	name := string(r.id)
	if l.joliet {
		name = fromUCS2(r.id)
	}
	if !o.mode.IsDir() {
		if at := strings.LastIndexByte(name, ';'); at > 0 {
			name = name[:at]
		}
	}
	if !l.joliet {
		// As Linux shows them: lower case, no lone dot at the end.
		name = strings.ToLower(strings.TrimSuffix(name, "."))
	}
	o.name = name
	if l.rock {
		if err := l.rockRidge(o, r.systemUse); err != nil {
			return nil, err
		}
	}
	if o.mode.IsRegular() && o.size > 0 && int64(o.extent)+int64(sectorsOf(o.size)) > int64(l.sectors) {
		return nil, malformed("file %q of %d bytes at sector %d goes beyond the end", o.name, o.size, o.extent)
	}
	return o, nil
}
