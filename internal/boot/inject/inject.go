package inject

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Limits on an archive. The original had none but the size of user data, 16 KiB
// to a few hundred; an archive of that size may still unpack to gigabytes.
const (
	MaxFiles = 20_000
	MaxBytes = 512 << 20
)

// ErrUnsafe says that a member would reach outside the tree, or is of a kind
// that an archive in a context may not bring.
var ErrUnsafe = errors.New("unsafe member")

// Unpack unpacks a tar.gz below the folder root and returns the number of
// members. On an error the members before the bad one are in place.
func Unpack(root string, archive []byte) (int, error) {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return 0, fmt.Errorf("reading the injected archive: %w", err)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return 0, fmt.Errorf("unpacking the injected archive: %w", err)
	}
	defer r.Close() //nolint:errcheck // read only
	u := unpacker{root: r, left: MaxBytes}
	tr := tar.NewReader(z)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return n, u.directories()
		}
		if err != nil {
			return n, fmt.Errorf("reading the injected archive: %w", err)
		}
		if n >= MaxFiles {
			return n, fmt.Errorf("injected archive has more than %d members", MaxFiles)
		}
		if err := u.member(h, tr); err != nil {
			return n, fmt.Errorf("unpacking %q of the injected archive: %w", h.Name, err)
		}
	}
}

type unpacker struct {
	root *os.Root
	left int64
	dirs []*tar.Header // their times and modes are set last
}

func (u *unpacker) member(h *tar.Header, body io.Reader) error {
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return nil // the mode of / is the system's own business
	}
	if parent := path.Dir(name); parent != "." {
		if err := u.root.MkdirAll(parent, 0o755); err != nil {
			return escape(err)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err := u.root.Mkdir(name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			if fi, serr := u.root.Stat(name); serr == nil && fi.IsDir() {
				err = nil // as tar does: a link to a directory stays
			}
		}
		if err != nil {
			return escape(err)
		}
		u.dirs = append(u.dirs, h)
		return nil
	case tar.TypeReg:
		return u.file(name, h, body)
	case tar.TypeSymlink:
		// The text of a link may say anything: following it is what os.Root guards
		// here, and what the operating system does later is what the user asked for.
		if err := u.clear(name); err != nil {
			return err
		}
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return escape(err)
		}
		return escape(u.root.Lchown(name, h.Uid, h.Gid))
	case tar.TypeLink:
		target, err := clean(h.Linkname)
		if err != nil {
			return err
		}
		if err := u.clear(name); err != nil {
			return err
		}
		return escape(u.root.Link(target, name))
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("%w: type %q", ErrUnsafe, h.Typeflag)
}

func (u *unpacker) file(name string, h *tar.Header, body io.Reader) error {
	if h.Size > u.left {
		return fmt.Errorf("archive unpacks to more than %d bytes", int64(MaxBytes))
	}
	// A new file, not the old one's content: the old one may be a link, or be
	// running.
	if err := u.clear(name); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return escape(err)
	}
	n, err := io.Copy(f, body)
	u.left -= n
	if cerr := f.Chown(h.Uid, h.Gid); err == nil {
		err = cerr
	}
	if cerr := f.Chmod(mode(h)); err == nil { // after chown, which drops setuid
		err = cerr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return u.root.Chtimes(name, time.Time{}, h.ModTime)
}

// clear makes way for a member that is not a directory.
func (u *unpacker) clear(name string) error {
	fi, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return escape(err)
	case fi.IsDir():
		return fmt.Errorf("%w: a directory is in its place", ErrUnsafe)
	}
	return escape(u.root.Remove(name))
}

// directories sets what Unpack left for the end, innermost first: a read-only
// directory must take its files before it gets its mode.
func (u *unpacker) directories() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		h := u.dirs[i]
		name, err := clean(h.Name)
		if err != nil {
			return err
		}
		if err := u.root.Chown(name, h.Uid, h.Gid); err != nil {
			return escape(err)
		}
		if err := u.root.Chmod(name, mode(h)); err != nil {
			return escape(err)
		}
	}
	return nil
}

func mode(h *tar.Header) fs.FileMode {
	return h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
}

// clean turns a member's name into one that os.Root takes. Leading "./" is
// normal in archives of "tar -C dir -c ."; a leading "/" or a ".." is refused.
func clean(name string) (string, error) {
	if strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: absolute name", ErrUnsafe)
	}
	name = path.Clean(name)
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%w: leaves the tree", ErrUnsafe)
	}
	return name, nil
}

// escape marks the error with which os.Root refuses to leave the tree.
func escape(err error) error {
	if err != nil && strings.Contains(err.Error(), "escapes from parent") {
		return fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	return err
}
