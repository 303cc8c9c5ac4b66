package probe

import (
	"strings"
)

// fatVolume is the geometry of a FAT file system.
type fatVolume struct {
	bits      int // 12, 16 or 32
	sector    int64
	cluster   int64 // bytes
	fat       int64 // offset of the first allocation table
	root      int64 // offset of the root directory, FAT12 and FAT16
	rootBytes int64
	data      int64 // offset of cluster 2
	rootStart uint32
	clusters  int64
	total     int64  // bytes
	label     string // of the boot sector
	serial    string
}

// readFAT accepts a boot sector by its fields: the words "FAT16" in it are
// optional, and a partition table has the same last two bytes.
func readFAT(d *device) (fatVolume, bool) {
	b := d.at(0, 512)
	if b == nil || b[0] != 0xEB && b[0] != 0xE9 {
		return fatVolume{}, false
	}
	sector, perCluster := int64(le16(b[11:])), int64(b[13])
	reserved, copies := int64(le16(b[14:])), int64(b[16])
	media := b[21]
	powerOf2 := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if !powerOf2(sector) || sector < 512 || sector > 4096 || !powerOf2(perCluster) || reserved == 0 ||
		copies == 0 || copies > 4 || media < 0xf8 && media != 0xf0 {
		return fatVolume{}, false
	}
	// Formats that keep a DOS parameter block but are something else.
	if name := string(b[3:11]); name == "NTFS    " || name == "EXFAT   " || name == "-FVE-FS-" {
		return fatVolume{}, false
	}
	rootEntries, total, length := int64(le16(b[17:])), int64(le16(b[19:])), int64(le16(b[22:]))
	if total == 0 {
		total = int64(le32(b[32:]))
	}
	v := fatVolume{sector: sector, cluster: sector * perCluster, fat: reserved * sector, total: total * sector}
	wide := length == 0
	if wide {
		length = int64(le32(b[36:]))
	}
	v.rootBytes = (rootEntries*32 + sector - 1) / sector * sector
	v.root = v.fat + copies*length*sector
	v.data = v.root + v.rootBytes
	if length == 0 || total == 0 || v.data >= total*sector {
		return fatVolume{}, false
	}
	v.clusters = (total*sector - v.data) / v.cluster
	ext := b[36:62] // where the extended parameters are
	switch {
	case wide:
		v.bits, v.rootStart, ext = 32, le32(b[44:]), b[64:90]
	case v.clusters < 4085:
		v.bits = 12
	default:
		v.bits = 16
	}
	if ext[2] == 0x29 || ext[2] == 0x28 {
		v.serial = serial(ext[3:7])
		if ext[2] == 0x29 {
			v.label = text(ext[7:18])
		}
	}
	return v, true
}

func vfat(d *device) (signature, bool) {
	v, ok := readFAT(d)
	if !ok {
		return signature{}, false
	}
	s := signature{kind: "vfat", usage: Filesystem, uuid: v.serial, label: v.label, size: v.total, root: fatRoot}
	if s.label == "NO NAME" {
		s.label = ""
	}
	// The root directory has the label that tools show and change.
	v.walk(d, func(e []byte, _ string) {
		if e[11]&0x3f == 0x08 {
			s.label = text(e[:11])
		}
	})
	return s, true
}

func fatRoot(d *device) ([]string, bool) {
	v, ok := readFAT(d)
	if !ok {
		return nil, false
	}
	var names []string
	ok = v.walk(d, func(e []byte, long string) {
		if e[11]&0x08 != 0 || e[0] == '.' || len(names) >= maxNames {
			return
		}
		if long != "" {
			names = append(names, long)
			return
		}
		name := text(e[:8])
		if e[12]&0x08 != 0 { // as Windows NT marks a lower-case name
			name = strings.ToLower(name)
		}
		if ext := text(e[8:11]); ext != "" {
			if e[12]&0x10 != 0 {
				ext = strings.ToLower(ext)
			}
			name += "." + ext
		}
		names = append(names, name)
	})
	return names, ok && len(names) < maxNames
}

// walk calls each with every entry of the root directory and its long name. It
// reports whether the end of the directory was reached.
func (v fatVolume) walk(d *device, each func(entry []byte, long string)) bool {
	w := &fatWalk{each: each}
	if v.bits != 32 {
		for off := int64(0); off < v.rootBytes; off += v.sector {
			b := d.at(v.root+off, int(v.sector))
			if b == nil {
				return false
			}
			if w.entries(b) {
				return true
			}
		}
		return true
	}
	at := v.rootStart
	for range maxBlocks {
		if at < 2 || int64(at-2) >= v.clusters {
			return at >= 0x0ffffff8
		}
		for off := int64(0); off < v.cluster; off += v.sector {
			b := d.at(v.data+int64(at-2)*v.cluster+off, int(v.sector))
			if b == nil {
				return false
			}
			if w.entries(b) {
				return true
			}
		}
		next := d.at(v.fat+4*int64(at), 4)
		if next == nil {
			return false
		}
		at = le32(next) & 0x0fffffff
	}
	return false
}

// fatWalk puts long names together: their pieces come before the entry, the
// last piece first.
type fatWalk struct {
	each func([]byte, string)
	long string
}

func (w *fatWalk) entries(b []byte) (end bool) {
	for ; len(b) >= 32; b = b[32:] {
		e := b[:32]
		switch {
		case e[0] == 0:
			return true
		case e[0] == 0xE5:
			w.long = ""
		case e[11] == 0x0f:
			piece := make([]byte, 0, 26)
			piece = append(append(append(piece, e[1:11]...), e[14:26]...), e[28:32]...)
			if e[0]&0x40 != 0 {
				w.long = ""
			}
			if len(w.long) < 1024 {
				w.long = wide(piece, false) + w.long
			}
		default:
			w.each(e, w.long)
			w.long = ""
		}
	}
	return false
}
