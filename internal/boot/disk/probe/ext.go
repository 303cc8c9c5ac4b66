package probe

// Feature bits of ext superblocks, as far as they tell the generations apart.
const (
	compatJournal    = 0x4
	incompatFiletype = 0x2
	incompatRecover  = 0x4
	incompatJournal  = 0x8
	incompatMetaBG   = 0x10
	incompat64       = 0x80
	ext3Incompat     = incompatFiletype | incompatRecover | incompatMetaBG
	ext3ROCompat     = 0x7 // sparse superblocks, large files, hashed directories
)

const extSuper = 1024

func ext(d *device) (signature, bool) {
	sb := d.at(extSuper, 1024)
	if sb == nil || le16(sb[56:]) != 0xEF53 {
		return signature{}, false
	}
	compat, incompat, ro := le32(sb[92:]), le32(sb[96:]), le32(sb[100:])
	s := signature{
		kind: "ext4", usage: Filesystem,
		label: text(sb[120:136]), uuid: uuid(sb[104:120]),
		ext: &Ext{
			Mounts:      le16(sb[52:]),
			LastMounted: text(sb[136:200]),
			Mounted:     int64(le32(sb[44:])) | int64(sb[0x275])<<32,
			Written:     int64(le32(sb[48:])) | int64(sb[0x274])<<32,
			Clean:       le16(sb[58:])&3 == 1 && incompat&incompatRecover == 0,
		},
		root: extRoot,
	}
	if log := le32(sb[24:]); log <= 6 {
		blocks := uint64(le32(sb[4:]))
		if incompat&incompat64 != 0 {
			blocks |= uint64(le32(sb[0x150:])) << 32
		}
		if bytes := blocks << (10 + log); bytes>>(10+log) == blocks && bytes < 1<<62 {
			s.size = int64(bytes)
		}
	}
	switch {
	case incompat&incompatJournal != 0:
		s.kind, s.usage, s.ext, s.root = "jbd", Other, nil, nil
	case incompat&^ext3Incompat != 0 || ro&^ext3ROCompat != 0:
	case compat&compatJournal != 0:
		s.kind = "ext3"
	default:
		s.kind = "ext2"
	}
	return s, true
}

const (
	flagExtents = 0x80000
	flagInline  = 0x10000000
	flagEncrypt = 0x800

	maxBlocks = 1024 // of a root directory
	maxNames  = 4096
)

// extRoot reads the names of inode 2. Names that are still in the journal only
// are not seen, so a file system that is not clean may hold more.
func extRoot(d *device) ([]string, bool) {
	sb := d.at(extSuper, 1024)
	log := le32(sb[24:])
	if log > 6 {
		return nil, false
	}
	block := int64(1024) << log
	descriptor := d.at((int64(le32(sb[20:]))+1)*block, 64)
	if descriptor == nil {
		return nil, false
	}
	table := int64(le32(descriptor[8:]))
	if le32(sb[96:])&incompat64 != 0 && le16(sb[254:]) >= 64 {
		table |= int64(le32(descriptor[0x28:])) << 32
	}
	inodeSize := int64(le16(sb[88:]))
	if le32(sb[76:]) == 0 { // revision 0 has no such field
		inodeSize = 128
	}
	if inodeSize < 128 || inodeSize > 4096 || table <= 0 || table > d.size/block {
		return nil, false
	}
	inode := d.at(table*block+inodeSize, 128)
	if inode == nil || le16(inode)&0xf000 != 0x4000 {
		return nil, false
	}
	flags := le32(inode[32:])
	if flags&(flagInline|flagEncrypt) != 0 {
		return nil, false
	}
	w := &extWalk{d: d, block: block, left: int64(le32(inode[4:]))}
	if w.left > maxBlocks*block {
		return nil, false
	}
	var ok bool
	if flags&flagExtents != 0 {
		ok = w.extents(inode[40:100], 0)
	} else {
		ok = w.pointers(inode[40:100])
	}
	return w.names, ok && w.left <= 0
}

// extWalk collects names from the blocks of one directory.
type extWalk struct {
	d     *device
	block int64
	left  int64 // bytes of the directory not read yet
	nodes int
	names []string
}

func (w *extWalk) extents(node []byte, depth int) bool {
	if w.nodes++; w.nodes > maxBlocks || depth > 5 || len(node) < 12 || le16(node) != 0xF30A {
		return false
	}
	count, level := int(le16(node[2:])), le16(node[6:])
	if 12+12*count > len(node) {
		return false
	}
	for i := range count {
		e := node[12+12*i : 24+12*i]
		if level > 0 {
			child := int64(le32(e[4:])) | int64(le16(e[8:]))<<32
			if child > w.d.size/w.block || !w.extents(w.d.at(child*w.block, int(w.block)), depth+1) {
				return false
			}
			continue
		}
		length := int64(le16(e[4:]))
		start := int64(le32(e[8:])) | int64(le16(e[6:]))<<32
		if length > 32768 { // allocated, never written
			return false
		}
		for b := start; b < start+length && w.left > 0; b++ {
			if !w.entries(b) {
				return false
			}
		}
	}
	return true
}

// pointers follows the block map of ext2 and ext3: twelve direct blocks, and one
// of pointers, which is far more than a root directory needs.
func (w *extWalk) pointers(list []byte) bool {
	for i := 0; i < 12 && w.left > 0; i++ {
		if !w.entries(int64(le32(list[4*i:]))) {
			return false
		}
	}
	if w.left <= 0 {
		return true
	}
	at := int64(le32(list[48:]))
	if at == 0 || at > w.d.size/w.block {
		return false
	}
	indirect := w.d.at(at*w.block, int(w.block))
	for i := 0; i+4 <= len(indirect) && w.left > 0; i += 4 {
		if !w.entries(int64(le32(indirect[i:]))) {
			return false
		}
	}
	return true
}

func (w *extWalk) entries(number int64) bool {
	if number <= 0 || number > w.d.size/w.block {
		return false
	}
	b := w.d.at(number*w.block, int(w.block))
	if b == nil {
		return false
	}
	w.left -= w.block
	for off := 0; off+8 <= len(b); {
		length, nameLen := int(le16(b[off+4:])), int(b[off+6])
		if length < 8 || off+length > len(b) || 8+nameLen > length {
			return length == 0 && w.block == 65536 // the one length that does not fit
		}
		name := string(b[off+8 : off+8+nameLen])
		if le32(b[off:]) != 0 && name != "." && name != ".." {
			if len(w.names) >= maxNames {
				return false
			}
			w.names = append(w.names, name)
		}
		off += length
	}
	return true
}
