package probe

import "strings"

// mdRaid finds Linux software RAID: version 0.90 near the end, 1.0 at the end,
// 1.1 at the start and 1.2 at 4 KiB.
func mdRaid(d *device) (signature, bool) {
	const magicNumber = 0xa92b4efc
	s := signature{kind: "linux_raid_member", usage: Raid}
	if sb := d.at(d.size&^0xffff-0x10000, 64); sb != nil && (le32(sb) == magicNumber || be32(sb) == magicNumber) {
		return s, true
	}
	for _, off := range []int64{(d.size/512 - 16) &^ 7 * 512, 0, 4096} {
		sb := d.at(off, 256)
		if sb != nil && le32(sb) == magicNumber {
			if le32(sb[4:]) == 1 {
				s.uuid, s.label = uuid(sb[16:32]), text(sb[32:64])
			}
			return s, true
		}
	}
	return s, false
}

func lvm(d *device) (signature, bool) {
	for sector := range int64(4) {
		b := d.at(sector*512, 512)
		if b == nil || string(b[:8]) != "LABELONE" || string(b[24:32]) != "LVM2 001" {
			continue
		}
		s := signature{kind: "LVM2_member", usage: Raid}
		if off := le32(b[20:]); off <= 512-32 {
			s.uuid = lvmID(b[off : off+32])
		}
		return s, true
	}
	return signature{}, false
}

// lvmID puts the dashes in that LVM shows and does not store.
func lvmID(b []byte) string {
	t := text(b)
	if len(t) != 32 {
		return ""
	}
	parts := []string{t[:6]}
	for i := 6; i < 26; i += 4 {
		parts = append(parts, t[i:i+4])
	}
	return strings.Join(append(parts, t[26:]), "-")
}

func drbd(d *device) (signature, bool) {
	sb := d.at(d.size&^4095-4096, 64)
	if sb == nil {
		return signature{}, false
	}
	switch be32(sb[60:]) {
	case 0x83740267, 0x8374026b, 0x8374026d:
		return signature{kind: "drbd", usage: Raid}, true
	}
	return signature{}, false
}

// zfs looks at the ring of uberblocks in each of the four labels. One is enough:
// a pool that was destroyed and one that lost its labels are still not empty.
func zfs(d *device) (signature, bool) {
	const label, ring = 256 << 10, 128 << 10
	end := d.size &^ (label - 1)
	for _, off := range []int64{0, label, end - 2*label, end - label} {
		b := d.at(off+ring, ring)
		for i := 0; i+8 <= len(b); i += 1024 {
			if v := le64(b[i:]); v == 0x00bab10c || v == 0x0cb1ba0000000000 {
				return signature{kind: "zfs_member", usage: Raid}, true
			}
		}
	}
	return signature{}, false
}

func bcache(d *device) (signature, bool) {
	sb := d.at(4096, 128)
	if sb == nil || string(sb[24:40]) != "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81" {
		return signature{}, false
	}
	return signature{kind: "bcache", usage: Raid, uuid: uuid(sb[40:56])}, true
}

// biosRaid finds the sets of controllers that keep their description in the
// last sectors.
func biosRaid(d *device) (signature, bool) {
	for _, m := range []struct {
		kind  string
		back  int64 // bytes from the end
		bytes string
	}{
		{"ddf_raid_member", 512, "\xde\x11\xde\x11"},
		{"ddf_raid_member", 257 * 512, "\xde\x11\xde\x11"},
		{"isw_raid_member", 1024, "Intel Raid ISM Cfg Sig. "},
		{"isw_raid_member", 8192, "Intel Raid ISM Cfg Sig. "},
		{"nvidia_raid_member", 1024, "NVIDIA"},
		{"lsi_mega_raid_member", 512, "$XIDE$"},
		{"adaptec_raid_member", 512, "\x44\x50\x54\x4d"},
		{"promise_fasttrack_raid_member", 63 * 512, "Promise Technology, Inc."},
		{"hpt45x_raid_member", 11 * 512, "\xf3\x16\x78\x5a"},
	} {
		if d.has(d.size&^511-m.back, m.bytes) {
			return signature{kind: m.kind, usage: Raid}, true
		}
	}
	if d.has(9*512, "\xf3\x16\x78\x5a") || d.has(9*512, "\xfd\x16\x78\x5a") {
		return signature{kind: "hpt37x_raid_member", usage: Raid}, true
	}
	return signature{}, false
}

func vmfs(d *device) (signature, bool) {
	switch {
	case d.has(1<<20, "\x0d\xd0\x01\xc0"):
		return signature{kind: "VMFS_volume_member", usage: Raid}, true
	case d.has(2<<20, "\x5e\xf1\xab\x2f"):
		return signature{kind: "VMFS", usage: Filesystem}, true
	}
	return signature{}, false
}

// luks finds either header; the second one of version 2 lies at one of eight
// places and is all that is left of a container whose start was overwritten.
func luks(d *device) (signature, bool) {
	if h := d.at(0, 512); h != nil && string(h[:6]) == "LUKS\xba\xbe" {
		return luksHeader(h), true
	}
	for off := int64(0x4000); off <= 0x400000; off *= 2 {
		if h := d.at(off, 512); h != nil && string(h[:6]) == "SKUL\xba\xbe" {
			return luksHeader(h), true
		}
	}
	return signature{}, false
}

func luksHeader(h []byte) signature {
	s := signature{kind: "crypto_LUKS", usage: Crypto, uuid: text(h[168:208])}
	if h[6] == 0 && h[7] == 2 {
		s.label = text(h[24:72])
	}
	return s
}

func bitlocker(d *device) (signature, bool) {
	h := d.at(0, 512)
	if h == nil {
		return signature{}, false
	}
	const toGo = "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"
	if string(h[3:11]) == "-FVE-FS-" || string(h[3:11]) == "MSWIN4.1" && string(h[424:440]) == toGo {
		return signature{kind: "BitLocker", usage: Crypto}, true
	}
	return signature{}, false
}
