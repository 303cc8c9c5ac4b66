package sparse_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/micavm/mica/internal/machine/sparse"
)

// TestWriter sees that content with holes at both ends comes out the same, and
// takes the space of its data only.
func TestWriter(t *testing.T) {
	content := make([]byte, 8<<20)
	copy(content[3<<20:], bytes.Repeat([]byte("data"), 1000))
	path := filepath.Join(t.TempDir(), "x")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := &sparse.Writer{File: f}
	if _, err := io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file has %d bytes, %v; want the %d that were written", len(got), err, len(content))
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Blocks*512 > 1<<20 {
		t.Errorf("the file takes %d bytes, want those of its data", st.Blocks*512)
	}
}
