package probe

import (
	"fmt"
	"strings"
)

const isoSector = 2048

func iso9660(d *device) (signature, bool) {
	vd := d.at(16*isoSector, isoSector)
	if vd == nil || string(vd[1:6]) != "CD001" {
		return signature{}, false
	}
	s := signature{kind: "iso9660", usage: Filesystem}
	if pvd := isoPrimary(d); pvd != nil {
		s.label, s.root = text(pvd[40:72]), isoRoot
		s.size = int64(le32(pvd[80:])) * isoSector
		if s.uuid = isoDate(pvd[830:847]); s.uuid == "" {
			s.uuid = isoDate(pvd[813:830])
		}
	}
	return s, true
}

// isoPrimary finds the primary descriptor, which need not be the first.
func isoPrimary(d *device) []byte {
	for i := range int64(16) {
		vd := d.at((16+i)*isoSector, isoSector)
		if vd == nil || string(vd[1:6]) != "CD001" || vd[0] == 255 {
			return nil
		}
		if vd[0] == 1 {
			return vd
		}
	}
	return nil
}

// isoDate writes the digits of a date as libblkid does; none is empty.
func isoDate(b []byte) string {
	digits := string(b[:16])
	if strings.Trim(digits, "0") == "" || strings.Trim(digits, "0123456789") != "" {
		return ""
	}
	return fmt.Sprintf("%s-%s-%s-%s-%s-%s-%s", digits[:4], digits[4:6], digits[6:8], digits[8:10], digits[10:12], digits[12:14], digits[14:16])
}

func isoRoot(d *device) ([]string, bool) {
	pvd := isoPrimary(d)
	if pvd == nil {
		return nil, false
	}
	start, length := int64(le32(pvd[156+2:])), int64(le32(pvd[156+10:]))
	if length > maxBlocks*isoSector {
		return nil, false
	}
	var names []string
	skip := isoSkip(d, start)
	for off := int64(0); off < length; off += isoSector {
		b := d.at(start*isoSector+off, isoSector)
		if b == nil {
			return names, false
		}
		for len(b) > 33 && int(b[0]) >= 34 && int(b[0]) <= len(b) {
			rec := b[:b[0]]
			b = b[b[0]:]
			n := int(rec[32])
			if 33+n > len(rec) || n == 1 && rec[33] <= 1 { // "." and ".."
				continue
			}
			if len(names) >= maxNames {
				return names, false
			}
			names = append(names, isoName(rec, n, skip))
		}
	}
	return names, true
}

// isoSkip is the length of what comes before the system use entries, from the
// SP entry of the root's own record.
func isoSkip(d *device, start int64) int {
	b := d.at(start*isoSector, 64)
	if b != nil && b[32] == 1 && int(b[0]) >= 41 && string(b[34:36]) == "SP" && b[38] == 0xbe && b[39] == 0xef {
		return int(b[40])
	}
	return 0
}

// isoName prefers the Rock Ridge name; the plain one is lower-cased without its
// version, as Linux shows it.
func isoName(rec []byte, n, skip int) string {
	off := 33 + n
	if n%2 == 0 {
		off++
	}
	var long strings.Builder
	for off += skip; off+5 <= len(rec); {
		length := int(rec[off+2])
		if length < 5 || off+length > len(rec) {
			break
		}
		if string(rec[off:off+2]) == "NM" && rec[off+4]&6 == 0 {
			long.Write(rec[off+5 : off+length])
		}
		off += length
	}
	if long.Len() > 0 {
		return long.String()
	}
	name, _, _ := strings.Cut(string(rec[33:33+n]), ";")
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// udf finds the volume recognition sequence, with sectors of 2 KiB or, on disks
// with larger blocks, of 4 KiB.
func udf(d *device) (signature, bool) {
	for _, step := range []int64{2048, 4096} {
		for i := range int64(32) {
			vd := d.at(32768+i*step, 8)
			if vd == nil {
				break
			}
			switch string(vd[1:6]) {
			case "NSR02", "NSR03":
				return signature{kind: "udf", usage: Filesystem, label: udfLabel(d)}, true
			case "BEA01", "TEA01", "BOOT2", "CD001", "CDW02":
				continue
			}
			break
		}
	}
	return signature{}, false
}

// udfLabel reads the logical volume's name: anchor, main sequence, descriptor.
func udfLabel(d *device) string {
	for _, block := range []int64{512, 1024, 2048, 4096} {
		anchor := d.at(256*block, 32)
		if anchor == nil || le16(anchor) != 2 || le32(anchor[12:]) != 256 {
			continue
		}
		length, start := int64(le32(anchor[16:])), int64(le32(anchor[20:]))
		for i := range min(length/block, 64) {
			b := d.at((start+i)*block, 512)
			if b == nil || le16(b) == 8 { // terminator
				break
			}
			if le16(b) == 6 && le32(b[12:]) == uint32(start+i) {
				return dstring(b[84:212])
			}
		}
	}
	return ""
}

// dstring decodes a UDF string: a first byte for the width, the length last.
func dstring(b []byte) string {
	n := int(b[len(b)-1])
	if n < 1 || n >= len(b) {
		return ""
	}
	switch b[0] {
	case 8:
		runes := make([]rune, 0, n)
		for _, c := range b[1:n] {
			if c == 0 {
				break
			}
			runes = append(runes, rune(c))
		}
		return strings.TrimRight(string(runes), " ")
	case 16:
		return wide(b[1:n], true)
	}
	return ""
}
