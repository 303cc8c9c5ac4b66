package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/download"
	"github.com/micavm/mica/internal/fail"
)

// Wish is a boot image as its user names it.
type Wish struct {
	Image    string // a file or a URL; empty is MICA_IMAGE, or the newest of the home's
	Format   string // one of ImageFormats; empty finds out
	Checksum string // sha256:HEX; empty is none
}

// maxImage bounds what is downloaded.
const maxImage = 1 << 40

// IsURL reports whether the name of an image is an address to fetch it from.
func IsURL(name string) bool {
	scheme, _, found := strings.Cut(name, "://")
	return found && scheme != "" && strings.Trim(strings.ToLower(scheme), "abcdefghijklmnopqrstuvwxyz0123456789+.-") == ""
}

// Image finds the image that is wished for, and what format it has. One that is
// at a URL is fetched into the home's cache, or found there. An image with a
// checksum is verified here if it was fetched, and by Create in any case.
func (f *Fleet) Image(ctx context.Context, w Wish, getenv func(string) string) (Image, error) {
	if w.Format != "" && !slices.Contains(ImageFormats(), w.Format) {
		return Image{}, fail.New(fail.Usage, "unknown image format %q", w.Format).Hint("use one of %s", strings.Join(ImageFormats(), ", "))
	}
	var image Image
	var err error
	if image.SHA256, err = parseChecksum(w.Checksum); err != nil {
		return Image{}, err
	}
	if w.Image == "" {
		w.Image = getenv("MICA_IMAGE")
	}
	name := w.Image
	if IsURL(w.Image) {
		name = download.BaseName(w.Image)
		image.Path, err = f.fetchImage(ctx, w.Image, image.SHA256)
	} else {
		image.Path, err = FindImage(f.Home, w.Image, getenv)
	}
	if err != nil {
		return Image{}, err
	}
	image.Verified = image.SHA256 != ""
	image.Format, err = imageFormat(image.Path, name, w.Format)
	return image, err
}

func parseChecksum(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	sum, ok := strings.CutPrefix(strings.ToLower(text), "sha256:")
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size {
		return "", fail.New(fail.Usage, "cannot read checksum %q", text).Hint("write sha256: and 64 hexadecimal digits")
	}
	return sum, nil
}

// fetchImage returns where the file at a URL is in the cache.
func (f *Fleet) fetchImage(ctx context.Context, address, sum string) (string, error) {
	u, err := url.Parse(address)
	base := download.BaseName(address)
	switch {
	case err != nil:
		return "", fail.New(fail.Usage, "the address of the image is no URL") // what is wrong with it may be a password
	case base == "":
		return "", fail.New(fail.Usage, "%q names no file", download.Shown(address))
	case u.Scheme == "http" && sum == "":
		return "", fail.New(fail.Usage, "what comes by plain http may be anybody's: %q needs a checksum", download.Shown(address)).
			Hint("pass --checksum sha256:..., as the image's publisher tells it, or an https URL")
	}
	dir := f.Home.downloads()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fail.New(fail.Failed, "making mica's folder: %w", err).Hint("set MICA_HOME to a folder you may write to")
	}
	// By the checksum too: what was published anew under the same URL is another file.
	id := sha256.Sum256([]byte(address + "\n" + sum))
	path := filepath.Join(dir, hex.EncodeToString(id[:8])+"-"+base)
	client := download.Client{Log: f.Log, Progress: f.Progress}
	if _, err := client.File(ctx, download.Request{URL: address, Path: path, SHA256: sum, Name: base, Max: maxImage}); err != nil {
		return "", noSpace(fmt.Errorf("fetching the image: %w", err))
	}
	return path, nil
}

// imageFormat returns an image's format as a Spec has it: empty for an ISO
// image. Raw disks have no mark of their own, and are taken for one only if the
// user or the name says so.
func imageFormat(path, name, wanted string) (string, error) {
	if wanted == "" {
		switch strings.ToLower(filepath.Ext(name)) {
		case ".raw", ".img":
			wanted = formatRaw
		}
	} else if wanted == formatRaw {
		return formatRaw, CheckDiskImage(path, formatRaw)
	}
	is, err := DiskFormat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fail.New(fail.NotFound, "no boot image at %s", path).Hint("build one with 'mica image build', or name another with --image")
	case err == nil && is != formatRaw: // its mark is plain, and goes before a name such as cloud.img
	case isISO(path):
		is, err = "", nil
	case err == nil && wanted != formatRaw:
		err = fail.New(fail.Usage, "%s could be a raw disk, or anything", path).Hint("if it is a disk, pass --image-format raw")
	case err != nil: // the check of boot images knows best what is wrong with it
		is, err = "", nil
	}
	if err == nil && wanted != "" && wanted != formatRaw && wanted != is && (wanted != formatISO || is != "") {
		err = fail.New(fail.Usage, "%s is no %s image", path, wanted).Hint("leave out --image-format to have it found out")
	}
	return is, err
}

// isISO reports whether a file has the mark of ISO 9660, which disk images
// have not: it is at byte 1 of sector 16 (ECMA-119 section 8.1.2).
func isISO(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	mark := make([]byte, 5)
	_, err = f.ReadAt(mark, 16*sector+1)
	return err == nil && string(mark) == "CD001"
}

// checkImage says whether a machine can be made of an image.
func checkImage(i Image) error {
	if i.Format == "" {
		return checkBootImage(i.Path)
	}
	return CheckDiskImage(i.Path, i.Format)
}
