package probe

import (
	"fmt"
	"slices"
)

// NTFS attribute types, and records of the master file table.
const (
	ntfsVolumeName = 0x60
	ntfsIndexRoot  = 0x90
	ntfsIndexAlloc = 0xA0
	ntfsEnd        = 0xffffffff

	ntfsRecVolume = 3
	ntfsRecRoot   = 5
	ntfsFirstUser = 16 // records before are the file system's own
)

type ntfsVolume struct {
	d               *device
	sector, cluster int64 // bytes
	record          int64 // bytes
	mft             int64 // offset
}

func readNTFS(d *device) (v ntfsVolume, ok bool) {
	b := d.at(0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " {
		return v, false
	}
	v = ntfsVolume{d: d, sector: int64(le16(b[0x0b:]))}
	perCluster := int64(b[0x0d])
	if perCluster > 0x80 {
		perCluster = 1 << min(256-perCluster, 20)
	}
	v.cluster = v.sector * perCluster
	v.record = sizeField(b[0x40], v.cluster)
	first := le64(b[0x30:])
	if v.sector < 256 || v.sector > 4096 || v.cluster == 0 || v.record < 256 || v.record > 65536 || first > uint64(d.size/v.cluster) {
		return v, false
	}
	v.mft = int64(first) * v.cluster
	return v, true
}

// sizeField is a length in clusters, or if negative the power of two of bytes.
func sizeField(raw byte, cluster int64) int64 {
	n := int8(raw)
	if n < 0 {
		return 1 << min(-int64(n), 20)
	}
	return int64(n) * cluster
}

func ntfs(d *device) (signature, bool) {
	b := d.at(0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " {
		return signature{}, false
	}
	s := signature{kind: "ntfs", usage: Filesystem, uuid: fmt.Sprintf("%016X", le64(b[0x48:])), root: ntfsRoot}
	if v, ok := readNTFS(d); ok {
		for _, a := range v.attributes(ntfsRecVolume) {
			if name := a.resident(); a.kind == ntfsVolumeName && len(name) <= 1024 {
				s.label = wide(name, false)
			}
		}
	}
	return s, true
}

// ntfsRoot reads the index of the root directory without the file system's own
// files. Changes that are still in its journal only are not seen.
func ntfsRoot(d *device) ([]string, bool) {
	v, ok := readNTFS(d)
	if !ok {
		return nil, false
	}
	w := &ntfsWalk{}
	block := int64(0)
	seen := false
	for _, a := range v.attributes(ntfsRecRoot) {
		switch a.kind {
		case ntfsIndexRoot:
			b := a.resident()
			if len(b) < 32 {
				return nil, false
			}
			block, seen = int64(le32(b[8:])), true
			if !w.entries(b[16:], int(le32(b[16:]))) {
				return nil, false
			}
		case ntfsIndexAlloc:
			if block < 512 || block > 64<<10 || !v.blocks(a, block, w) {
				return nil, false
			}
		}
	}
	return w.names, seen
}

// blocks reads the index blocks that did not fit into the directory's record.
func (v ntfsVolume) blocks(a ntfsAttribute, block int64, w *ntfsWalk) bool {
	runs, ok := a.runs()
	if !ok {
		return false
	}
	for _, r := range runs {
		if r.length > maxBlocks {
			return false
		}
		for off := int64(0); off+block <= r.length*v.cluster; off += block {
			at := r.start*v.cluster + off
			if raw := v.d.at(at, int(block)); raw != nil && zero(raw) { // reserved, and never used
				continue
			}
			b := v.fixed(at, block, "INDX")
			if len(b) < 40 || !w.entries(b[24:], int(le32(b[24:]))) {
				return false
			}
		}
	}
	return true
}

