package iso9660

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

const primarySector = 16

// plan is a volume with every extent decided.
type plan struct {
	v       Volume
	primary *hierarchy
	joliet  *hierarchy // nil without Joliet
	files   []*node    // regular files, in the order of their extents
	boot    []*node    // one for each of v.Boot
	held    []*node    // files that lie inside of those
	catalog *node      // nil without boot images
	sectors uint32     // of the whole image
}

// hierarchy is one of the two directory trees of a volume.
type hierarchy struct {
	joliet    bool
	rockRidge bool
	time      time.Time
	dirs      []*dir // breadth first, the root first: the order of the path table
	pathL     uint32 // sector of the little endian path table
	pathM     uint32
	pathSize  uint32 // bytes
}

type dir struct {
	node    *node
	id      []byte
	number  int // from 1, in the path table
	parent  *dir
	entries []entry
	extent  uint32
	size    uint32 // bytes of the records, whole sectors
	cont    uint32 // sectors of the continuation area behind them
}

type entry struct {
	id   []byte
	node *node
	sub  *dir // of a directory
}

func newPlan(v Volume) (*plan, error) {
	if v.Time.IsZero() {
		v.Time = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if y := v.Time.UTC().Year(); y < 1900 || y > 1900+math.MaxUint8 {
		return nil, fmt.Errorf("year %d cannot be stored", y)
	}
	if err := checkText(v); err != nil {
		return nil, err
	}
	if v.HybridMBR != nil && (len(v.Boot) == 0 || v.Boot[0].Platform != BIOS || len(v.HybridMBR) > hybridCode) {
		return nil, errHybrid
	}
	if len(v.Boot) > 0 {
		if v.Catalog == "" {
			i := max(0, slices.IndexFunc(v.Boot, func(b BootImage) bool { return b.Path != "" }))
			v.Catalog = path.Join(path.Dir(v.Boot[i].Path), "boot.cat")
		}
		v.Files = append(slices.Clone(v.Files), Bytes(v.Catalog, 0o444, make([]byte, SectorSize)))
	}
	root, all, err := newTree(v.Files)
	if err != nil {
		return nil, err
	}
	p := &plan{v: v}
	for _, b := range v.Boot {
		n, held, err := bootNode(b, all)
		if err != nil {
			return nil, err
		}
		p.boot, p.held = append(p.boot, n), append(p.held, held...)
	}
	if len(v.Boot) > 0 {
		if 64*len(v.Boot) > SectorSize {
			return nil, fmt.Errorf("%d boot images are too many", len(v.Boot))
		}
		p.catalog = all[v.Catalog]
	}
	p.primary = newHierarchy(root, false, v.RockRidge, v.Time)
	if v.Joliet {
		p.joliet = newHierarchy(root, true, false, v.Time)
	}
	return p, p.place()
}

// bootNode finds or makes the node of a boot image, and puts the files into it
// that it holds.
func bootNode(b BootImage, all map[string]*node) (n *node, held []*node, err error) {
	n = all[b.Path]
	if b.Hidden != nil {
		n = &node{file: *b.Hidden, hidden: true}
		if err := checkFile(n.file); err != nil {
			return nil, nil, fmt.Errorf("boot image %q: %w", n.file.Path, err)
		}
	}
	if n == nil || !n.file.Mode.IsRegular() || n.file.Size == 0 {
		return nil, nil, fmt.Errorf("boot image %q is not a file of the volume with content", b.Path)
	}
	for p, at := range b.Holds {
		m := all[p]
		switch {
		case m == nil || m == n || !m.file.Mode.IsRegular() || m.file.Size == 0 || m.holder != nil:
			return nil, nil, fmt.Errorf("boot image %q cannot hold %q: not another file with content", n.file.Path, p)
		case at < 0 || at%SectorSize != 0 || at+m.file.Size > n.file.Size:
			return nil, nil, fmt.Errorf("boot image %q of %d bytes cannot hold %q at %d", n.file.Path, n.file.Size, p, at)
		}
		m.holder, m.within = n, uint32(at/SectorSize)
		held = append(held, m)
	}
	return n, held, nil
}

func checkText(v Volume) error {
	for _, f := range []struct {
		what, text string
		room       int
	}{{"label", v.Label, 32}, {"system identifier", v.System, 32}, {"publisher", v.Publisher, 128}} {
		if len(f.text) > f.room || strings.ContainsFunc(f.text, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("%s %q is not printable ASCII of at most %d characters", f.what, f.text, f.room)
		}
	}
	if v.Pad < 0 {
		return errors.New("negative padding")
	}
	return nil
}

func newHierarchy(root *node, joliet, rockRidge bool, t time.Time) *hierarchy {
	h := &hierarchy{joliet: joliet, rockRidge: rockRidge, time: t}
	first := &dir{node: root, id: []byte{0}, number: 1}
	first.parent = first
	h.dirs = []*dir{first}
	for i := 0; i < len(h.dirs); i++ {
		d := h.dirs[i]
		var children []*node
		for _, c := range d.node.children {
			if !c.isSymlink() || rockRidge {
				children = append(children, c)
			}
		}
		names, compare := plainNames, comparePlain
		if joliet {
			names, compare = jolietNames, bytes.Compare
		}
		for k, id := range names(children) {
			d.entries = append(d.entries, entry{id: id, node: children[k]})
		}
		slices.SortFunc(d.entries, func(a, b entry) int { return compare(a.id, b.id) })
		for k := range d.entries {
			if e := &d.entries[k]; e.node.isDir() {
				e.sub = &dir{node: e.node, id: e.id, number: len(h.dirs) + 1, parent: d}
				h.dirs = append(h.dirs, e.sub)
			}
		}
	}
	return h
}

// place gives every structure its sectors, in the order they are written.
func (p *plan) place() error {
	next := uint64(primarySector + 2) // primary descriptor and terminator
	if p.joliet != nil {
		next++
	}
	if p.catalog != nil {
		next++
	}
	take := func(sectors uint32) uint32 {
		at := next
		next += uint64(sectors)
		return uint32(at)
	}
	for _, h := range p.hierarchies() {
		if len(h.dirs) > math.MaxUint16 {
			return fmt.Errorf("%d directories are more than a path table holds", len(h.dirs))
		}
		h.pathSize = uint32(len(h.pathTable(binary.LittleEndian)))
		h.pathL = take(sectorsOf(int64(h.pathSize)))
		h.pathM = take(sectorsOf(int64(h.pathSize)))
	}
	for _, h := range p.hierarchies() {
		for _, d := range h.dirs {
			records, cont, err := h.records(d)
			if err != nil {
				return err
			}
			d.size, d.cont = uint32(len(records)), sectorsOf(int64(len(cont)))
			d.extent = take(sectorsOf(int64(d.size)) + d.cont)
		}
	}
	p.files = nil
	var walk func(n *node)
	walk = func(n *node) {
		for _, c := range n.children {
			switch {
			case c.isDir():
				walk(c)
			case c.file.Mode.IsRegular():
				// An empty file has an extent of no sectors; zero is what
				// other writers put there.
				if c.holder != nil || c == p.efi() {
					continue
				}
				if c.file.Size > 0 {
					c.extent = take(sectorsOf(c.file.Size))
				}
				p.files = append(p.files, c)
			}
		}
	}
	walk(p.primary.dirs[0].node)
	for _, n := range p.boot {
		if n.hidden && n != p.efi() {
			n.extent = take(sectorsOf(n.file.Size))
			p.files = append(p.files, n)
		}
	}
	cylinder := func() {
		if p.hybrid() {
			next = (next + hybridUnit - 1) / hybridUnit * hybridUnit
		}
	}
	if n := p.efi(); n != nil { // the last, as a partition of its own
		cylinder()
		n.extent = take(sectorsOf(n.file.Size))
		p.files = append(p.files, n)
	}
	for _, n := range p.boot {
		if n.holder != nil {
			return fmt.Errorf("boot image %q lies in another", n.file.Path)
		}
	}
	for _, n := range p.held {
		n.extent = n.holder.extent + n.within
	}
	next += uint64(p.v.Pad)
	cylinder()
	if next > math.MaxUint32/4 {
		return fmt.Errorf("%d sectors are more than an image can have", next)
	}
	p.sectors = uint32(next)
	for i, n := range p.boot {
		if p.v.Boot[i].InfoTable && n.patch == nil {
			table, err := infoTable(n)
			if err != nil {
				return err
			}
			n.patch = table
		}
	}
	return nil
}

func (p *plan) hierarchies() []*hierarchy {
	if p.joliet == nil {
		return []*hierarchy{p.primary}
	}
	return []*hierarchy{p.primary, p.joliet}
}

// pathTable is the table of ECMA-119 9.4 in one byte order.
func (h *hierarchy) pathTable(order binary.AppendByteOrder) []byte {
	var b []byte
	for _, d := range h.dirs {
		b = append(b, byte(len(d.id)), 0)
		b = order.AppendUint32(b, d.extent)
		b = order.AppendUint16(b, uint16(d.parent.number))
		b = append(b, d.id...)
		if len(d.id)%2 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// records is the content of a directory and of the continuation area behind it.
// Its length does not depend on extents, so it serves for planning too.
func (h *hierarchy) records(d *dir) (records, cont area, err error) {
	ce := d.extent + d.size/SectorSize
	add := func(id []byte, n *node, sub *dir, entries [][]byte) error {
		var use []byte
		if h.rockRidge {
			use, cont, err = pack(entries, recordRoom(id), cont, ce)
			if err != nil {
				return fmt.Errorf("file %q: %w", n.file.Path, err)
			}
		}
		extent, size := n.extent, uint32(n.file.Size)
		if sub != nil {
			extent, size = sub.extent, sub.size
		} else if n.isSymlink() {
			size = 0
		}
		records, _ = records.add(directoryRecord(id, extent, size, h.time, sub != nil, use))
		return nil
	}
	self := attributes(d.node, h.time)
	if d.parent == d {
		sp, er := announce()
		self = append(append([][]byte{sp}, self...), er)
	}
	if err := add([]byte{0}, d.node, d, self); err != nil {
		return nil, nil, err
	}
	if err := add([]byte{1}, d.parent.node, d.parent, attributes(d.parent.node, h.time)); err != nil {
		return nil, nil, err
	}
	for _, e := range d.entries {
		entries := append(attributes(e.node, h.time), nameEntries(e.node.name)...)
		if e.node.isSymlink() {
			entries = append(entries, linkEntries(e.node.file.Link)...)
		}
		if err := add(e.id, e.node, e.sub, entries); err != nil {
			return nil, nil, err
		}
	}
	return records.pad(), cont.pad(), nil
}
