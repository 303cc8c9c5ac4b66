package cpio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// Entry is one object of an archive, told apart by the type bits of Mode:
// regular files, directories, symbolic links and character devices.
type Entry struct {
	Path  string // relative and clean, as fs.ValidPath wants it
	Mode  fs.FileMode
	Data  []byte // of a regular file
	Link  string // of a symbolic link
	Major uint32 // of a device
	Minor uint32
}

// Write writes an archive of the entries, every one stamped with t.
func Write(w io.Writer, entries []Entry, t time.Time) error {
	all, err := complete(entries)
	if err != nil {
		return fmt.Errorf("laying out archive: %w", err)
	}
	if t.Unix() < 0 || t.Unix() > math.MaxUint32 {
		return fmt.Errorf("laying out archive: time %v cannot be stored", t)
	}
	out := &writer{w: w}
	for i, e := range all {
		out.entry(uint32(i+1), e, uint32(t.Unix()))
	}
	out.entry(0, Entry{Path: trailer}, 0)
	if out.err != nil {
		return fmt.Errorf("writing archive: %w", out.err)
	}
	return nil
}

const trailer = "TRAILER!!!"

// complete checks, adds the missing parents and sorts.
func complete(entries []Entry) ([]Entry, error) {
	seen := map[string]fs.FileMode{}
	for _, e := range entries {
		_, twice := seen[e.Path]
		switch {
		case !fs.ValidPath(e.Path) || e.Path == "." || e.Path == trailer || strings.ContainsRune(e.Path+e.Link, 0):
			return nil, fmt.Errorf("entry %q: unusable path", e.Path)
		case twice:
			return nil, fmt.Errorf("entry %q: %w", e.Path, fs.ErrExist)
		case int64(len(e.Data)) > math.MaxUint32:
			return nil, fmt.Errorf("entry %q: %d bytes are too many", e.Path, len(e.Data))
		}
		if _, err := posix(e); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Path, err)
		}
		seen[e.Path] = e.Mode
	}
	all := slices.Clone(entries)
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			mode, ok := seen[dir]
			if ok && !mode.IsDir() {
				return nil, fmt.Errorf("entry %q: %q is not a directory", e.Path, dir)
			}
			if !ok {
				seen[dir] = fs.ModeDir | 0o755
				all = append(all, Entry{Path: dir, Mode: fs.ModeDir | 0o755})
			}
		}
	}
	// Slash sorts before all else, so that a directory is followed by what is in it.
	slices.SortFunc(all, func(a, b Entry) int {
		return strings.Compare(strings.ReplaceAll(a.Path, "/", "\x00"), strings.ReplaceAll(b.Path, "/", "\x00"))
	})
	return all, nil
}

var errType = errors.New("type cannot be stored")

func posix(e Entry) (uint32, error) {
	mode := uint32(e.Mode.Perm())
	switch e.Mode.Type() {
	case 0:
		mode |= 0o100000
	case fs.ModeDir:
		mode |= 0o040000
	case fs.ModeSymlink:
		mode |= 0o120000
		if e.Link == "" {
			return 0, errors.New("symbolic link without a target")
		}
	case fs.ModeDevice | fs.ModeCharDevice:
		mode |= 0o020000
	default:
		return 0, errType
	}
	if e.Mode&fs.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if e.Mode&fs.ModeSetgid != 0 {
		mode |= 0o2000
	}
	if e.Mode&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode, nil
}

type writer struct {
	w   io.Writer
	n   int64
	err error
}

// entry writes a header, the name and the content, each ending on four bytes.
func (o *writer) entry(ino uint32, e Entry, mtime uint32) {
	var mode uint32
	links := 1
	data := e.Data
	if e.Path != trailer {
		mode, _ = posix(e) // checked before
	}
	switch {
	case e.Mode.IsDir():
		links = 2
	case e.Mode&fs.ModeSymlink != 0:
		data = []byte(e.Link)
	}
	o.put(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		ino, mode, 0, 0, links, mtime, len(data), 0, 0, e.Major, e.Minor, len(e.Path)+1, 0, e.Path))
	o.align()
	o.put(data)
	o.align()
}

func (o *writer) put(b []byte) {
	if o.err == nil {
		_, o.err = o.w.Write(b)
		o.n += int64(len(b))
	}
}

func (o *writer) align() {
	if rest := o.n % 4; rest != 0 {
		o.put(make([]byte, 4-rest))
	}
}
