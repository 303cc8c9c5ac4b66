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
	Exec(t, file, statements...)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return r.Store(t, catalog.Algorithm, data, cvmfs.SuffixCatalog)
}

// Exec runs statements of SQL on a database.
func Exec(t testing.TB, file string, statements ...string) {
	t.Helper()
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
}

// FuzzDatabase has use called with a database in which some bytes are others.
func FuzzDatabase(f *testing.F, good string, use func(t *testing.T, data []byte)) {
	f.Helper()
	whole, err := os.ReadFile(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(100), []byte{0xff, 0xff})             // in the first page
	f.Add(uint32(4096), []byte{0x0d})                  // the kind of the second
	f.Add(uint32(0), []byte("SQLite format 3"))        // as it was
	f.Add(uint32(4096+8), []byte{0x00, 0x10, 0, 0x10}) // where the second has its cells
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		data := bytes.Clone(whole)
		copy(data[int(at)%len(data):], patch)
		use(t, data)
	})
}
