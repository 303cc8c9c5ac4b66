package delivery_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

func TestFloppy(t *testing.T) {
	for _, text := range []string{"x", userData, strings.Repeat("y", delivery.FloppyData)} {
		var b bytes.Buffer
		if err := delivery.WriteFloppy(&b, []byte(text)); err != nil {
			t.Fatal(err)
		}
		image := b.Bytes()
		if len(image) != 28672 || image[28670] != 1 || image[28671] != 0 {
			t.Fatalf("floppy of %d bytes: %d bytes, flags % x", len(text), len(image), image[len(image)-2:])
		}
		if string(image[:len(text)]) != text || len(bytes.Trim(image[len(text):28670], "\x00")) > 0 {
			t.Errorf("floppy of %d bytes has something else on it", len(text))
		}
		found, err := delivery.Read(bytes.NewReader(image), int64(len(image)))
		if err != nil || found.Kind != "floppy" || string(found.UserData) != text {
			t.Errorf("Read of a floppy of %d bytes = %q, %d bytes, %v", len(text), found.Kind, len(found.UserData), err)
		}
	}
}

func TestFloppyRefuses(t *testing.T) {
	for _, text := range []string{strings.Repeat("y", delivery.FloppyData+1), "a\x00b"} {
		var b bytes.Buffer
		if err := delivery.WriteFloppy(&b, []byte(text)); !fail.Is(err, fail.Usage) || b.Len() > 0 {
			t.Errorf("WriteFloppy(%d bytes) = %v and %d bytes, want a usage error and none", len(text), err, b.Len())
		}
	}
}

// TestNotAFloppy has files of a floppy's size that are none.
func TestNotAFloppy(t *testing.T) {
	for name, change := range map[string]func([]byte){
		"zeros":            func([]byte) {},
		"other flags":      func(b []byte) { b[0], b[28670] = 'x', 7 },
		"text all through": func(b []byte) { copy(b, strings.Repeat("x", len(b))) },
		"a hole":           func(b []byte) { b[0], b[9000], b[28670] = 'x', 'y', 1 },
	} {
		image := make([]byte, delivery.FloppySize)
		change(image)
		file := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(file, image, 0o600); err != nil {
			t.Fatal(err)
		}
		if found, err := delivery.Inspect(file); err == nil {
			t.Errorf("%s: taken for %q", name, found.Kind)
		}
	}
}
