package fat

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf16"
)

// File is one file of a volume.
type File struct {
	Path string // as fs.ValidPath wants it
	Data []byte
}

// Volume is a file system to write. Folders are made as paths need them.
type Volume struct {
	Label string // up to eleven characters
	Files []File
}

const (
	sectorSize  = 512
	entrySize   = 32
	reserved    = 1
	copies      = 2
	rootSectors = 14 // of a floppy disk: 224 entries
	maxFAT12    = 4084
	maxFAT16    = 65524
	maxVolume   = 64 << 20
	maxCluster  = 32 << 10

	// 1 January 1980, the earliest date there is.
	firstDate = 0<<9 | 1<<5 | 1

	attrVolume = 0x08
	attrFolder = 0x10
	attrFile   = 0x20
	attrLong   = 0x0f
)

// node is a file or folder.
type node struct {
	name     string
	short    [11]byte
	data     []byte
	folder   bool
	children []*node
	parent   *node
	first    int // cluster; 0 for the root and empty files
	clusters int
}

// Write writes the file system. The size is that of a 1.44 MB floppy disk, or
// the next power of two that holds the content.
func Write(w io.Writer, v Volume) error {
	root, err := newTree(v)
	if err != nil {
		return fmt.Errorf("laying out FAT volume: %w", err)
	}
	for _, g := range geometries() {
		if g.place(root) {
			_, err := w.Write(g.image(root, v.Label))
			return err
		}
	}
	return fmt.Errorf("laying out FAT volume: the content needs more than %d bytes", maxVolume)
}

// Pack makes the smallest volume that holds the files: no cluster is left free.
// Clusters are of at least the given number of bytes, a power of two from 512 to
// 32768, and begin at multiples of their size from the start of the volume. It
// also returns where the content of each file that has any begins, by path.
func Pack(v Volume, cluster int) (image []byte, at map[string]int64, err error) {
	if cluster < sectorSize || cluster > maxCluster || cluster&(cluster-1) != 0 {
		return nil, nil, fmt.Errorf("laying out FAT volume: a cluster of %d bytes", cluster)
	}
	root, err := newTree(v)
	if err != nil {
		return nil, nil, fmt.Errorf("laying out FAT volume: %w", err)
	}
	for ; cluster <= maxCluster; cluster *= 2 {
		g := geometry{perCluster: cluster / sectorSize, media: 0xf8, track: 32, heads: 16}
		if g.clusters = max(1, g.assign(root)); g.clusters > maxFAT16 {
			continue
		}
		g.fit(root)
		at = map[string]int64{}
		var walk func(prefix string, n *node)
		walk = func(prefix string, n *node) {
			for _, c := range n.children {
				if c.folder {
					walk(prefix+c.name+"/", c)
				} else if c.first > 0 {
					at[prefix+c.name] = int64(g.dataAt() + (c.first-2)*cluster)
				}
			}
		}
		walk("", root)
		return g.image(root, v.Label), at, nil
	}
	return nil, nil, fmt.Errorf("laying out FAT volume: the content needs more than %d clusters of %d bytes", maxFAT16, maxCluster)
}

// fit chooses the tables for the clusters there are.
func (g *geometry) fit(root *node) {
	g.bits = 16
	if g.clusters <= maxFAT12 {
		g.bits = 12
	}
	g.perFAT = ((g.clusters+2)*g.bits + 8*sectorSize - 1) / (8 * sectorSize)
	// The root folder, which has a fixed size, fills up to the first cluster.
	g.root = (root.inRoot()*entrySize + sectorSize - 1) / sectorSize
	if over := (reserved + copies*g.perFAT + g.root) % g.perCluster; over != 0 {
		g.root += g.perCluster - over
	}
	g.sectors = g.dataAt()/sectorSize + g.clusters*g.perCluster
}

