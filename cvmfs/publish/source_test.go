package publish

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

// A file that is replaced between the walk and its reading is an error, whether it
// is stored whole or in pieces, and a pipe in its place does not keep the publisher
// waiting for somebody to write into it.
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
	s := &scanner{options: &Options{Chunks: ChunkSizes{Min: 1 << 14, Avg: 1 << 15, Max: 1 << 16}}, report: func(Progress) {}}
	for _, content := range []string{"content", strings.Repeat("content", 50000)} {
		for what, replace := range map[string]func(file string) error{
			"a pipe":         func(file string) error { return unix.Mkfifo(file, 0o644) },
			"another file":   func(file string) error { return os.WriteFile(file, []byte(strings.ToUpper(content)), 0o644) },
			"a longer file":  func(file string) error { return os.WriteFile(file, []byte(content+"more"), 0o644) },
			"a shorter file": func(file string) error { return os.WriteFile(file, []byte(content[1:]), 0o644) },
			"no more":        func(string) error { return nil },
		} {
			s.root = t.TempDir()
			n := planted(t, s, content)
			file := s.file("/f")
			if err := errors.Join(os.Remove(file), replace(file)); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- newContents(s, g).store(t.Context(), n, "/f") }()
			select {
			case err := <-done:
				if !errors.Is(err, ErrSource) && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s in the place of a file of %d bytes gives %v, want an error of the source", what, len(content), err)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s in the place of a file: still waiting", what)
			}
		}
	}
}

// planted makes the file /f of the source, old enough to be told from any other,
// and describes it.
func planted(t *testing.T, s *scanner, content string) *node {
	t.Helper()
	file := s.file("/f")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		t.Fatal(err)
	}
	n, err := s.node("/f", "f", &st)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A big file is stored by as many as are free, and by one all the same; in pieces
// it has the chunks that it has when it is read from its beginning to its end.
func TestPieces(t *testing.T) {
	repository, err := openStorage(t.TempDir(), "tree.example.org")
	if err != nil {
		t.Fatal(err)
	}
	g, err := repository.stage(t.Context(), cvmfs.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.discard()
	data := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	for _, workers := range []int{1, 4} {
		s := &scanner{root: t.TempDir(), report: func(Progress) {}}
		s.options = &Options{Workers: workers, Chunks: ChunkSizes{Min: 1 << 14, Avg: 1 << 15, Max: 1 << 16}}
		n := planted(t, s, string(data))
		c := newContents(s, g)
		if err := c.store(t.Context(), n, "/f"); err != nil {
			t.Fatal(err)
		}
		once := planted(t, s, string(data))
		r, err := c.take(t.Context())
		if err == nil {
			err = r.store(t.Context(), once, "/f", bytes.NewReader(data))
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(n.chunks) < 3<<20>>16 || !n.entry.IsChunked() || !slices.Equal(n.chunks, once.chunks) {
			t.Errorf("%d workers: chunks %v, want %v", workers, n.chunks, once.chunks)
		}
		if int(c.done) != 2*len(data) {
			t.Errorf("%d workers: %d bytes reported, want %d", workers, c.done, 2*len(data))
		}
	}
}
