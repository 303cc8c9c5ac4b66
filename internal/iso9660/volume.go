package iso9660

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// SectorSize is the size of a logical block, the unit of every extent.
const SectorSize = 2048

// File is one object of a volume: a regular file, a directory or a symbolic
// link, told apart by the type bits of Mode.
type File struct {
	Path string      // slash separated, relative to the root, as fs.ValidPath wants it
	Mode fs.FileMode // permissions and type; fs.ModeDir and fs.ModeSymlink are understood
	Size int64       // of a regular file, in bytes; what Open gives must have just this length
	Link string      // target of a symbolic link

	// Open gives the content of a regular file. It may be called more than
	// once and may be nil where Size is zero.
	Open func() (io.ReadCloser, error)
}

// Bytes makes a regular file of data held in memory.
func Bytes(path string, mode fs.FileMode, data []byte) File {
	return File{Path: path, Mode: mode.Perm(), Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// Dir makes a directory. Directories that only hold other files need not be
// listed: they are made with mode 0755.
func Dir(path string, mode fs.FileMode) File {
	return File{Path: path, Mode: fs.ModeDir | mode.Perm()}
}

// Symlink makes a symbolic link. Readers see it through Rock Ridge only.
func Symlink(path, target string) File {
	return File{Path: path, Mode: fs.ModeSymlink | 0o777, Link: target}
}

// Platform is the kind of firmware an El Torito entry is for.
type Platform byte

// The platforms.
const (
	BIOS Platform = 0x00
	EFI  Platform = 0xef
)

// BootImage is one El Torito entry, without emulation of a disk.
type BootImage struct {
	Path     string // of a file in the volume
	Platform Platform

	// Hidden is the image itself, in place of Path: no directory lists it. Its
	// own path only serves messages.
	Hidden *File

	// Holds are files of the volume that lie inside the image, by path, with
	// their offsets, whole sectors. Their records point there and their content
	// is written once, with the image; that it is the same is the caller's word.
	Holds map[string]int64

	// InfoTable patches bytes 8 to 63 of the image with its own place and
	// checksum, as isolinux.bin and GRUB's eltorito.img need it.
	InfoTable bool

	// Sectors is how many units of 512 bytes the firmware loads. Zero is 4
	// for BIOS and the whole image for EFI.
	//
	// An EFI image, the first that there is, is the partition of its kind in
	// the boot sector too, from which firmware starts it on a disk.
	Sectors uint16
}

// Volume is everything that goes into an image.
type Volume struct {
	// Label is the volume identifier, up to 32 bytes of printable ASCII, written
	// as it is: "cidata" in lower case is outside the standard's alphabet and what
	// readers look for. Joliet keeps the first 16 characters.
	Label     string
	System    string // system identifier, usually empty
	Publisher string // publisher and preparer identifier, usually empty
	Files     []File
	Time      time.Time // of the volume and of every file; zero is 1980-01-01 UTC

	RockRidge bool // POSIX names, modes and symbolic links
	Joliet    bool // a second tree with Unicode names

	Boot    []BootImage // El Torito entries; the first is the default
	Catalog string      // path of the boot catalogue; empty is boot.cat beside the first boot image with a path

	// HybridMBR is the boot sector code that makes the image start from a disk
	// too: isohdpfx.bin of Syslinux, up to 432 bytes. It starts the first boot
	// image.
	HybridMBR []byte

	Pad int // sectors of zeros at the end, for drives that read ahead
}

// Write writes the image of v to w. It fails, with w in an unknown state, when
// a name or a size cannot be represented or a file's content has another
// length than announced.
func Write(ctx context.Context, w io.Writer, v Volume) error {
	p, err := newPlan(v)
	if err != nil {
		return fmt.Errorf("laying out volume %q: %w", v.Label, err)
	}
	if err := p.write(ctx, w); err != nil {
		return fmt.Errorf("writing volume %q: %w", v.Label, err)
	}
	return nil
}

// Size returns the length in bytes of the image Write makes of v. It opens only
// boot images that want an information table.
func Size(v Volume) (int64, error) {
	p, err := newPlan(v)
	if err != nil {
		return 0, fmt.Errorf("laying out volume %q: %w", v.Label, err)
	}
	return int64(p.sectors) * SectorSize, nil
}
