package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
)

// ErrFormat says that a file is no image of a known form, or a damaged one.
var ErrFormat = errors.New("not an image")

// Verdict is what Check found.
type Verdict struct {
	Path     string
	Size     int64
	SHA256   string
	Verified bool // a digest beside the image says the same
}

// Check looks at a boot image before a machine is started from it. It is there,
// is a whole ISO 9660 image with a boot entry, has the kernel and the initramfs,
// and has the digest that <image>.sha256 says, if that file exists. The error
// has class NotFound where there is no such file and Unverified where it cannot
// be trusted.
func Check(name string) (Verdict, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Verdict{}, fail.New(fail.NotFound, "no boot image at %s", name).Hint("build one with 'mica image build'")
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("opening boot image: %w", err)
	}
	defer f.Close()
	v, err := check(f, name)
	if errors.Is(err, ErrFormat) {
		return v, fail.New(fail.Unverified, "boot image %s: %w", name, err).Hint("build or fetch it again")
	}
	if err != nil {
		return v, fmt.Errorf("checking boot image %s: %w", name, err)
	}
	return v, nil
}

func check(f *os.File, name string) (Verdict, error) {
	info, err := f.Stat()
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Path: name, Size: info.Size()}
	if !info.Mode().IsRegular() {
		return v, fmt.Errorf("%w: not a file", ErrFormat)
	}
	want, err := readDigest(name + ".sha256")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return v, err
	}
	v.SHA256 = hex.EncodeToString(h.Sum(nil))
	img, err := iso9660.Open(f, info.Size(), iso9660.Auto)
	switch {
	case errors.Is(err, iso9660.ErrFormat):
		return v, fmt.Errorf("%w: %d bytes: %w", ErrFormat, v.Size, err)
	case err != nil:
		return v, err
	case len(img.Boot) == 0:
		return v, fmt.Errorf("%w to boot from: no boot entry", ErrFormat)
	}
	for _, p := range []string{KernelPath, InitramfsPath} {
		if fi, err := img.Stat(p); err != nil || fi.Size() == 0 {
			return v, fmt.Errorf("%w of this system: no %s", ErrFormat, p)
		}
	}
	if want != "" && want != v.SHA256 {
		return v, fail.New(fail.Unverified, "digest is %s, but %s.sha256 says %s", v.SHA256, path.Base(name), want).
			Hint("build or fetch it again; if it was changed on purpose, remove %s.sha256", name)
	}
	v.Verified = want != ""
	return v, nil
}

// readDigest reads a digest file: the bare digest, or the digest and a name.
//
// Compat: cernvm-micro Makefile writes the digest alone.
func readDigest(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	word, _, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	if b, err := hex.DecodeString(word); err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("%w: %s is not a SHA-256 digest", ErrFormat, name)
	}
	return strings.ToLower(word), nil
}
