package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// The formats of disk images, by the names qemu-img has for them.
const (
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
	formatVMDK  = "vmdk"
	formatVDI   = "vdi"
	formatVHD   = "vpc"
)

// ImageFormats are the formats of boot images, as a user names them.
func ImageFormats() []string {
	return []string{formatISO, formatRaw, formatQcow2, formatVMDK, formatVDI, formatVHD}
}

// formatISO is what a user calls the format that Image.Format leaves empty.
const formatISO = "iso"

// DiskFormat tells the format of a disk image by the bytes that every program
// that writes one puts there. A raw image has none of its own: it passes for
// one if its first sector can be booted, or holds a table of partitions. The
// error has class Usage where the file is no disk image.
func DiskFormat(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head, foot, err := ends(f)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	at := func(offset int, magic string) bool {
		return len(head) >= offset && strings.HasPrefix(string(head[offset:]), magic)
	}
	switch {
	case at(0x40, "\x7f\x10\xda\xbe"):
		return formatVDI, nil
	case at(0, "KDMV"), at(0, "# Disk DescriptorFile"):
		return formatVMDK, nil
	case at(0, "QFI\xfb"):
		return formatQcow2, nil
	case at(0, "conectix"), bytes.HasPrefix(foot, []byte("conectix")): // one of fixed size has a footer only
		return formatVHD, nil
	case at(510, "\x55\xaa"):
		return formatRaw, nil
	}
	return "", fail.New(fail.Usage, "%s is no disk image", path).Hint("use a VDI, VMDK, VHD, qcow2 or raw image")
}

const diskSector = 512

// ends returns a file's first and last sector, or what there is of them.
func ends(f *os.File) (head, foot []byte, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("not a file")
	}
	head = make([]byte, diskSector)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if info.Size() < 2*diskSector {
		return head[:n], nil, nil
	}
	foot = make([]byte, diskSector)
	_, err = f.ReadAt(foot, info.Size()-diskSector)
	return head[:n], foot, err
}

// CheckDiskImage says whether the file at path is an image of that format that
// is complete in itself. Whoever opens an image follows what it says of other
// files: an image from a stranger that names /etc/shadow as what it is based on
// would put that on the machine's disk. So images of several files are refused.
func CheckDiskImage(path, format string) error {
	if !slices.Contains(ImageFormats()[1:], format) {
		return fail.New(fail.Usage, "unknown image format %q", format).Hint("use one of %s", strings.Join(ImageFormats(), ", "))
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fail.New(fail.NotFound, "no disk image at %s", path)
	}
	if err != nil {
		return fmt.Errorf("opening disk image: %w", err)
	}
	defer f.Close()
	head, foot, err := ends(f)
	if err != nil {
		return fail.New(fail.Unverified, "disk image %s: %w", path, err)
	}
	if format == formatRaw { // whatever is in it
		if len(head) < diskSector {
			return fail.New(fail.Unverified, "disk image %s: %d bytes are no disk", path, len(head))
		}
		return nil
	}
	if is, err := DiskFormat(path); err != nil || is != format {
		return fail.New(fail.Unverified, "%s is no %s image", path, format)
	}
	head = append(head, make([]byte, diskSector-len(head))...)
	var other string
	switch format {
	case formatQcow2:
		other = foreignQcow2(head)
	case formatVMDK:
		if other, err = foreignVMDK(f, head); err != nil {
			return fmt.Errorf("reading disk image %s: %w", path, err)
		}
	case formatVDI:
		other = foreignVDI(f, head)
	case formatVHD: // its last sector is the same as its first, where that is its own; type 2 is whole, 3 grows, 4 holds differences
		if !bytes.HasPrefix(foot, []byte("conectix")) {
			return cutShort(path)
		}
		if kind := binary.BigEndian.Uint32(foot[60:]); kind != 2 && kind != 3 {
			other = "it holds the differences from another image"
		}
	}
	if other == short {
		return cutShort(path)
	}
	if other != "" {
		return fail.New(fail.Unverified, "disk image %s cannot be used: %s", path, other).
			Hint("make one file of it where it came from: 'qemu-img convert -O qcow2 FILE NEW.qcow2'")
	}
	return nil
}

const short = "it is cut short"

func cutShort(path string) error {
	return fail.New(fail.Unverified, "disk image %s is cut short", path).Hint("fetch it again")
}

// foreignVDI says what else an image needs, by its header as VirtualBox's
// VDICore.h has it. What is beyond the end of a file reads as zeros, and no tool
// notices: so the header's word is compared with the length.
func foreignVDI(f *os.File, head []byte) string {
	le := binary.LittleEndian
	if kind := le.Uint32(head[0x4c:]); kind != 1 && kind != 2 { // 1 grows, 2 is whole
		return "it holds the differences from another image"
	}
	data, block, blocks := int64(le.Uint32(head[0x158:])), int64(le.Uint32(head[0x178:])), int64(le.Uint32(head[0x184:]))
	info, err := f.Stat()
	if err != nil || block > 1<<30 || info.Size() < data+block*blocks {
		return short
	}
	return ""
}

// foreignQcow2 says what else an image needs, by its header as QEMU's
// docs/interop/qcow2.txt has it.
func foreignQcow2(head []byte) string {
	const externalData = 1 << 2
	be := binary.BigEndian
	version := be.Uint32(head[4:])
	switch {
	case version != 2 && version != 3:
		return fmt.Sprintf("qcow2 has no version %d", version)
	case be.Uint64(head[8:]) != 0:
		return "it is based on another image"
	case be.Uint32(head[32:]) != 0:
		return "it is encrypted"
	case version == 3 && be.Uint64(head[72:])&externalData != 0:
		return "its data is in another file"
	}
	return ""
}

// foreignVMDK says what else an image needs, by its header and the description
// in it as the "Virtual Disk Format 5.0" has them.
func foreignVMDK(f *os.File, head []byte) (string, error) {
	// QEMU looks for the description in the second sector whatever the header
	// says, others where that says; both are before the data.
	const before = 64 << 10
	text := make([]byte, before)
	n, err := f.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	switch {
	case !bytes.HasPrefix(head, []byte("KDMV")), binary.LittleEndian.Uint64(head[12:]) == 0:
		return "it only describes a disk whose data is in other files", nil
	case bytes.Contains(text[:n], []byte("parentFileNameHint")):
		return "it holds the differences from another image", nil
	}
	return "", nil
}
