package slice

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
)

// Name is the first member of a slice.
const Name = ".micaslice"

// ErrNoSlice says that the bytes are something else than a slice.
var ErrNoSlice = errors.New("is no slice of a repository")

const (
	block      = 512
	maxMembers = profile.MaxObjects + 8
)

// Slice is an open slice. It is safe for concurrent use.
type Slice struct {
	Profile *profile.Profile // what it holds

	r     io.ReaderAt
	files map[string]extent
}

type extent struct{ offset, size int64 }

// Is reports whether a slice begins with the block: its first 512 bytes.
func Is(first []byte) bool {
	h, err := readHeader(first)
	return err == nil && h.name == Name
}

// Open reads the list of what is in the slice of at most size bytes that r
// holds; a disk may be longer than the slice on it. It fails with [ErrNoSlice]
// where there is none, and else with an error that wraps [cvmfs.ErrMalformed].
func Open(r io.ReaderAt, size int64) (*Slice, error) {
	s := &Slice{r: r, files: map[string]extent{}}
	buf := make([]byte, block)
	for at := int64(0); ; {
		if len(s.files) == 0 && size < block {
			return nil, ErrNoSlice
		}
		if at+block > size {
			return nil, fmt.Errorf("slice: it ends at byte %d without an end: %w", size, cvmfs.ErrMalformed)
		}
		if _, err := r.ReadAt(buf, at); err != nil {
			return nil, fmt.Errorf("reading slice at byte %d: %w", at, err)
		}
		if at > 0 && len(bytes.Trim(buf, "\x00")) == 0 { // two such blocks end an archive; one will do
			return s, s.readProfile()
		}
		h, err := readHeader(buf)
		if at == 0 && (err != nil || h.name != Name) {
			return nil, ErrNoSlice
		}
		if err != nil {
			return nil, fmt.Errorf("slice, byte %d: %w", at, err)
		}
		at += block
		switch _, twice := s.files[h.name]; {
		case twice:
			return nil, fmt.Errorf("slice, byte %d: %q is there twice: %w", at-block, h.name, cvmfs.ErrMalformed)
		case h.size > size-at:
			return nil, fmt.Errorf("slice, byte %d: %q goes on behind the end: %w", at-block, h.name, cvmfs.ErrMalformed)
		case len(s.files) == maxMembers:
			return nil, fmt.Errorf("slice of more than %d files: %w", maxMembers, cvmfs.ErrMalformed)
		}
		s.files[h.name] = extent{at, h.size}
		at += (h.size + block - 1) / block * block
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

type header struct {
	name string
	size int64
}

// readHeader reads a block of 512 bytes of the ustar form.
func readHeader(b []byte) (header, error) {
	bad := func(what string) (header, error) {
		return header{}, fmt.Errorf("%s: %w", what, cvmfs.ErrMalformed)
	}
	if len(b) < block {
		return bad("a header cut short")
	}
	if string(b[257:262]) != "ustar" || b[345] != 0 {
		return bad("no ustar header, or one with a long name")
	}
	if b[156] != '0' {
		return bad("something else than a regular file")
	}
	const sum, sumEnd = 148, 156
	total := int64(0)
	for i, c := range b[:block] {
		if i >= sum && i < sumEnd {
			c = ' '
		}
		total += int64(c)
	}
	if want, ok := octal(b[sum:sumEnd]); !ok || want != total {
		return bad("a wrong checksum")
	}
	size, ok := octal(b[124:136])
	name, _, ended := bytes.Cut(b[:100], []byte{0})
	if !ok || !ended || len(name) == 0 {
		return bad("a header without size or name")
	}
	return header{string(name), size}, nil
}

func octal(field []byte) (int64, bool) {
	n, err := strconv.ParseUint(string(bytes.Trim(field, " \x00")), 8, 62)
	return int64(n), err == nil //nolint:gosec // 62 bits
}