// fixed reads a record and puts the last two bytes of its sectors back, which
// are kept in its header while it is on the disk.
func (v ntfsVolume) fixed(off, length int64, magic string) []byte {
	b := slices.Clone(v.d.at(off, int(length)))
	if len(b) < 48 || string(b[:4]) != magic {
		return nil
	}
	at, count := int(le16(b[4:])), int(le16(b[6:]))
	if count < 1 || at+2*count > len(b) || int64(count-1)*512 > length {
		return nil
	}
	for i := 1; i < count; i++ {
		end := i*512 - 2
		if b[end] != b[at] || b[end+1] != b[at+1] {
			return nil
		}
		copy(b[end:end+2], b[at+2*i:])
	}
	return b
}

// ntfsAttribute is one attribute of a file record, as it is on the disk.
type ntfsAttribute struct {
	kind uint32
	raw  []byte
}

func (v ntfsVolume) attributes(record int64) []ntfsAttribute {
	rec := v.fixed(v.mft+record*v.record, v.record, "FILE")
	if rec == nil {
		return nil
	}
	var list []ntfsAttribute
	for off := int(le16(rec[20:])); off+24 <= len(rec); {
		kind, length := le32(rec[off:]), int(le32(rec[off+4:]))
		if kind == ntfsEnd || length < 24 || off+length > len(rec) {
			break
		}
		list = append(list, ntfsAttribute{kind, rec[off : off+length]})
		off += length
	}
	return list
}

// resident is the value of an attribute that is kept in the record itself.
func (a ntfsAttribute) resident() []byte {
	if a.raw[8] != 0 {
		return nil
	}
	size, at := int(le32(a.raw[16:])), int(le16(a.raw[20:]))
	if size < 0 || at > len(a.raw) || size > len(a.raw)-at {
		return nil
	}
	return a.raw[at : at+size]
}

type ntfsRun struct{ start, length int64 } // clusters

// runs lists where the value of an attribute lies that is kept elsewhere.
func (a ntfsAttribute) runs() ([]ntfsRun, bool) {
	if a.raw[8] == 0 || len(a.raw) < 64 {
		return nil, false
	}
	at := int(le16(a.raw[32:]))
	var list []ntfsRun
	for start := int64(0); at < len(a.raw) && a.raw[at] != 0; {
		lengthBytes, startBytes := int(a.raw[at]&15), int(a.raw[at]>>4)
		at++
		if lengthBytes < 1 || lengthBytes > 8 || startBytes < 1 || startBytes > 8 || at+lengthBytes+startBytes > len(a.raw) {
			return nil, false
		}
		length := signed(a.raw[at : at+lengthBytes])
		start += signed(a.raw[at+lengthBytes : at+lengthBytes+startBytes])
		at += lengthBytes + startBytes
		if length < 0 || start < 0 || start > 1<<40 || len(list) >= maxBlocks {
			return nil, false
		}
		list = append(list, ntfsRun{start, length})
	}
	return list, true
}

// signed is a little-endian number of up to eight bytes in two's complement.
func signed(b []byte) int64 {
	var n uint64
	for i := len(b) - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	shift := 64 - 8*len(b)
	return int64(n<<shift) >> shift
}

// ntfsWalk collects names from index entries.
type ntfsWalk struct{ names []string }

// entries reads a list of entries that begins at off in b; a flag marks the last.
func (w *ntfsWalk) entries(b []byte, off int) bool {
	for off >= 0 && off+16 <= len(b) {
		length, key, flags := int(le16(b[off+8:])), int(le16(b[off+10:])), le16(b[off+12:])
		if flags&2 != 0 {
			return true
		}
		if length < 16 || off+length > len(b) || key < 66 || 16+key > length {
			return false
		}
		name := b[off+16 : off+16+key]
		// The short name that DOS sees is an entry of its own.
		if owner := le64(b[off:]) & (1<<48 - 1); owner >= ntfsFirstUser && name[65] != 2 {
			n := 2 * int(name[64])
			if 66+n > len(name) || len(w.names) >= maxNames {
				return false
			}
			w.names = append(w.names, wide(name[66:66+n], false))
		}
		off += length
	}
	return false
}
