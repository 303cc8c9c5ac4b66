package slice

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
)

// Name is the first member of a slice.
const Name = ".micaslice"

// ErrNoSlice says that the bytes are something else than a slice.
var ErrNoSlice = errors.New("is no slice of a repository")

const maxMembers = profile.MaxObjects + 8

// Slice is an open slice. It is safe for concurrent use.
type Slice struct {
	Profile *profile.Profile // what it holds

	r     io.ReaderAt
	files map[string]extent
}

type extent struct{ offset, size int64 }

// Is reports whether a slice begins with the block: its first 512 bytes.
func Is(first []byte) bool {
	h, err := tar.NewReader(bytes.NewReader(first)).Next()
	return err == nil && h.Name == Name
}

// Open reads the list of what is in the slice of at most size bytes that r
// holds; a disk may be longer than the slice on it. It fails with [ErrNoSlice]
// where there is none, and else with an error that wraps [cvmfs.ErrMalformed]
// or that of r.
func Open(r io.ReaderAt, size int64) (*Slice, error) {
	s := &Slice{r: r, files: map[string]extent{}}
	all := io.NewSectionReader(r, 0, size)
	archive := tar.NewReader(all)
	for {
		h, err := archive.Next()
		if len(s.files) == 0 && (err != nil || h.Name != Name) {
			return nil, ErrNoSlice
		}
		if errors.Is(err, io.EOF) {
			return s, s.readProfile()
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", cvmfs.ErrMalformed, err)
		}
		if err != nil {
			return nil, fmt.Errorf("slice, after %d files: %w", len(s.files), err)
		}
		at, err := all.Seek(0, io.SeekCurrent) // the reader stops at the file's first byte
		if err != nil {
			return nil, err
		}
		bad := func(what string) error {
			return fmt.Errorf("slice, %q: %s: %w", h.Name, what, cvmfs.ErrMalformed)
		}
		switch _, twice := s.files[h.Name]; {
		case h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR:
			return nil, bad("not a regular file in the ustar form")
		case twice:
			return nil, bad("it is there twice")
		case h.Size < 0 || h.Size > size-at:
			return nil, bad("it goes on behind the end")
		case len(s.files) == maxMembers:
			return nil, bad("too many files")
		}
		s.files[h.Name] = extent{at, h.Size}
	}
}

func (s *Slice) readProfile() error {
	f, _ := s.Open(Name)
	if f.Size() > profile.MaxSize {
		return fmt.Errorf("slice: a profile of %d bytes: %w", f.Size(), cvmfs.ErrMalformed)
	}
	text := make([]byte, f.Size())
	if _, err := io.ReadFull(f, text); err != nil {
		return fmt.Errorf("reading slice: %w", err)
	}
	var err error
	if s.Profile, err = profile.Parse(text); err != nil {
		return fmt.Errorf("slice: %w", err)
	}
	for _, o := range s.Profile.Objects {
		if _, ok := s.files[o.Path()]; !ok {
			return fmt.Errorf("slice: it is cut short, %s is not there: %w", o.Path(), cvmfs.ErrMalformed)
		}
	}
	return nil
}

// Open returns a file of the slice, by its path below the root of the
// repository.
func (s *Slice) Open(path string) (*io.SectionReader, bool) {
	e, ok := s.files[path]
	return io.NewSectionReader(s.r, e.offset, e.size), ok
}

// Len returns the number of files in the slice.
func (s *Slice) Len() int { return len(s.files) }
