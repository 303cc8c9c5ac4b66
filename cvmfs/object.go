package cvmfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
)

// ErrCorrupt is wrapped by errors about object bytes that do not match their
// hash, do not inflate, or inflate to more than they may.
var ErrCorrupt = errors.New("corrupt object")

// Compression is how an object's bytes are stored.
type Compression uint8

// The ways, with the numbers of the format. Catalogues, histories, certificates
// and metainfo documents are always Zlib.
const (
	Zlib  Compression = 0 // one RFC 1950 stream
	Plain Compression = 1
)

// Valid reports whether c is one of the ways.
func (c Compression) Valid() bool { return c <= Plain }

// String returns "zlib" or "none", the words of the original's configuration.
func (c Compression) String() string {
	switch c {
	case Zlib:
		return "zlib"
	case Plain:
		return "none"
	}
	return fmt.Sprintf("compression %d", uint8(c))
}

// maxObject is more than any file system holds, and little enough to calculate
// with: bounds come from catalogues, which may say anything.
const maxObject = 1 << 60

// decoder is what reading an object takes: 100 kB, which a machine that opens
// thousands of objects should not ask for and clear each time.
type decoder struct {
	in   *bufio.Reader
	z    io.ReadCloser // nil before the first use
	copy []byte
}

var decoders = sync.Pool{New: func() any {
	return &decoder{in: bufio.NewReaderSize(nil, 32<<10), copy: make([]byte, 32<<10)}
}}

// CopyVerified reads one stored object from src to its end, writes its plain
// bytes to dst and returns their number. It hashes the stored form, inflates it
// if c is Zlib, and never writes more than maxPlain bytes.
//
// The object is good only if the error is nil: dst has by then seen bytes of
// unknown origin, so write to a temporary place. Bytes that do not match want,
// are no zlib stream, go on after it, or would exceed maxPlain give an error
// that wraps ErrCorrupt. Errors of src and dst are returned wrapped as they are.
func CopyVerified(dst io.Writer, src io.Reader, want Hash, c Compression, maxPlain int64) (n int64, err error) {
	if want.Algorithm == MD5 || !want.Algorithm.Valid() {
		return 0, fmt.Errorf("object %s: %s names no content: %w", want, want.Algorithm, ErrMalformed)
	}
	maxPlain = min(max(maxPlain, 0), maxObject)
	// A stored form longer than this is no honest encoding of maxPlain bytes,
	// and would otherwise keep a reader busy for ever with empty blocks.
	stored := &meter{r: src, left: maxPlain}
	if c == Zlib {
		stored.left = 2*maxPlain + 64<<10
	}
	sum := want.Algorithm.New()
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	d.in.Reset(io.TeeReader(stored, sum))
	defer d.in.Reset(nil)
	out := &bounded{w: dst, left: maxPlain}

	switch c {
	case Zlib:
		err = d.inflate(out)
	case Plain:
		_, err = io.Copy(out, d.in)
	default:
		return 0, fmt.Errorf("object %s: unknown compression %d: %w", want, c, ErrMalformed)
	}
	switch {
	case out.err != nil:
		return out.n, fmt.Errorf("storing object %s: %w", want, out.err)
	case stored.err != nil:
		return out.n, fmt.Errorf("reading object %s: %w", want, stored.err)
	case err != nil:
		return out.n, fmt.Errorf("object %s: %w: %w", want, ErrCorrupt, err)
	}
	if got := NewHash(want.Algorithm, sum); got != want {
		return out.n, fmt.Errorf("object %s: %w: its bytes have hash %s", want, ErrCorrupt, got)
	}
	return out.n, nil
}

var (
	errTooLong  = errors.New("longer than announced")
	errTrailing = errors.New("bytes after the end of the zlib stream")
)

// inflate copies a zlib stream to out and makes sure that nothing follows.
func (d *decoder) inflate(out io.Writer) (err error) {
	if d.z == nil {
		d.z, err = zlib.NewReader(d.in)
	} else {
		err = d.z.(zlib.Resetter).Reset(d.in, nil)
	}
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(out, d.z, d.copy); err != nil {
		return err
	}
	switch _, err := d.in.ReadByte(); {
	case err == nil:
		return errTrailing
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// meter passes on at most left bytes of r and remembers r's own failures, which
// must not be mistaken for bad content.
type meter struct {
	r    io.Reader
	left int64
	err  error
}

func (m *meter) Read(p []byte) (int, error) {
	if int64(len(p)) > m.left+1 {
		p = p[:m.left+1]
	}
	n, err := m.r.Read(p)
	if m.left -= int64(n); m.left < 0 {
		return 0, errTooLong
	}
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}

// bounded writes at most left bytes to w and remembers w's own failures.
type bounded struct {
	w    io.Writer
	n    int64
	left int64
	err  error
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, errTooLong
	}
	n, err := b.w.Write(p)
	b.n += int64(n)
	b.left -= int64(n)
	if err != nil {
		b.err = err
	}
	return n, err
}
