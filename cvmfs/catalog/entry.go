package catalog

import (
	"crypto/md5" //nolint:gosec // names paths, protects nothing
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/micavm/mica/cvmfs"
)

// Flags are the bits of a row besides its mode.
type Flags uint32

// The bits. Symlinks and special files carry FlagRegular too; go by the mode.
const (
	FlagDir              Flags = 1 << 0
	FlagNestedMountpoint Flags = 1 << 1 // in the upper catalogue
	FlagRegular          Flags = 1 << 2
	FlagSymlink          Flags = 1 << 3
	FlagSpecial          Flags = 1 << 4
	FlagNestedRoot       Flags = 1 << 5 // in the lower catalogue
	FlagChunked          Flags = 1 << 6
	FlagExternal         Flags = 1 << 7
	FlagBindMountpoint   Flags = 1 << 14
	FlagHidden           Flags = 1 << 15
	FlagDirectIO         Flags = 1 << 16

	hashShift        = 8 // three bits: algorithm - 1
	compressionShift = 11
)

// File types as in st_mode.
const (
	ModeType    uint32 = 0o170000
	ModeDir     uint32 = 0o040000
	ModeRegular uint32 = 0o100000
	ModeSymlink uint32 = 0o120000
	ModeFIFO    uint32 = 0o010000
	ModeChar    uint32 = 0o020000
	ModeBlock   uint32 = 0o060000
	ModeSocket  uint32 = 0o140000
)

// Entry is one row: everything stat(2) and readlink(2) need.
type Entry struct {
	Name          string // "" for the root of the repository
	Mode          uint32 // st_mode with its type
	Size          int64  // bytes of the plain content; of a symlink the raw target's; 0 for special files
	Rdev          uint64 // of character and block devices
	MTime         int64  // Unix seconds, may be negative
	MTimeNS       int32  // nanoseconds, -1 if not recorded
	UID, GID      uint32
	Nlink         uint32
	HardlinkGroup uint32     // of this catalogue; 0 is none
	Hash          cvmfs.Hash // zero for all but regular files, and for chunked ones without a whole object
	Compression   cvmfs.Compression
	Flags         Flags
	Symlink       string // raw target, variables not expanded
	HasXattrs     bool
	RowID         int64 // unique and stable within this catalogue
}

// IsDir reports whether e is a directory, transition points included.
func (e Entry) IsDir() bool { return e.Mode&ModeType == ModeDir }

// IsRegular reports whether e is a regular file.
func (e Entry) IsRegular() bool { return e.Mode&ModeType == ModeRegular }

// IsSymlink reports whether e is a symbolic link.
func (e Entry) IsSymlink() bool { return e.Mode&ModeType == ModeSymlink }

// IsSpecial reports whether e is a pipe, socket or device.
func (e Entry) IsSpecial() bool { return !e.IsDir() && !e.IsRegular() && !e.IsSymlink() }

// IsNestedMountpoint reports whether e's children are in a nested catalogue.
func (e Entry) IsNestedMountpoint() bool { return e.Flags&FlagNestedMountpoint != 0 }

// IsNestedRoot reports whether e is the root of a nested catalogue.
func (e Entry) IsNestedRoot() bool { return e.Flags&FlagNestedRoot != 0 }

// IsChunked reports whether the content is stored in pieces (see Chunks).
func (e Entry) IsChunked() bool { return e.Flags&FlagChunked != 0 }

// IsExternal reports whether the content lies outside data/.
func (e Entry) IsExternal() bool { return e.Flags&FlagExternal != 0 }

// IsBindMountpoint reports whether another snapshot's root is planted here.
func (e Entry) IsBindMountpoint() bool { return e.Flags&FlagBindMountpoint != 0 }

// IsHidden reports whether directory listings leave e out.
func (e Entry) IsHidden() bool { return e.Flags&FlagHidden != 0 }

// DirectIO reports whether the kernel must not cache the content.
func (e Entry) DirectIO() bool { return e.Flags&FlagDirectIO != 0 }

// Algorithm is that of Hash and of all chunks.
func (e Entry) Algorithm() cvmfs.Algorithm { return hashAlgorithm(e.Flags) }

func hashAlgorithm(f Flags) cvmfs.Algorithm { return cvmfs.Algorithm(f>>hashShift&7) + 1 }

func compression(f Flags) cvmfs.Compression { return cvmfs.Compression(f >> compressionShift & 7) }

// Chunk is one piece of a chunked file.
type Chunk struct {
	Offset, Size int64 // of the plain content
	Hash         cvmfs.Hash
}

// Nested is a catalogue that hangs below this one.
type Nested struct {
	Path string
	Hash cvmfs.Hash
	Size int64 // of the file in bytes, inflated; 0 if not recorded
	Bind bool  // the root of another snapshot, whose paths start at itself
}

// pathHash is the primary key of a path.
type pathHash struct{ a, b int64 }

func hashPath(path string) pathHash {
	sum := md5.Sum([]byte(path)) //nolint:gosec // as above
	return pathHash{
		int64(binary.LittleEndian.Uint64(sum[:8])), //nolint:gosec // the bits, read as signed
		int64(binary.LittleEndian.Uint64(sum[8:])), //nolint:gosec // as above
	}
}

// checkPath keeps out what is no repository path, whoever asks.
func checkPath(path string) error {
	if path == "" {
		return nil
	}
	if path[0] != '/' {
		return fmt.Errorf("path %q does not start with a slash: %w", path, cvmfs.ErrMalformed)
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if err := checkName(name); err != nil {
			return fmt.Errorf("path %q: %w", path, err)
		}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("file name %.300q: %w", name, cvmfs.ErrMalformed)
	}
	return nil
}
