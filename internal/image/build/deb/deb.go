package deb

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ErrFormat says that the bytes are no Debian package, or a damaged one.
var ErrFormat = errors.New("not a well-formed Debian package")

// Bounds of a package. The kernel's, the largest one read here, has 400 MB.
const (
	maxContent = 4 << 30
	maxControl = 1 << 20
	maxWindow  = 128 << 20
)

// Entry is one file of a package.
type Entry struct {
	Path string // relative to the root, clean
	Mode fs.FileMode
	Size int64
	Link string // target of a symbolic link; of a hard link, the path of the other name
	Hard bool   // Link is a hard link
}

// Stop ends a walk early, without an error, when a visitor returns it.
var Stop = errors.New("enough") //nolint:errname,staticcheck // a signal, as fs.SkipAll is

// Control returns the fields of the package's control file.
func Control(r io.Reader) (map[string]string, error) {
	var text []byte
	err := member(r, "control.tar", func(t *tar.Reader) error {
		return each(context.Background(), t, func(e Entry, r io.Reader) error {
			if e.Path != "control" {
				return nil
			}
			var err error
			if text, err = io.ReadAll(io.LimitReader(r, maxControl)); err != nil {
				return err
			}
			return Stop
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading control file: %w", err)
	}
	if text == nil {
		return nil, fmt.Errorf("reading control file: %w: there is none", ErrFormat)
	}
	fields := map[string]string{}
	last := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, " ") && last != "" {
			fields[last] += "\n" + strings.TrimSpace(line)
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if ok {
			last = key
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields, nil
}

// Walk calls visit for every file of the package, in the package's order. The
// reader is valid during the call only. Walk ends early, without an error,
// when visit returns Stop.
func Walk(ctx context.Context, r io.Reader, visit func(Entry, io.Reader) error) error {
	err := member(r, "data.tar", func(t *tar.Reader) error { return each(ctx, t, visit) })
	if err != nil {
		return fmt.Errorf("reading package: %w", err)
	}
	return nil
}

// member finds an archive in the package and opens it.
func member(r io.Reader, name string, use func(*tar.Reader) error) error {
	in := bufio.NewReaderSize(r, 1<<16)
	magic := make([]byte, 8)
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != "!<arch>\n" {
		return fmt.Errorf("%w: no ar archive", ErrFormat)
	}
	for {
		header := make([]byte, 60)
		if _, err := io.ReadFull(in, header); err != nil {
			return fmt.Errorf("%w: no member %s", ErrFormat, name)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(header[48:58])), 10, 64)
		if err != nil || size < 0 || string(header[58:]) != "`\n" {
			return fmt.Errorf("%w: damaged ar header", ErrFormat)
		}
		found := strings.TrimRight(string(header[:16]), " /")
		body := io.LimitReader(in, size)
		if suffix, ok := strings.CutPrefix(found, name); ok {
			plain, closePlain, err := decompress(body, suffix)
			if err != nil {
				return err
			}
			defer closePlain()
			return use(tar.NewReader(&bounded{plain, maxContent}))
		}
		if n, err := io.Copy(io.Discard, body); err != nil || n < size {
			return fmt.Errorf("%w: cut short", ErrFormat)
		}
		if size%2 != 0 {
			_, _ = in.Discard(1) // the next header tells if it was not there
		}
	}
}

func decompress(r io.Reader, suffix string) (plain io.Reader, done func(), err error) {
	done = func() {}
	switch suffix {
	case "":
		return r, done, nil
	case ".gz":
		plain, err = gzip.NewReader(r)
	case ".xz":
		plain, err = xz.NewReader(bufio.NewReaderSize(r, 1<<16))
	case ".zst":
		var z *zstd.Decoder
		z, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			plain, done = z, z.Close
		}
	default:
		return nil, nil, fmt.Errorf("%w: unknown compression %q", ErrFormat, suffix)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return plain, done, nil
}

// bounded fails when more than left bytes are read.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes of content", ErrFormat, int64(maxContent))
	}
	return n, err
}

func each(ctx context.Context, t *tar.Reader, visit func(Entry, io.Reader) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		p, err := clean(h.Name)
		if err != nil {
			return err
		}
		e := Entry{Path: p, Mode: h.FileInfo().Mode(), Size: h.Size, Link: h.Linkname}
		if h.Typeflag == tar.TypeLink {
			e.Hard, e.Mode = true, e.Mode.Perm()
			if e.Link, err = clean(h.Linkname); err != nil {
				return err
			}
		}
		switch err := visit(e, t); {
		case errors.Is(err, Stop):
			return nil
		case err != nil:
			return err
		}
	}
}

func clean(name string) (string, error) {
	p := path.Clean(strings.TrimPrefix(name, "/"))
	if !fs.ValidPath(p) || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("%w: path %q leaves the tree", ErrFormat, name)
	}
	return p, nil
}
