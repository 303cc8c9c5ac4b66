package cvmfstest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zlib"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

// Store puts the zlib form of data among the repository's objects.
func (r Repo) Store(t testing.TB, a cvmfs.Algorithm, data []byte, s cvmfs.Suffix) cvmfs.Hash {
	t.Helper()
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return r.StoreRaw(t, a, b.Bytes(), s)
}

// StoreRaw puts bytes among the repository's objects as they are.
func (r Repo) StoreRaw(t testing.TB, a cvmfs.Algorithm, stored []byte, s cvmfs.Suffix) cvmfs.Hash {
	t.Helper()
	h := a.Sum(stored)
	file := filepath.Join(r.Dir, h.ObjectPath(s))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, stored, 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// Head is the manifest as it is now, not verified.
func (r Repo) Head(t testing.TB) *cvmfs.Manifest {
	t.Helper()
	m, err := cvmfs.ParseManifest(r.Read(t, cvmfs.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Sign publishes a manifest with the repository's own key, whatever it says.
func (r Repo) Sign(t testing.TB, m *cvmfs.Manifest) {
	t.Helper()
	key, err := cvmfs.ParsePrivateKey(r.Key(t, "key"))
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, cvmfs.ManifestFile, func() ([]byte, error) { return m.Sign(key) })
}

// Change runs statements of SQL on a catalogue and stores the result as another
// one.
func (r Repo) Change(t testing.TB, catalog cvmfs.Hash, statements ...string) cvmfs.Hash {
	t.Helper()
	file := r.Object(t, catalog, cvmfs.SuffixCatalog)
	db, err := sqlite.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return r.Store(t, catalog.Algorithm, data, cvmfs.SuffixCatalog)
}
