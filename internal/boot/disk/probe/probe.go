package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/micavm/mica/cvmfs/slice"
)

// Content is what a device holds.
type Content struct {
	// Type is the kind of the strongest signature, in libblkid's words: "ext4",
	// "vfat", "crypto_LUKS", "LVM2_member", "swap"; empty if nothing is known.
	Type  string
	Usage Usage
	Label string
	UUID  string

	// All lists the type of every signature, the strongest first.
	All []string

	// Root lists the names in the root directory, for ext2 to ext4, vfat, ntfs and
	// iso9660; RootRead says that it could be read whole.
	Root     []string
	RootRead bool

	// Size is what the file system says its length is, for ext2 to ext4, vfat and
	// iso9660; 0 if unknown.
	Size int64

	// Ext is set for ext2 to ext4.
	Ext *Ext
}

// Slice is the kind of a device that holds a slice of a CernVM-FS repository.
const Slice = "mica-slice"

// Usage says what a signature is for. A stronger usage wins over a weaker one:
// the two halves of a mirror look like file systems, too.
type Usage string

// The usages, the strongest first.
const (
	Raid       Usage = "raid" // member of a volume group, RAID set, pool or cache
	Crypto     Usage = "crypto"
	Filesystem Usage = "filesystem"
	Other      Usage = "other" // swap
	Labelled   Usage = "table" // a partition table that is neither GPT nor MBR
)

// Ext is what only an ext superblock says.
type Ext struct {
	Mounts      uint16 // times mounted since the last check
	LastMounted string // where
	Mounted     int64  // when, seconds since 1970; 0 is never
	Written     int64
	Clean       bool // unmounted in order, nothing left in the journal
}

// Has reports whether any signature is of that type.
func (c Content) Has(kind string) bool { return slices.Contains(c.All, kind) }

// Known reports whether there is any signature.
func (c Content) Known() bool { return c.Type != "" }

