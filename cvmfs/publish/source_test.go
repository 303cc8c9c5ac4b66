package publish

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

// A file that is replaced between the walk and its reading is an error, and a pipe
// in its place does not keep the publisher waiting for somebody to write into it.
func TestReplacedWhileRead(t *testing.T) {
	repository, err := openStorage(t.TempDir(), "tree.example.org")
	if err != nil {
		t.Fatal(err)
	}
	g, err := repository.stage(t.Context(), cvmfs.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.discard()
	for what, replace := range map[string]func(file string) error{
		"a pipe":        func(file string) error { return unix.Mkfifo(file, 0o644) },
		"another file":  func(file string) error { return os.WriteFile(file, []byte("Content"), 0o644) },
		"a longer file": func(file string) error { return os.WriteFile(file, []byte("content, more"), 0o644) },
		"no more":       func(string) error { return nil },
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(file, &st); err != nil {
			t.Fatal(err)
		}
		s := &scanner{root: dir, options: &Options{Chunks: defaultChunks}}
		n, err := s.node("/f", "f", &st)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(file), replace(file)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- newReader(s, g, func(int64) {}).read(t.Context(), n, "/f") }()
		select {
		case err := <-done:
			if !errors.Is(err, ErrSource) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s in the place of a file gives %v, want an error of the source", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s in the place of a file: still waiting", what)
		}
	}
}
