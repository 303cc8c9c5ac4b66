package history_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/history"
)

func TestReadOriginal(t *testing.T) {
	repo := cvmfstest.Small(t)
	m, err := cvmfs.ParseManifest(repo.Read(t, cvmfs.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	h, err := history.Open(repo.Object(t, m.History, cvmfs.SuffixHistory))
	if err != nil {
		t.Fatal(err)
	}
	if h.Name() != cvmfstest.Name {
		t.Errorf("Name = %q, want %q", h.Name(), cvmfstest.Name)
	}
	got := make(map[string]string)
	for _, tag := range h.Tags() {
		got[tag.Name] = tag.Hash.String()
	}
	roots := cvmfstest.RootHashes
	want := map[string]string{"rev1": roots[1], "rev2": roots[2], "v1.0/final": roots[2], "trunk-previous": roots[2], "rev3": roots[3], "trunk": roots[3]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	tags := h.Tags()
	if tags[0].Revision != 3 || tags[len(tags)-1].Revision != 1 {
		t.Errorf("order of revisions: %v first, %v last, want newest first", tags[0].Revision, tags[len(tags)-1].Revision)
	}
	trunk, ok := h.Lookup("trunk")
	if !ok || trunk.Size != m.RootSize || trunk.Description != "current HEAD" {
		t.Errorf("Lookup(trunk) = %+v, %v", trunk, ok)
	}
	if _, ok := h.Lookup("nothing"); ok {
		t.Error("Lookup(nothing) found something")
	}
	rev1, _ := h.Lookup("rev1")
	if tag, ok := h.At(rev1.Time); !ok || tag.Revision < 1 {
		t.Errorf("At(%v) = %+v, %v", rev1.Time, tag, ok)
	}
	if tag, ok := h.At(rev1.Time.Add(-time.Second)); ok {
		t.Errorf("At before the first tag = %+v, want none", tag)
	}
}

func sample() []history.Tag {
	return []history.Tag{
		{Name: "v2", Hash: cvmfs.SHAKE128.Sum([]byte("2")), Revision: 2, Time: time.Unix(2000, 0).UTC(), Description: "second, it's \"quoted\"", Size: 5},
		{Name: "v1/x:y", Hash: cvmfs.SHA1.Sum([]byte("1")), Revision: 1, Time: time.Unix(1000, 0).UTC()},
	}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	previous := cvmfs.SHA1.Sum([]byte("p"))
	for _, file := range files {
		if err := history.Write(file, "a.example.org", previous, sample()); err != nil {
			t.Fatal(err)
		}
	}
	h, err := history.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), h.Tags()); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if h.Previous() != previous || h.Name() != "a.example.org" {
		t.Errorf("Previous, Name = %v, %q", h.Previous(), h.Name())
	}
	a, _ := os.ReadFile(files[0])
	b, _ := os.ReadFile(files[1])
	if len(a) == 0 || string(a) != string(b) {
		t.Error("equal tags gave different files")
	}
	if err := history.Write(files[0], "a.example.org", previous, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("Write over a file = %v, want ErrExist", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, tag := range []history.Tag{
		{Name: "", Hash: cvmfs.SHA1.Sum(nil)},
		{Name: "with blank", Hash: cvmfs.SHA1.Sum(nil)},
		{Name: "a\n", Hash: cvmfs.SHA1.Sum(nil)},
		{Name: strings.Repeat("x", 256), Hash: cvmfs.SHA1.Sum(nil)},
		{Name: "ok"},
	} {
		file := filepath.Join(t.TempDir(), "h")
		if err := history.Write(file, "a.example.org", cvmfs.Hash{}, []history.Tag{tag}); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("Write(%q) = %v, want ErrMalformed", tag.Name, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("Write(%q) left a file", tag.Name)
		}
	}
}

func TestHostile(t *testing.T) {
	for _, statement := range []string{
		"UPDATE tags SET name='a b' WHERE name='v2'", "UPDATE tags SET name=x'00' WHERE name='v2'", "UPDATE tags SET hash='' WHERE name='v2'",
		"UPDATE tags SET hash=NULL WHERE name='v2'", "UPDATE tags SET revision=-1 WHERE name='v2'", "UPDATE tags SET revision='x' WHERE name='v2'",
		"UPDATE tags SET timestamp=-1 WHERE name='v2'", "UPDATE tags SET timestamp=9223372036854775807 WHERE name='v2'",
		"UPDATE tags SET size=-1 WHERE name='v2'", "UPDATE tags SET description=x'00' WHERE name='v2'", "DROP TABLE tags", "DROP TABLE properties",
		"UPDATE properties SET value='x' WHERE key='previous_revision'", "CREATE VIEW v AS SELECT 1",
	} {
		file := filepath.Join(t.TempDir(), "h")
		if err := history.Write(file, "a.example.org", cvmfs.SHA1.Sum(nil), sample()); err != nil {
			t.Fatal(err)
		}
		cvmfstest.Exec(t, file, statement)
		if _, err := history.Open(file); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("after %s: Open = %v, want ErrMalformed", statement, err)
		}
	}
}

func FuzzHistory(f *testing.F) {
	file := filepath.Join(f.TempDir(), "h")
	if err := history.Write(file, "a.example.org", cvmfs.SHA1.Sum(nil), sample()); err != nil {
		f.Fatal(err)
	}
	cvmfstest.FuzzDatabase(f, file, func(t *testing.T, data []byte) {
		damaged := filepath.Join(t.TempDir(), "h")
		if err := os.WriteFile(damaged, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := history.Open(damaged); err == nil {
			for _, tag := range h.Tags() {
				if history.CheckTagName(tag.Name) != nil || tag.Size < 0 {
					t.Errorf("Open let through %+v", tag)
				}
			}
		}
	})
}