// Read probes the size bytes of r for every signature it knows. The error is
// for bytes that could not be read: the content is then not to be relied upon.
func Read(r io.ReaderAt, size int64) (Content, error) {
	d := &device{r: r, size: size}
	var found []signature
	for _, try := range probes() {
		if s, ok := try(d); ok {
			found = append(found, s)
		}
	}
	if d.err != nil {
		return Content{}, d.err
	}
	if len(found) == 0 {
		if s, ok := weak(d); ok {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return Content{}, nil
	}
	sort.SliceStable(found, func(i, j int) bool { return strength(found[i].usage) < strength(found[j].usage) })
	first := found[0]
	c := Content{Type: first.kind, Usage: first.usage, Label: first.label, UUID: first.uuid, Size: first.size, Ext: first.ext}
	for _, s := range found {
		if !c.Has(s.kind) {
			c.All = append(c.All, s.kind)
		}
	}
	if first.root != nil {
		c.Root, c.RootRead = first.root(d)
	}
	return c, nil
}

func strength(u Usage) int {
	return slices.Index([]Usage{Raid, Crypto, Filesystem, Other, Labelled}, u)
}

// signature is one thing that was recognised.
type signature struct {
	kind  string
	usage Usage
	label string
	uuid  string
	size  int64
	ext   *Ext
	root  func(*device) ([]string, bool)
}

// A probe recognises one kind. It may be given any bytes.
type probe func(*device) (signature, bool)

// probes is the list of everything that is recognised; of equal usage the first
// wins.
func probes() []probe {
	list := make([]probe, 0, 64)
	list = append(list, mdRaid, lvm, drbd, zfs, bcache, biosRaid, vmfs, luks, bitlocker)
	list = append(list, ext, xfs, btrfs, exfat, ntfs, vfat, udf, iso9660)
	list = append(list, jfs, reiserfs, f2fs, erofs, squashfs, nilfs, ufs, hfs, ocfs, swap, repositorySlice)
	for _, m := range magics() {
		list = append(list, m.probe)
	}
	return list
}

func repositorySlice(d *device) (signature, bool) {
	return signature{kind: Slice, usage: Other}, slice.Is(d.at(0, 512))
}

// magic is a kind that its first few bytes are enough for.
type magic struct {
	kind   string
	usage  Usage
	offset int64
	bytes  string
}

func (m magic) probe(d *device) (signature, bool) {
	return signature{kind: m.kind, usage: m.usage}, d.has(m.offset, m.bytes)
}

func magics() []magic {
	return []magic{
		{"LVM1_member", Raid, 0, "HM\x01\x00"},
		{"LVM1_member", Raid, 0, "HM\x02\x00"},
		{"DM_snapshot_cow", Raid, 0, "SnAp\x01\x00\x00\x00"},
		{"DM_verity_hash", Crypto, 0, "verity\x00\x00"},
		{"DM_integrity", Crypto, 0, "integrt\x00"},
		{"vdo", Raid, 0, "dmvdo001"},
		{"stratis", Raid, 512 + 4, "!Stra0tis\x86\xff\x02^\x41rh"},
		{"ceph_bluestore", Raid, 0, "bluestore block device"},
		{"oracleasm", Raid, 32, "ORCLDISK"},
		{"apfs", Filesystem, 32, "NXSB"},
		{"romfs", Filesystem, 0, "-rom1fs-"},
		{"cramfs", Filesystem, 0, "\x45\x3d\xcd\x28"},
		{"cramfs", Filesystem, 0, "\x28\xcd\x3d\x45"},
		{"cramfs", Filesystem, 512, "\x45\x3d\xcd\x28"},
		{"ubi", Raid, 0, "UBI#"},
		{"ubifs", Filesystem, 0, "\x31\x18\x10\x06"},
		{"gfs2", Filesystem, 64 << 10, "\x01\x16\x19\x70\x00\x00\x00\x01"},
		{"befs", Filesystem, 512 + 32, "1SFB"},
		{"befs", Filesystem, 32, "1SFB"},
		{"hpfs", Filesystem, 0x2000, "\x49\xe8\x95\xf9"},
		{"hsfs", Filesystem, 32768 + 9, "CDROM"},
		{"bcachefs", Filesystem, 4096 + 24, "\xc6\x68\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
		{"swsuspend", Other, 0, "\xed\xc3\x02\xe9\x98\x56\xe5\x0c"}, // TuxOnIce
		{"sgi", Labelled, 0, "\x0b\xe5\xa9\x41"},
		{"bsd", Labelled, 512, "\x57\x45\x56\x82"},
		{"bsd", Labelled, 64, "\x57\x45\x56\x82"},
		{"mac", Labelled, 512, "PM\x00\x00"},
		{"aix", Labelled, 0, "\xc9\xc2\xd4\xc1"},
	}
}

// weak looks for magics of two bytes, which turn up by chance in the middle of
// other file systems and count only when nothing else was found.
func weak(d *device) (signature, bool) {
	for _, m := range []magic{
		{"minix", Filesystem, 1024 + 16, "\x7f\x13"},
		{"minix", Filesystem, 1024 + 16, "\x8f\x13"},
		{"minix", Filesystem, 1024 + 16, "\x68\x24"},
		{"minix", Filesystem, 1024 + 16, "\x78\x24"},
		{"minix", Filesystem, 1024 + 16, "\x13\x7f"},
		{"minix", Filesystem, 1024 + 16, "\x13\x8f"},
		{"minix", Filesystem, 1024 + 24, "\x5a\x4d"},
		{"sysv", Filesystem, 512 + 504, "\x20\x7e\x18\xfd"},
		{"sun", Labelled, 508, "\xda\xbe"},
	} {
		if s, ok := m.probe(d); ok {
			return s, true
		}
	}
	return signature{}, false
}

// maxRead bounds one read, whatever a superblock asks for.
const maxRead = 1 << 20

// device is what probes read from: bounded, and remembering the first error.
type device struct {
	r    io.ReaderAt
	size int64
	head []byte // the first bytes, read once
	err  error
}

// at returns n bytes at off, or nil if they are not all there. The caller does
// not write to them.
func (d *device) at(off int64, n int) []byte {
	if d.err != nil || off < 0 || n <= 0 || n > maxRead || off > d.size-int64(n) {
		return nil
	}
	if d.head == nil {
		d.head = make([]byte, min(d.size, 132<<10))
		if err := readFull(d.r, d.head, 0); err != nil {
			d.err = err
			return nil
		}
	}
	if off+int64(n) <= int64(len(d.head)) {
		return d.head[off : off+int64(n) : off+int64(n)]
	}
	buf := make([]byte, n)
	if err := readFull(d.r, buf, off); err != nil {
		d.err = err
		return nil
	}
	return buf
}

func (d *device) has(off int64, text string) bool {
	return bytes.Equal(d.at(off, len(text)), []byte(text))
}

func readFull(r io.ReaderAt, buf []byte, off int64) error {
	n, err := r.ReadAt(buf, off)
	if n == len(buf) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(buf), off, err)
}

func le16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
