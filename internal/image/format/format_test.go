package format_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/image/format"
	"github.com/micavm/mica/internal/iso9660"
)

// TestEveryFormat is what each form must do: deterministic bytes, its own
// magic, a round trip, and an error for a truncated image.
func TestEveryFormat(t *testing.T) {
	tree := image.Tree{
		Title: "T", Version: "V", Command: image.CommandLine{Repository: "r"},
		Kernel: iso9660.Bytes("", 0o444, bytes.Repeat([]byte("k"), 9001)), Initramfs: iso9660.Bytes("", 0o444, []byte("i")),
		Loader: []iso9660.File{iso9660.Bytes("isolinux/isolinux.bin", 0o444, make([]byte, 100))},
	}
	names := map[string]bool{}
	for _, f := range format.All() {
		if names[f.Name] {
			t.Errorf("two formats are called %q", f.Name)
		}
		names[f.Name] = true
		var first, second bytes.Buffer
		for _, b := range []*bytes.Buffer{&first, &second} {
			if err := f.Write(t.Context(), b, tree, image.Platforms()[0]); err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s: two images of one tree differ", f.Name)
		}
		found, err := format.Detect(bytes.NewReader(first.Bytes()))
		if err != nil || found.Name != f.Name {
			t.Errorf("%s: Detect = %q, %v", f.Name, found.Name, err)
		}
		c, err := f.Open(bytes.NewReader(first.Bytes()), int64(first.Len()))
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if d, err := image.Describe(c.Files); err != nil || d.Version != "V" {
			t.Errorf("%s: Describe = %+v, %v", f.Name, d, err)
		}
		cut := first.Bytes()[:first.Len()/2/2048*2048-1]
		if _, err := f.Open(bytes.NewReader(cut), int64(len(cut))); !errors.Is(err, image.ErrFormat) {
			t.Errorf("%s: Open of a truncated image = %v, want ErrFormat", f.Name, err)
		}
	}
}

func TestUnknown(t *testing.T) {
	if _, err := format.Named("floppy"); !fail.Is(err, fail.Usage) {
		t.Errorf("Named = %v, want a usage error", err)
	}
	if _, err := format.Detect(bytes.NewReader([]byte("x"))); !errors.Is(err, image.ErrFormat) {
		t.Errorf("Detect = %v, want ErrFormat", err)
	}
}
