package catalog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

// forge builds a good catalogue and changes it with SQL.
func forge(t testing.TB, statements ...string) string {
	t.Helper()
	file := build(t)
	cvmfstest.Exec(t, file, statements...)
	return file
}

// useAll calls everything there is, on every path of the built catalogue, and
// returns the first error.
func useAll(file string) error {
	c, err := catalog.Open(file)
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, a := range tree() {
		_, _, err := c.Lookup(a.path)
		errs = append(errs, err)
		_, err = c.List(a.path)
		errs = append(errs, err)
		_, err = c.Chunks(a.path)
		errs = append(errs, err)
		_, err = c.Xattrs(a.path)
		errs = append(errs, err)
	}
	_, err = c.Nested()
	errs = append(errs, err)
	_, _, err = c.NestedFor("/nested/x")
	errs = append(errs, err)
	_, _, err = c.ReadCounters()
	errs = append(errs, err)
	_, _, err = c.Property("revision")
	errs = append(errs, err)
	_, _, err = c.Rows()
	errs = append(errs, err)
	errs = append(errs, c.Objects(func(catalog.Object) error { return nil }))
	return errors.Join(errs...)
}

func TestHostile(t *testing.T) {
	if err := useAll(forge(t)); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for _, statement := range []string{
		"UPDATE catalog SET name='..' WHERE name='raw'",
		"UPDATE catalog SET name='a/b' WHERE name='raw'",
		"UPDATE catalog SET name='' WHERE name='raw'",
		"UPDATE catalog SET name='other' WHERE name='raw'",
		"UPDATE catalog SET name=CAST(x'610062' AS TEXT) WHERE name='raw'",
		"UPDATE catalog SET name=printf('%.*c', 256, 'x') WHERE name='raw'",
		"UPDATE catalog SET name=x'726177' WHERE name='raw'",
		"UPDATE catalog SET size=-1 WHERE name='raw'",
		"UPDATE catalog SET size=1.5 WHERE name='raw'",
		"UPDATE catalog SET size='many' WHERE name='raw'",
		"UPDATE catalog SET size=NULL WHERE name='raw'",
		"UPDATE catalog SET mode=-1 WHERE name='raw'",
		"UPDATE catalog SET mode=1048576 WHERE name='raw'",
		"UPDATE catalog SET mode=420 WHERE name='raw'",
		"UPDATE catalog SET mode=16877 WHERE name='raw'", // a directory, says the mode alone
		"UPDATE catalog SET flags=1 WHERE name='raw'",    // a directory, say the flags alone
		"UPDATE catalog SET flags=-1 WHERE name='raw'",
		"UPDATE catalog SET flags=4294967296 WHERE name='raw'",
		"UPDATE catalog SET flags=4|(2<<11) WHERE name='raw'", // compression 2
		"UPDATE catalog SET flags=4|(3<<8) WHERE name='raw'",  // algorithm 4
		"UPDATE catalog SET hash=x'00' WHERE name='raw'",
		"UPDATE catalog SET hash=zeroblob(21) WHERE name='raw'",
		"UPDATE catalog SET hash='text of twenty bytes' WHERE name='raw'",
		"UPDATE catalog SET uid='root' WHERE name='raw'",
		"UPDATE catalog SET hardlinks=NULL WHERE name='raw'",
		"UPDATE catalog SET mtime='now' WHERE name='raw'",
		"UPDATE catalog SET mtimens='now' WHERE name='raw'",
		"UPDATE catalog SET symlink=CAST(x'610062' AS TEXT) WHERE name='link'",
		"UPDATE catalog SET symlink=printf('%.*c', 4097, 'x') WHERE name='link'",
		"UPDATE catalog SET xattr=x'02' WHERE name='raw'",
		"UPDATE catalog SET xattr=x'0101' WHERE name='raw'",
		"UPDATE catalog SET xattr='text' WHERE name='raw'",
		"DELETE FROM chunks WHERE offset=0",
		"DELETE FROM chunks",
		"UPDATE chunks SET offset=11 WHERE offset=10",
		"UPDATE chunks SET size=19 WHERE offset=10",
		"UPDATE chunks SET size=0 WHERE offset=10",
		"UPDATE chunks SET size=9223372036854775807 WHERE offset=10",
		"UPDATE chunks SET hash=NULL WHERE offset=10",
		"UPDATE nested_catalogs SET path='/nested/../..'",
		"UPDATE nested_catalogs SET path='nested'",
		"UPDATE nested_catalogs SET path=''",
		"UPDATE nested_catalogs SET path='/nested/'",
		"UPDATE nested_catalogs SET sha1=''",
		"UPDATE nested_catalogs SET sha1='" + strings.Repeat("0", 40) + "'",
		"UPDATE nested_catalogs SET sha1='d41d8cd98f00b204e9800998ecf8427e'",
		"UPDATE nested_catalogs SET size=-1",
		"INSERT INTO bind_mountpoints SELECT path, sha1, size FROM nested_catalogs",
		"UPDATE statistics SET value='many' WHERE counter='self_dir'",
		"UPDATE properties SET value=NULL WHERE key='revision'",
		"UPDATE properties SET value='2.6' WHERE key='schema'",
		"UPDATE properties SET value='2.3' WHERE key='schema'",
		"UPDATE properties SET value='nan' WHERE key='schema'",
		"UPDATE properties SET value='new' WHERE key='schema'",
		"DROP TABLE nested_catalogs",
		"ALTER TABLE catalog RENAME COLUMN flags TO flag",
		"CREATE VIEW v AS SELECT 1",
		"CREATE TRIGGER t AFTER INSERT ON catalog BEGIN SELECT 1; END",
		"INSERT INTO catalog SELECT 1, 2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, name, symlink, uid, gid, xattr FROM catalog WHERE name='raw'",
	} {
		if err := useAll(forge(t, statement)); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("after %s: %v, want ErrMalformed", statement, err)
		}
	}
}

