package probe

func xfs(d *device) (signature, bool) {
	sb := d.at(0, 512)
	if sb == nil || string(sb[:4]) != "XFSB" {
		return signature{}, false
	}
	return signature{kind: "xfs", usage: Filesystem, label: text(sb[108:120]), uuid: uuid(sb[32:48])}, true
}

func btrfs(d *device) (signature, bool) {
	sb := d.at(64<<10, 1024)
	if sb == nil || string(sb[0x40:0x48]) != "_BHRfS_M" {
		return signature{}, false
	}
	return signature{kind: "btrfs", usage: Filesystem, label: text(sb[0x12b : 0x12b+256]), uuid: uuid(sb[0x20:0x30])}, true
}

func jfs(d *device) (signature, bool) {
	sb := d.at(0x8000, 256)
	if sb == nil || string(sb[:4]) != "JFS1" {
		return signature{}, false
	}
	return signature{kind: "jfs", usage: Filesystem, label: text(sb[152:168]), uuid: uuid(sb[136:152])}, true
}

func reiserfs(d *device) (signature, bool) {
	for _, off := range []int64{64 << 10, 8 << 10} {
		sb := d.at(off, 256)
		if sb == nil {
			continue
		}
		s := signature{kind: "reiserfs", usage: Filesystem, label: text(sb[100:116]), uuid: uuid(sb[84:100])}
		switch string(sb[52:60]) {
		case "ReIsErFs", "ReIsEr2F", "ReIsEr3F":
			return s, true
		}
		if string(sb[20:28]) == "ReIsErFs" {
			return s, true
		}
		if string(sb[:7]) == "ReIsEr4" {
			return signature{kind: "reiser4", usage: Filesystem, uuid: uuid(sb[20:36]), label: text(sb[36:52])}, true
		}
	}
	return signature{}, false
}

func f2fs(d *device) (signature, bool) {
	for _, off := range []int64{1024, 4096 + 1024} { // either copy
		sb := d.at(off, 1152)
		if sb != nil && le32(sb) == 0xF2F52010 {
			return signature{kind: "f2fs", usage: Filesystem, uuid: uuid(sb[0x6c:0x7c]), label: wide(sb[0x7c:0x7c+1024], false)}, true
		}
	}
	return signature{}, false
}

func erofs(d *device) (signature, bool) {
	sb := d.at(1024, 128)
	if sb == nil || le32(sb) != 0xE0F5E1E2 {
		return signature{}, false
	}
	return signature{kind: "erofs", usage: Filesystem, uuid: uuid(sb[48:64]), label: text(sb[64:80])}, true
}

func squashfs(d *device) (signature, bool) {
	sb := d.at(0, 32)
	if sb == nil {
		return signature{}, false
	}
	switch string(sb[:4]) {
	case "hsqs":
		if le16(sb[28:]) < 4 {
			return signature{kind: "squashfs3", usage: Filesystem}, true
		}
		return signature{kind: "squashfs", usage: Filesystem}, true
	case "sqsh":
		return signature{kind: "squashfs3", usage: Filesystem}, true
	}
	return signature{}, false
}

func nilfs(d *device) (signature, bool) {
	for _, off := range []int64{1024, (d.size>>12 - 1) << 12} {
		sb := d.at(off, 512)
		if sb == nil || le16(sb[6:]) != 0x3434 || le32(sb) != 2 {
			continue
		}
		return signature{kind: "nilfs2", usage: Filesystem, uuid: uuid(sb[152:168]), label: text(sb[168:248])}, true
	}
	return signature{}, false
}

func ufs(d *device) (signature, bool) {
	for _, off := range []int64{0, 8 << 10, 64 << 10, 256 << 10} {
		b := d.at(off+1372, 4)
		if b == nil {
			continue
		}
		for _, magic := range []uint32{0x00011954, 0x19540119, 0x00612195, 0x00195612, 0x05231994} {
			if le32(b) == magic || be32(b) == magic {
				return signature{kind: "ufs", usage: Filesystem}, true
			}
		}
	}
	return signature{}, false
}

func hfs(d *device) (signature, bool) {
	b := d.at(1024, 12)
	if b == nil {
		return signature{}, false
	}
	switch {
	case string(b[:4]) == "H+\x00\x04" || string(b[:4]) == "HX\x00\x05":
		return signature{kind: "hfsplus", usage: Filesystem}, true
	case string(b[:2]) == "BD" && !zero(b[2:10]):
		return signature{kind: "hfs", usage: Filesystem}, true
	}
	return signature{}, false
}

func ocfs(d *device) (signature, bool) {
	for _, off := range []int64{1024, 2048, 4096, 8192} {
		if d.has(off, "OCFSV2") {
			return signature{kind: "ocfs2", usage: Filesystem}, true
		}
	}
	return signature{}, false
}

// swap finds swap space and a hibernated system in it, for each page size that
// a kernel may have had.
func swap(d *device) (signature, bool) {
	for page := int64(4 << 10); page <= 64<<10; page *= 2 {
		b := d.at(page-10, 10)
		if b == nil {
			break
		}
		s := signature{kind: "swap", usage: Other}
		switch m := string(b); {
		case m == "SWAPSPACE2":
			if h := d.at(1024, 64); h != nil {
				s.uuid, s.label = uuid(h[12:28]), text(h[28:44])
			}
			return s, true
		case m == "SWAP-SPACE":
			return s, true
		case m[:9] == "S1SUSPEND" || m[:9] == "S2SUSPEND" || m[:9] == "ULSUSPEND" || m == "LINHIB0001":
			s.kind = "swsuspend"
			return s, true
		}
	}
	return signature{}, false
}

func exfat(d *device) (signature, bool) {
	b := d.at(0, 512)
	if b == nil || string(b[3:11]) != "EXFAT   " {
		return signature{}, false
	}
	s := signature{kind: "exfat", usage: Filesystem, uuid: serial(b[100:104])}
	sector, cluster := b[108], b[109]
	if sector < 9 || sector > 12 || cluster > 16 {
		return s, true
	}
	heap, root := int64(le32(b[88:])), int64(le32(b[96:]))
	if root < 2 {
		return s, true
	}
	dir := d.at(heap<<sector+(root-2)<<(sector+cluster), 4096)
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		if n := int(dir[1]); dir[0] == 0x83 && n <= 11 {
			s.label = wide(dir[2:2+2*n], false)
			break
		}
	}
	return s, true
}
