package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine/sparse"
)

const sector = 2048

// FindImage returns the boot image to use: the one named, else MICA_IMAGE,
// else the newest in the home's images folder.
func FindImage(h Home, named string, getenv func(string) string) (string, error) {
	if named == "" {
		named = getenv("MICA_IMAGE")
	}
	if named != "" {
		return filepath.Abs(named)
	}
	found, err := listed(h.Images(), func(name string) bool { return filepath.Ext(name) == ".iso" })
	if err != nil {
		return "", fmt.Errorf("looking for a boot image: %w", err)
	}
	if len(found) == 0 {
		return "", fail.New(fail.NotFound, "there is no boot image in %s", h.Images()).
			Hint("build one with 'mica image build', or name one with --image or MICA_IMAGE")
	}
	age := map[string]int64{}
	for _, path := range found {
		if info, err := os.Stat(path); err == nil {
			age[path] = info.ModTime().UnixNano()
		}
	}
	sort.Slice(found, func(i, j int) bool {
		if age[found[i]] != age[found[j]] {
			return age[found[i]] > age[found[j]]
		}
		return found[i] > found[j]
	})
	return found[0], nil
}

// listed returns the paths of what is in a folder by names that match. The
// folder's own name may hold anything, and need not exist.
func listed(dir string, match func(name string) bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if match(e.Name()) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// checkBootImage looks at the few bytes that tell a whole, bootable ISO 9660
// image from a web page, an empty file or half a download. The bytes are those
// of ECMA-119 section 8.4 and El Torito 1.0 section 2.
func checkBootImage(path string) error {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fail.New(fail.NotFound, "no boot image at %s", path).Hint("build one with 'mica image build', or name another with --image")
		}
		return fmt.Errorf("opening boot image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("opening boot image: %w", err)
	}
	bad := func(what string, args ...any) error {
		return fail.New(fail.Unverified, "boot image %s: %s", path, fmt.Sprintf(what, args...)).Hint("fetch or build it again")
	}
	if !info.Mode().IsRegular() {
		return bad("not a file")
	}
	head := make([]byte, 2*sector)
	if _, err := f.ReadAt(head, 16*sector); err != nil {
		return bad("%d bytes are no image", info.Size())
	}
	if !bytes.Equal(head[:7], []byte("\x01CD001\x01")) {
		return bad("not an ISO 9660 image")
	}
	if want := int64(binary.LittleEndian.Uint32(head[80:])) * sector; info.Size() < want {
		return bad("cut short: %d of %d bytes", info.Size(), want)
	}
	if !bytes.Equal(head[sector:sector+7], []byte("\x00CD001\x01")) || !bytes.HasPrefix(head[sector+7:], []byte("EL TORITO SPECIFICATION")) {
		return bad("an ISO 9660 image, but not one to boot from")
	}
	return nil
}

// adoptImage gives the machine its image, of whatever format: a hard link to a copy kept by
// content, so that a thousand machines hold one copy and rebuilding the
// original changes none of them. It is read at path; where it came from stays.
func (f *Fleet) adoptImage(ctx context.Context, s Spec, path string) (Image, error) {
	src, err := os.Open(path)
	if err != nil {
		return Image{}, fmt.Errorf("opening boot image: %w", err)
	}
	defer src.Close()
	h := sha256.New()
	size, err := io.Copy(h, reader{ctx, src})
	if err != nil {
		return Image{}, fmt.Errorf("reading boot image %s: %w", path, err)
	}
	image := s.Image
	image.SHA256, image.Size = hex.EncodeToString(h.Sum(nil)), size
	if want := s.Image.SHA256; want != "" && want != image.SHA256 {
		return Image{}, fail.New(fail.Unverified, "boot image %s: its SHA-256 digest is %s, not %s", path, image.SHA256, want).
			Hint("fetch it again; if that is of no avail, it is not the image that the checksum is of")
	}
	kept := filepath.Join(f.Home.bootCache(), image.SHA256+filepath.Ext(s.ImagePath()))
	for range 2 { // once more if gc takes the copy from under us
		if err := keep(ctx, src, kept, image); err != nil {
			return Image{}, err
		}
		if err = os.Link(kept, s.ImagePath()); err == nil {
			return image, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	// A file system without hard links.
	return image, keep(ctx, src, s.ImagePath(), image)
}

// keep copies src to path unless a file of that size is there.
func keep(ctx context.Context, src *os.File, path string, image Image) error {
	if info, err := os.Stat(path); err == nil && info.Size() == image.Size {
		return nil
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	dst, err := atomicfile.Create(path, 0o400)
	if err != nil {
		return err
	}
	defer dst.Close() //nolint:errcheck // Commit reports
	h := sha256.New()
	to := &sparse.Writer{File: dst.File}
	_, err = io.Copy(io.MultiWriter(to, h), reader{ctx, src})
	if err == nil {
		err = to.Flush()
	}
	if err != nil {
		return fmt.Errorf("copying boot image: %w", err)
	}
	if hex.EncodeToString(h.Sum(nil)) != image.SHA256 {
		return fail.New(fail.Unverified, "boot image %s changed while it was read", image.Path).Hint("try again when it is complete")
	}
	return dst.Commit()
}

// reader stops reading when ctx is cancelled.
type reader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// noSpace gives a full disk its hint, unless the driver knows which disk it is.
func noSpace(err error) error {
	if len(fail.Hints(err)) > 0 {
		return err
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || err != nil && strings.Contains(err.Error(), "No space left on device") {
		return fail.New(fail.Failed, "%w", err).Hint("free some space, or set MICA_HOME to a folder on a larger disk")
	}
	return err
}