func newTree(v Volume) (*node, error) {
	if len(v.Label) > 11 || strings.ContainsFunc(v.Label, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"*+,./:;<=>?[\]|`, r) }) {
		return nil, fmt.Errorf("label %q cannot be stored", v.Label)
	}
	root := &node{folder: true}
	files := slices.Clone(v.Files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range files {
		if !fs.ValidPath(f.Path) || f.Path == "." || strings.ContainsAny(f.Path, "\x00\"*:<>?\\|") {
			return nil, fmt.Errorf("path %q cannot be stored", f.Path)
		}
		if slices.ContainsFunc(strings.Split(f.Path, "/"), func(s string) bool { return len(s) > 255 }) {
			return nil, fmt.Errorf("path %q has a name of more than 255 bytes", f.Path)
		}
		at := root
		parts := strings.Split(f.Path, "/")
		for i, part := range parts {
			last := i == len(parts)-1
			k := slices.IndexFunc(at.children, func(n *node) bool { return strings.EqualFold(n.name, part) })
			switch {
			case k >= 0 && (last || !at.children[k].folder || at.children[k].name != part):
				return nil, fmt.Errorf("path %q: %w", f.Path, fs.ErrExist)
			case k >= 0:
				at = at.children[k]
				continue
			}
			n := &node{name: part, folder: !last, parent: at}
			if last {
				n.data = f.Data
			}
			if err := n.shorten(at.children); err != nil {
				return nil, err
			}
			at.children = append(at.children, n)
			at = n
		}
	}
	return root, nil
}

// shorten gives a node its 8.3 name, unique in its folder.
func (n *node) shorten(taken []*node) error {
	base, ext, _ := strings.Cut(strings.ToUpper(n.name), ".")
	if i := strings.LastIndexByte(n.name, '.'); i >= 0 {
		base, ext = strings.ToUpper(n.name[:i]), strings.ToUpper(n.name[i+1:])
	}
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			switch {
			case r == ' ' || r == '.':
				return -1
			case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_$%'@~!(){}^#&", r):
				return r
			}
			return '_'
		}, s)
	}
	base, ext = clean(base), clean(ext)
	ext = ext[:min(len(ext), 3)]
	for i := range 1000 {
		short := base
		if i > 0 || len(base) > 8 || base == "" {
			tail := fmt.Sprintf("~%d", max(i, 1))
			short = base[:min(len(base), 8-len(tail))] + tail
		}
		copy(n.short[:], fmt.Sprintf("%-8s%-3s", short, ext))
		if !slices.ContainsFunc(taken, func(o *node) bool { return o.short == n.short }) {
			return nil
		}
	}
	return fmt.Errorf("too many names like %q", n.name)
}

// plainShort says that the 8.3 name tells everything, case included.
func (n *node) plainShort() bool {
	short := strings.TrimRight(string(n.short[:8]), " ")
	if ext := strings.TrimRight(string(n.short[8:]), " "); ext != "" {
		short += "." + ext
	}
	return short == n.name
}

// entries is how many directory entries a node takes.
func (n *node) entries() int {
	if n.plainShort() {
		return 1
	}
	return 1 + (len(utf16.Encode([]rune(n.name)))+12)/13
}

// inRoot is how many entries the root folder has, with the label.
func (n *node) inRoot() int {
	count := 1
	for _, c := range n.children {
		count += c.entries()
	}
	return count
}

// geometry is a size of volume.
type geometry struct {
	sectors, perCluster, perFAT int
	root                        int // sectors of the root folder
	media                       byte
	track, heads                int
	bits                        int // 12 or 16
	clusters                    int
}

// geometries are the sizes in question, smallest first.
func geometries() []geometry {
	list := []geometry{{sectors: 2880, perCluster: 1, perFAT: 9, root: rootSectors, media: 0xf0, track: 18, heads: 2, bits: 12}}
	for size := 4 << 20; size <= maxVolume; size *= 2 {
		list = append(list, geometry{sectors: size / sectorSize, perCluster: max(2, size>>20/8), root: rootSectors, media: 0xf8, track: 32, heads: 64, bits: 16})
	}
	for i := range list {
		g := &list[i]
		// The table's size depends on the clusters and these on the table's;
		// a table for all sectors is close enough.
		if g.perFAT == 0 {
			g.perFAT = ((g.sectors/g.perCluster+2)*g.bits/8 + sectorSize - 1) / sectorSize
		}
		g.clusters = (g.sectors - reserved - copies*g.perFAT - g.root) / g.perCluster
		if g.clusters > maxFAT16 || g.bits == 12 && g.clusters > maxFAT12 || g.bits == 16 && g.clusters <= maxFAT12 {
			g.perCluster = max(1, g.perCluster/2)
			g.perFAT = ((g.sectors/g.perCluster+2)*g.bits/8 + sectorSize - 1) / sectorSize
			g.clusters = (g.sectors - reserved - copies*g.perFAT - g.root) / g.perCluster
		}
	}
	return slices.DeleteFunc(list, func(g geometry) bool { return g.bits == 16 && (g.clusters <= maxFAT12 || g.clusters > maxFAT16) })
}

// dataAt is where the first cluster begins.
func (g geometry) dataAt() int { return (reserved + copies*g.perFAT + g.root) * sectorSize }

// place gives every node its clusters, or says that they do not fit.
func (g geometry) place(root *node) bool {
	return root.inRoot() <= g.root*sectorSize/entrySize && g.assign(root) <= g.clusters
}

// assign gives every node its clusters and returns how many these are.
func (g geometry) assign(root *node) int {
	next := 2
	var walk func(n *node)
	walk = func(n *node) {
		for _, c := range n.children {
			size := len(c.data)
			if c.folder {
				size = 2 * entrySize
				for _, cc := range c.children {
					size += cc.entries() * entrySize
				}
			}
			c.clusters = (size + g.perCluster*sectorSize - 1) / (g.perCluster * sectorSize)
			c.first = 0
			if c.clusters > 0 {
				c.first = next
				next += c.clusters
			}
			walk(c)
		}
	}
	walk(root)
	return next - 2
}

