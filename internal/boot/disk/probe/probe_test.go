package probe_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/boot/disk/probe"
	"github.com/micavm/mica/internal/tier"
)

// piece is some bytes of a synthetic device; a negative offset counts from the
// end.
type piece struct {
	off  int64
	data string
}

func synthetic(size int64, pieces ...piece) []byte {
	b := make([]byte, size)
	for _, p := range pieces {
		off := p.off
		if off < 0 {
			off += size
		}
		copy(b[off:], p.data)
	}
	return b
}

func le32(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }
func be32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }
func le64(v uint64) string { return string(binary.LittleEndian.AppendUint64(nil, v)) }

const mib = 1 << 20

// md is a version 1 superblock that libblkid accepts: it checks where the
// superblock says it is.
func md(sector uint64) string {
	sb := make([]byte, 256)
	copy(sb, le32(0xa92b4efc)+le32(1))
	copy(sb[16:], "0123456789abcdef")
	copy(sb[32:], "host:array")
	copy(sb[144:], le64(sector))
	return string(sb)
}

// handmade are kinds that cannot be made here with their own tools, because
// those need a kernel driver.
func handmade() []struct {
	name   string
	data   []byte
	want   string
	oracle bool // libblkid recognises so little of it, too
} {
	var uberblocks []piece
	for i := range int64(8) {
		uberblocks = append(uberblocks, piece{128<<10 + i<<10, le64(0x00bab10c) + le64(5000)})
	}
	lvm := "LABELONE" + le64(1) + le32(0) + le32(32) + "LVM2 001" + "abcdefghijklmnopqrstuvwxyz012345"
	return []struct {
		name   string
		data   []byte
		want   string
		oracle bool
	}{
		{"nothing", synthetic(2 * mib), "", false},
		{"one byte", []byte{7}, "", false},
		{"no bytes", nil, "", false},
		{"md 0.90", synthetic(2*mib, piece{-65536, le32(0xa92b4efc) + le32(0) + le32(90)}), "linux_raid_member", true},
		{"md 0.90 big endian", synthetic(2*mib, piece{-65536, be32(0xa92b4efc) + be32(0) + be32(90)}), "linux_raid_member", true},
		{"md 1.0", synthetic(2*mib, piece{-8192, md(4096 - 16)}), "linux_raid_member", true},
		{"md 1.0 odd size", synthetic(2*mib+5*512, piece{2*mib - 8192, md(4096 - 16)}), "linux_raid_member", true},
		{"md 1.1", synthetic(2*mib, piece{0, md(0)}), "linux_raid_member", true},
		{"md 1.2", synthetic(2*mib, piece{4096, md(8)}), "linux_raid_member", true},
		{"LVM2", synthetic(2*mib, piece{512, lvm}), "LVM2_member", false},
		{"LVM2 sector 3", synthetic(2*mib, piece{1536, lvm}), "LVM2_member", false},
		{"zfs first label", synthetic(4*mib, uberblocks...), "zfs_member", false},
		{"zfs last label", synthetic(4*mib, piece{-128 << 10, le64(0x00bab10c)}), "zfs_member", false},
		{"zfs big endian", synthetic(4*mib, piece{384 << 10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"}), "zfs_member", false},
		{"drbd 8", synthetic(2*mib, piece{-4096 + 60, be32(0x8374026b)}), "drbd", true},
		{"drbd 9", synthetic(2*mib, piece{-4096 + 60, be32(0x8374026d)}), "drbd", false},
		{"vmfs member", synthetic(3*mib, piece{mib, le32(0xc001d00d)}), "VMFS_volume_member", true},
		{"vmfs", synthetic(3*mib, piece{2 * mib, le32(0x2fabf15e)}), "VMFS", true},
		{"isw", synthetic(2*mib, piece{-1024, "Intel Raid ISM Cfg Sig. 1.1.00"}), "isw_raid_member", false},
		{"ddf", synthetic(2*mib, piece{-512, be32(0xDE11DE11)}), "ddf_raid_member", false},
		{"BitLocker", synthetic(2*mib, piece{0, "\xeb\x58\x90-FVE-FS-"}), "BitLocker", false},
		{"LUKS2 second header only", synthetic(2*mib, piece{0x8000, "SKUL\xba\xbe\x00\x02"}), "crypto_LUKS", false},
		{"bcachefs", synthetic(2*mib, piece{4096 + 24, "\xc6\x68\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"}), "bcachefs", false},
		{"swap 8k", synthetic(mib, piece{8192 - 10, "SWAPSPACE2"}), "swap", false},
		{"swap 32k", synthetic(mib, piece{32768 - 10, "SWAPSPACE2"}), "swap", false},
		{"hibernated", synthetic(mib, piece{4096 - 10, "S1SUSPEND\x00"}), "swsuspend", true},
		{"f2fs second copy", synthetic(2*mib, piece{4096 + 1024, le32(0xF2F52010)}), "f2fs", false},
		{"ufs2", synthetic(2*mib, piece{65536 + 1372, le32(0x19540119)}), "ufs", false},
		{"hfs+", synthetic(2*mib, piece{1024, "H+\x00\x04"}), "hfsplus", false},
		{"apfs", synthetic(2*mib, piece{32, "NXSB"}), "apfs", false},
		{"stratis", synthetic(2*mib, piece{516, "!Stra0tis\x86\xff\x02^\x41rh"}), "stratis", false},
		{"bluestore", synthetic(2*mib, piece{0, "bluestore block device\n"}), "ceph_bluestore", false},
		{"verity", synthetic(2*mib, piece{0, "verity\x00\x00"}), "DM_verity_hash", false},
		{"bsd label", synthetic(2*mib, piece{512, "\x57\x45\x56\x82"}), "bsd", false},
		// A mirror's half has the file system's superblock as well: the RAID wins.
		{"ext in md 1.0", synthetic(2*mib, piece{1024 + 56, "\x53\xef"}, piece{-8192, md(4096 - 16)}), "linux_raid_member", false},
		// A partition table alone is not a file system, and not FAT.
		{"mbr", synthetic(2*mib, piece{0, "\xeb\x63\x90"}, piece{446, "\x80\x00\x00\x00\x83\x00\x00\x00\x01\x00\x00\x00\xff\x00\x00\x00"}, piece{510, "\x55\xaa"}), "", false},
	}
}

func TestHandmade(t *testing.T) {
	for _, tc := range handmade() {
		got, err := probe.Read(bytes.NewReader(tc.data), int64(len(tc.data)))
		if err != nil || got.Type != tc.want {
			t.Errorf("%s: Read = %q (all %v), %v; want %q", tc.name, got.Type, got.All, err, tc.want)
		}
	}
}

func TestHandmadeAgainstBlkid(t *testing.T) {
	tier.Full(t)
	blkid := tier.Tool(t, "blkid")
	for _, tc := range handmade() {
		if !tc.oracle {
			continue
		}
		file := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(file, tc.data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), blkid, "-p", "-o", "value", "-s", "TYPE", file).Output()
		if got := strings.TrimSpace(string(out)); got != tc.want {
			t.Errorf("%s: blkid = %q, %v; we say %q", tc.name, got, err, tc.want)
		}
	}
}

// TestUnreadable: a device with a bad sector must never pass for an empty one.
func TestUnreadable(t *testing.T) {
	bad := errors.New("medium error")
	for _, at := range []int64{0, 64<<10 + 100, 2*mib - 100} {
		r := faulty{bytes.NewReader(make([]byte, 2*mib)), at, bad}
		if c, err := probe.Read(r, 2*mib); !errors.Is(err, bad) {
			t.Errorf("bad sector at %d: Read = %+v, %v; want %v", at, c, err, bad)
		}
	}
}

type faulty struct {
	io.ReaderAt
	at  int64
	err error
}

func (f faulty) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

func FuzzRead(f *testing.F) {
	for _, tc := range handmade() {
		f.Add(tc.data[:min(len(tc.data), 72<<10)])
	}
	fat := synthetic(64<<10, piece{0, "\xeb\x3c\x90mkfs.fat\x00\x02\x04\x01\x00\x02\x00\x02\x80\x00\xf8\x01\x00"}, piece{510, "\x55\xaa"})
	f.Add(fat)
	iso := synthetic(72<<10, piece{32768, "\x01CD001\x01"}, piece{32768 + 156, "\x22\x00" + le32(20) + be32(20) + le32(2048) + be32(2048)}, piece{40960, "\x22\x00" + strings.Repeat("\x00", 30) + "\x01\x00"})
	f.Add(iso)
	ext := synthetic(64<<10, piece{1024, le32(16) + le32(64)}, piece{1024 + 20, le32(1)}, piece{1024 + 56, "\x53\xef"}, piece{2048 + 8, le32(5)}, piece{5*1024 + 128, "\x00\x41\x00\x00" + le32(1024)})
	f.Add(ext)
	index := "\x30\x00\x00\x00\x01\x00\x00\x00" + le32(512) + le32(1) + le32(16) + le32(32) + le32(32) + le32(0) + strings.Repeat("\x00", 12) + "\x02\x00\x00\x00"
	ntfs := synthetic(16<<10, piece{3, "NTFS    \x00\x02\x01"}, piece{0x30, le64(4)}, piece{0x40, "\xf6"},
		piece{7168, "FILE\x30\x00\x03\x00"}, piece{7168 + 20, "\x38\x00"},
		piece{7168 + 56, le32(0x90) + le32(88) + strings.Repeat("\x00", 8) + le32(uint32(len(index))) + "\x18\x00\x00\x00" + index},
		piece{7168 + 144, le32(0xA0) + le32(72) + "\x01"}, piece{7168 + 144 + 32, "\x40"}, piece{7168 + 144 + 64, "\x11\x01\x14"}, piece{7168 + 216, le32(0xffffffff)})
	f.Add(ntfs)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := probe.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatalf("Read = %v, though every byte can be read", err)
		}
		if (c.Type == "") != (len(c.All) == 0) {
			t.Fatalf("Type %q, but All is %v", c.Type, c.All)
		}
	})
}
