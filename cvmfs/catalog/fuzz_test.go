package catalog_test

import (
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

// Rows about nested catalogues, of any types, are malformed or name a catalogue
// that is found below its path and nowhere else.
func FuzzNested(f *testing.F) {
	hash := cvmfs.SHA1.Sum(nil).String()
	f.Add("/soft", hash, int64(7), byte(0))
	f.Add("/soft", hash, int64(-1), byte(0))
	f.Add("/nested", hash, int64(7), byte(4)) // there twice
	f.Add("", hash, int64(7), byte(0))
	f.Add("/a//b", "d41d8cd98f00b204e9800998ecf8427e", int64(1)<<62, byte(0))
	f.Add("soft\x00", hash+"-shake128", int64(0), byte(4))
	f.Add("/soft", "", int64(0), byte(1))
	f.Add("/soft", hash, int64(7), byte(2))
	good, err := os.ReadFile(build(f))
	if err != nil {
		f.Fatal(err)
	}
	file := filepath.Join(f.TempDir(), "catalog")
	f.Fuzz(func(t *testing.T, path, hash string, size int64, how byte) {
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		row := []driver.Value{path, hash, size}
		if how&1 != 0 {
			row[0] = []byte(path) // a blob
		}
		if how&2 != 0 {
			row[2] = hash // text in the place of a number
		}
		table := "nested_catalogs"
		if how&4 != 0 {
			table = "bind_mountpoints"
		}
		db, err := sqlite.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Exec("INSERT INTO "+table+" VALUES (?,?,?)", row...)
		if cerr := db.Close(); cerr != nil {
			t.Fatal(cerr)
		}
		if err != nil {
			return // the table's own rules
		}
		c, err := catalog.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		list, err := c.Nested()
		if err != nil {
			if !errors.Is(err, cvmfs.ErrMalformed) {
				t.Errorf("Nested = %v, want ErrMalformed", err)
			}
			return
		}
		if len(list) != 2 {
			t.Fatalf("Nested = %+v, want the one there was and the new one", list)
		}
		for _, n := range list {
			if n.Path == "" || n.Hash.IsZero() || n.Size < 0 {
				t.Errorf("Nested has %+v", n)
			}
			for at, want := range map[string]bool{n.Path: true, n.Path + "/x": true, n.Path + "ware": false} {
				found, ok, err := c.NestedFor(at)
				if got := ok && found == n; got != want && err == nil {
					t.Errorf("NestedFor(%q) = %+v, %v, want %v to be %v", at, found, ok, n, want)
				}
			}
		}
	})
}