// image is the whole volume.
func (g geometry) image(root *node, label string) []byte {
	b := make([]byte, g.sectors*sectorSize)
	serial := crc32.NewIEEE()
	table := b[reserved*sectorSize : (reserved+g.perFAT)*sectorSize]
	g.set(table, 0, 0xff00|int(g.media))
	g.set(table, 1, 0xffff)
	rootAt := (reserved + copies*g.perFAT) * sectorSize
	dataAt := g.dataAt()
	var walk func(n *node)
	walk = func(n *node) {
		for i := range n.clusters {
			next := n.first + i + 1
			if i == n.clusters-1 {
				next = 0xffff
			}
			g.set(table, n.first+i, next)
		}
		data := n.data
		if n.folder {
			data = n.records(label)
		}
		_, _ = fmt.Fprintf(serial, "%s\x00%d\x00", n.name, len(data))
		_, _ = serial.Write(data)
		if n.parent == nil {
			copy(b[rootAt:dataAt], data)
		} else if n.first > 0 {
			copy(b[dataAt+(n.first-2)*g.perCluster*sectorSize:], data)
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(root)
	copy(b[(reserved+g.perFAT)*sectorSize:], table)
	g.bootSector(b, label, serial.Sum32())
	return b
}

// set writes one entry of the allocation table.
func (g geometry) set(table []byte, cluster, value int) {
	if g.bits == 16 {
		binary.LittleEndian.PutUint16(table[2*cluster:], uint16(value))
		return
	}
	at := cluster * 3 / 2
	v := binary.LittleEndian.Uint16(table[at:])
	if cluster%2 == 0 {
		v = v&0xf000 | uint16(value)&0x0fff
	} else {
		v = v&0x000f | uint16(value)<<4
	}
	binary.LittleEndian.PutUint16(table[at:], v)
}

func (g geometry) bootSector(b []byte, label string, serial uint32) {
	copy(b, "\xeb\x3c\x90MICA    ")
	le := binary.LittleEndian
	le.PutUint16(b[11:], sectorSize)
	b[13] = byte(g.perCluster)
	le.PutUint16(b[14:], reserved)
	b[16] = copies
	le.PutUint16(b[17:], uint16(g.root*sectorSize/entrySize))
	if g.sectors < 1<<16 {
		le.PutUint16(b[19:], uint16(g.sectors))
	} else {
		le.PutUint32(b[32:], uint32(g.sectors))
	}
	b[21] = g.media
	le.PutUint16(b[22:], uint16(g.perFAT))
	le.PutUint16(b[24:], uint16(g.track))
	le.PutUint16(b[26:], uint16(g.heads))
	if g.bits == 16 {
		b[36] = 0x80
	}
	b[38] = 0x29
	le.PutUint32(b[39:], serial)
	if label == "" {
		label = "NO NAME"
	}
	copy(b[43:], fmt.Sprintf("%-11s%-8s", label, fmt.Sprintf("FAT%d", g.bits)))
	copy(b[62:], "\xf4\xeb\xfd") // halt: there is nothing to start here
	b[510], b[511] = 0x55, 0xaa
}

// records are the directory entries of a folder.
func (n *node) records(label string) []byte {
	var b []byte
	if n.parent == nil {
		if label != "" {
			b = append(b, record([11]byte([]byte(fmt.Sprintf("%-11s", label))), attrVolume, 0, 0)...)
		}
	} else {
		dot, dots := [11]byte([]byte(".          ")), [11]byte([]byte("..         "))
		b = append(b, record(dot, attrFolder, n.first, 0)...)
		b = append(b, record(dots, attrFolder, n.parent.first, 0)...)
	}
	for _, c := range n.children {
		attr := byte(attrFile)
		if c.folder {
			attr = attrFolder
		}
		if !c.plainShort() {
			b = append(b, longName(c.name, checksum(c.short))...)
		}
		b = append(b, record(c.short, attr, c.first, len(c.data))...)
	}
	return b
}

func record(short [11]byte, attr byte, cluster, size int) []byte {
	b := make([]byte, entrySize)
	copy(b, short[:])
	b[11] = attr
	for _, at := range []int{16, 18, 24} { // created, read, written
		binary.LittleEndian.PutUint16(b[at:], firstDate)
	}
	binary.LittleEndian.PutUint16(b[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(b[28:], uint32(size))
	return b
}

func checksum(short [11]byte) byte {
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// longSlots are where the characters of a long name lie in an entry.
var longSlots = [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

// longName are the entries of a long name, last piece first.
func longName(name string, sum byte) []byte {
	units := utf16.Encode([]rune(name))
	pieces := (len(units) + 12) / 13
	b := make([]byte, pieces*entrySize)
	for i := range pieces {
		e := b[(pieces-1-i)*entrySize:][:entrySize]
		e[0], e[11], e[13] = byte(i+1), attrLong, sum
		if i == pieces-1 {
			e[0] |= 0x40
		}
		for k, at := range longSlots {
			v := uint16(0xffff)
			switch p := i*13 + k; {
			case p < len(units):
				v = units[p]
			case p == len(units):
				v = 0
			}
			binary.LittleEndian.PutUint16(e[at:], v)
		}
	}
	return b
}