// What old or careless writers left must still be read.
func TestTolerated(t *testing.T) {
	for _, test := range []struct {
		statements []string
		path       string
		check      func(catalog.Entry) bool
	}{
		{[]string{"UPDATE catalog SET mtimens=-7"}, "/dir", func(e catalog.Entry) bool { return e.MTimeNS == -1 }},           // T8
		{[]string{"UPDATE catalog SET mtimens=1000000000"}, "/dir", func(e catalog.Entry) bool { return e.MTimeNS == -1 }},   // T8
		{[]string{"ALTER TABLE catalog DROP COLUMN mtimens"}, "/dir", func(e catalog.Entry) bool { return e.MTimeNS == -1 }}, // before revision 7
		{[]string{"ALTER TABLE catalog DROP COLUMN mtimens", "ALTER TABLE catalog ADD mtimens INTEGER", "UPDATE catalog SET mtimens=5"}, "/dir", func(e catalog.Entry) bool { return e.MTimeNS == 5 && e.UID == 3000000001 }},
		{[]string{"UPDATE catalog SET uid=-1294967295, gid=-1"}, "/dir", func(e catalog.Entry) bool { return e.UID == 3000000001 && e.GID == 4294967295 }}, // T22
		{[]string{"ALTER TABLE catalog DROP COLUMN xattr"}, "/dir/\xff\n", func(e catalog.Entry) bool { return !e.HasXattrs }},                             // before revision 2
		{[]string{"DROP TABLE bind_mountpoints", "ALTER TABLE nested_catalogs DROP COLUMN size"}, "/nested", catalog.Entry.IsDir},
		{[]string{"UPDATE properties SET value=2.4 WHERE key='schema'"}, "", catalog.Entry.IsDir},
		{[]string{ // before schema 2.1
			"UPDATE properties SET value='1.2' WHERE key='schema'", "ALTER TABLE catalog DROP COLUMN uid", "ALTER TABLE catalog DROP COLUMN gid",
			"ALTER TABLE catalog RENAME COLUMN hardlinks TO inode", "DROP TABLE statistics",
		}, "/dir", func(e catalog.Entry) bool { return e.Nlink == 1 && e.HardlinkGroup == 0 && e.UID == 0 }},
		{[]string{"UPDATE catalog SET flags=8 WHERE name='link'"}, "/link", catalog.Entry.IsSymlink}, // T5
	} {
		file := forge(t, test.statements...)
		if err := useAll(file); err != nil {
			t.Errorf("after %v: %v", test.statements, err)
			continue
		}
		c, err := catalog.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if e, ok, err := c.Lookup(test.path); err != nil || !ok || !test.check(e) {
			t.Errorf("after %v: Lookup(%q) = %+v, %v, %v", test.statements, test.path, e, ok, err)
		}
		_ = c.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty": {}, "text": []byte("this is no database, but long enough to look at"), "cut": good[:len(good)/2], "header": good[:100],
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := useAll(file); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	if _, err := catalog.Open(filepath.Join(dir, "missing")); err == nil || errors.Is(err, cvmfs.ErrMalformed) {
		t.Errorf("missing file: %v, want an error that does not blame the file's content", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "missing")); err == nil {
		t.Error("opening a missing file created it")
	}
}

// Damaged pages give errors or wrong answers, never a crash or a hang.
func FuzzCatalog(f *testing.F) {
	dir := f.TempDir()
	cvmfstest.FuzzDatabase(f, build(f), func(t *testing.T, data []byte) {
		file := filepath.Join(dir, fmt.Sprintf("c%d", rand.Uint64())) //nolint:gosec // a file name
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file)
		start := time.Now()
		_ = useAll(file)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func FuzzXattrs(f *testing.F) {
	blob, err := catalog.EncodeXattrs(map[string][]byte{"user.a": []byte("value"), "user.b": nil})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	f.Add([]byte{1, 255})
	f.Add([]byte{1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, blob []byte) {
		set, err := catalog.DecodeXattrs(blob)
		if err != nil {
			if !errors.Is(err, cvmfs.ErrMalformed) {
				t.Errorf("DecodeXattrs = %v, want ErrMalformed", err)
			}
			return
		}
		again, err := catalog.EncodeXattrs(set)
		if err != nil {
			t.Fatalf("EncodeXattrs(%q) = %v", set, err)
		}
		set2, err := catalog.DecodeXattrs(again)
		if err != nil || len(set2) != len(set) {
			t.Errorf("round trip of %q = %q, %v", set, set2, err)
		}
	})
}

func TestXattrBlob(t *testing.T) {
	blob, err := catalog.EncodeXattrs(map[string][]byte{"user.b": nil, "user.a": []byte("xy")})
	if want := "\x01\x02\x06\x02user.axy\x06\x00user.b"; err != nil || string(blob) != want {
		t.Errorf("EncodeXattrs = %q, %v, want %q", blob, err, want)
	}
	if set, err := catalog.DecodeXattrs(append(blob, "trailing"...)); err != nil || len(set) != 2 {
		t.Errorf("DecodeXattrs with trailing bytes = %v, %v, want 2", set, err)
	}
	for _, bad := range []string{"\x01", "\x02\x00", "\x00\x00", "\x01\x01", "\x01\x01\x00\x00", "\x01\x01\x00\x01x", "\x01\x01\x02\x01a", "\x01\x01\x01\x00\x00"} {
		if set, err := catalog.DecodeXattrs([]byte(bad)); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("DecodeXattrs(%q) = %v, %v, want ErrMalformed", bad, set, err)
		}
	}
	tooMany := make(map[string][]byte)
	for i := range 256 {
		tooMany[fmt.Sprint("user.", i)] = nil
	}
	for name, set := range map[string]map[string][]byte{
		"value of 256": {"user.x": make([]byte, 256)}, "key of 256": {strings.Repeat("k", 256): nil}, "no key": {"": nil}, "NUL": {"a\x00": nil}, "256 of them": tooMany,
	} {
		if _, err := catalog.EncodeXattrs(set); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("EncodeXattrs(%s) = %v, want ErrMalformed", name, err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	c := open(b, cvmfstest.Small(b), cvmfstest.RootHashes[3])
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := c.Lookup("/README"); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkMissing(b *testing.B) {
	c := open(b, cvmfstest.Small(b), cvmfstest.RootHashes[3])
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := c.Lookup("/no/such/file"); err != nil || ok {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	repo := cvmfstest.Small(b)
	h, _ := cvmfs.ParseHash(cvmfstest.RootHashes[3])
	file := repo.Object(b, h, cvmfs.SuffixCatalog)
	b.ReportAllocs()
	for b.Loop() {
		c, err := catalog.Open(file)
		if err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}
