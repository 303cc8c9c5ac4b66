package format

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
)

// Format is one form of image.
type Format struct {
	Name  string
	Ext   string
	Magic func(r io.ReaderAt) bool                                                     // whether a file looks like one
	Open  func(r io.ReaderAt, size int64) (Contents, error)                            // reads one back
	Write func(ctx context.Context, w io.Writer, t image.Tree, p image.Platform) error // writes one
}

// Contents is what an image holds, read back.
type Contents struct {
	Label    string
	Firmware []string // what it starts from: BIOS, EFI, disk
	Files    fs.FS
}

// All returns every form, in alphabetical order.
func All() []Format {
	return []Format{
		ISO,
	}
}

// Named returns the form with that name.
func Named(name string) (Format, error) {
	var known []string
	for _, f := range All() {
		if f.Name == name {
			return f, nil
		}
		known = append(known, f.Name)
	}
	return Format{}, fail.New(fail.Usage, "unknown image format %q", name).Hint("known formats: %s", strings.Join(known, ", "))
}

// Detect finds out which form an image has.
func Detect(r io.ReaderAt) (Format, error) {
	for _, f := range All() {
		if f.Magic(r) {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("no image format is recognised: %w", image.ErrFormat)
}
