package client_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/publish"
)

// What is remembered of a revision that is not shown any more: the content of
// files, whole and in pieces, for as long as one likes, and the names of the
// revision just before. Whoever wants to know hears of each change.
func TestRevisionsBefore(t *testing.T) {
	const name = "before.example.org"
	dir := t.TempDir()
	tree, storage, keys := filepath.Join(dir, "tree"), filepath.Join(dir, "storage"), filepath.Join(dir, "keys")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	show := func(revision int) {
		t.Helper()
		text := fmt.Sprintf("revision %d\n", revision)
		for file, data := range map[string]string{"small": text, "big": strings.Repeat(text, 20_000), fmt.Sprint("only", revision): ""} {
			if err := os.WriteFile(filepath.Join(tree, file), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if revision > 1 {
			if err := os.Remove(filepath.Join(tree, fmt.Sprint("only", revision-1))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := publish.Publish(t.Context(), publish.Options{
			Source: tree, Storage: storage, Name: name, Keys: keys, Chunks: publish.ChunkSizes{Min: 16 << 10, Avg: 32 << 10, Max: 64 << 10},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := publish.Create(t.Context(), publish.CreateOptions{Storage: storage, Name: name, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	show(1)
	server := httptest.NewServer(http.FileServer(http.Dir(storage)))
	defer server.Close()
	pem, err := os.ReadFile(filepath.Join(keys, name+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, client.Options{Name: name, Servers: []string{server.URL + "/" + name}, MasterKeys: public, CacheDir: filepath.Join(dir, "cache")})
	heard := 0
	end := r.OnChange(func() { heard++ })
	roots := []cvmfs.Hash{r.RootHash()}
	contents := map[string]*client.Content{}
	for _, file := range []string{"/small", "/big"} {
		e, err := r.Lookup(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		if contents[file], err = r.Content(t.Context(), file, e); err != nil {
			t.Fatal(err)
		}
		if e.IsChunked() != (file == "/big") {
			t.Fatalf("%s is chunked: %v", file, e.IsChunked())
		}
	}
	for revision := 2; revision <= 3; revision++ {
		show(revision)
		if changed, err := r.Refresh(t.Context()); err != nil || !changed {
			t.Fatalf("Refresh = %v, %v", changed, err)
		}
		roots = append(roots, r.RootHash())
		before := roots[len(roots)-2]
		want := []string{"big", fmt.Sprint("only", revision-1), "small"}
		if got, err := r.NamesBefore(t.Context(), before, "/"); err != nil || !slices.Equal(got, want) {
			t.Errorf("NamesBefore in revision %d = %q, %v; want %q", revision, got, err, want)
		}
	}
	if heard != 2 {
		t.Errorf("heard of %d changes, want 2", heard)
	}
	end()
	if got, err := r.NamesBefore(t.Context(), roots[0], "/"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("NamesBefore of the revision before = %q, %v", got, err)
	}
	for file, c := range contents {
		f, err := r.OpenContent(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || !strings.HasPrefix(string(got), "revision 1\n") || strings.Count(string(got), "revision 1\n")*len("revision 1\n") != len(got) {
			t.Errorf("%s of revision 1: %d bytes %.20q, %v", file, len(got), got, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		e, err := r.Lookup(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		now, err := r.Content(t.Context(), file, e)
		if err != nil || now.ID() == c.ID() {
			t.Errorf("%s has the same content in revision 3: %v", file, err)
		}
	}
	show(4)
	if changed, err := r.Refresh(t.Context()); err != nil || !changed || heard != 2 {
		t.Errorf("Refresh = %v, %v; heard of %d changes after the end, want 2", changed, err, heard)
	}
}
