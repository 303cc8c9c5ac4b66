package image_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/image/format"
	"github.com/micavm/mica/internal/iso9660"
)

func tree() image.Tree {
	return image.Tree{
		Title: "Mica 0", Version: "os.example.org at HEAD, Mica 0", Time: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), Command: line,
		Kernel: iso9660.Bytes("", 0o444, bytes.Repeat([]byte("kernel"), 1000)), Initramfs: iso9660.Bytes("", 0o444, bytes.Repeat([]byte("disk"), 1000)),
		Loader: []iso9660.File{iso9660.Bytes("isolinux/isolinux.bin", 0o444, make([]byte, 3000))}, HybridMBR: make([]byte, 432),
	}
}

// written makes an image and its digest.
func written(t *testing.T) (name string, data []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := format.ISO.Write(t.Context(), &b, tree(), image.Platforms()[0]); err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(t.TempDir(), "x.iso")
	sum := sha256.Sum256(b.Bytes())
	save(t, name, b.Bytes())
	save(t, name+".sha256", []byte(hex.EncodeToString(sum[:])+"\n"))
	return name, b.Bytes()
}

func save(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	name, data := written(t)
	v, err := image.Check(name)
	if err != nil || !v.Verified || v.Size != int64(len(data)) {
		t.Errorf("Check = %+v, %v; want verified", v, err)
	}
	if err := os.Remove(name + ".sha256"); err != nil {
		t.Fatal(err)
	}
	if v, err := image.Check(name); err != nil || v.Verified {
		t.Errorf("Check without a digest = %+v, %v; want not verified", v, err)
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(t *testing.T, name string, data []byte)
		class  fail.Class
		says   string
	}{
		{"missing", func(t *testing.T, name string, _ []byte) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}, fail.NotFound, "no boot image at"},
		{"empty", func(t *testing.T, name string, _ []byte) { save(t, name, nil) }, fail.Unverified, "0 bytes"},
		{"web page", func(t *testing.T, name string, _ []byte) { save(t, name, []byte("<html>not found</html>")) }, fail.Unverified, "not an image"},
		{"cut short", func(t *testing.T, name string, data []byte) { save(t, name, data[:len(data)/2]) }, fail.Unverified, "cut short"},
		{"cut in the tree", func(t *testing.T, name string, data []byte) { save(t, name, data[:20*2048]) }, fail.Unverified, "not an image"},
		{"flipped bit", func(t *testing.T, name string, data []byte) {
			data[len(data)-1] ^= 1
			save(t, name, data)
		}, fail.Unverified, "digest is"},
		{"damaged digest", func(t *testing.T, name string, _ []byte) { save(t, name+".sha256", []byte("zz\n")) }, fail.Unverified, "not a SHA-256 digest"},
		{"no boot entry", func(t *testing.T, name string, _ []byte) {
			var b bytes.Buffer
			if err := iso9660.Write(t.Context(), &b, iso9660.Volume{Files: []iso9660.File{iso9660.Bytes("x", 0o644, []byte("x"))}}); err != nil {
				t.Fatal(err)
			}
			save(t, name, b.Bytes())
		}, fail.Unverified, "no boot entry"},
		{"folder", func(t *testing.T, name string, _ []byte) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
		}, fail.Unverified, "not a file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name, data := written(t)
			tc.damage(t, name, data)
			_, err := image.Check(name)
			if !fail.Is(err, tc.class) || !strings.Contains(err.Error(), tc.says) || len(fail.Hints(err)) == 0 {
				t.Errorf("Check = %v (class %d), want class %d with %q and a hint", err, fail.ClassOf(err), tc.class, tc.says)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	_, data := written(t)
	f, err := format.Detect(bytes.NewReader(data))
	if err != nil || f.Name != "iso" {
		t.Fatalf("Detect = %q, %v", f.Name, err)
	}
	c, err := f.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	d, err := image.Describe(c.Files)
	if err != nil || c.Label != "UCERNVM" || d.Version != "os.example.org at HEAD, Mica 0" {
		t.Errorf("label %q, version %q, %v", c.Label, d.Version, err)
	}
	words, err := line.Words(image.Platforms()[0], image.Debug)
	if err != nil || d.CommandLine[image.Debug] != strings.Join(words, " ") {
		t.Errorf("command line = %q, %v", d.CommandLine[image.Debug], err)
	}
}
