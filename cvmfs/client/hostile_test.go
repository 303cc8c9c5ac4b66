package client_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

// changed opens the small repository with statements of SQL run on its root
// catalogue.
func changed(t *testing.T, repo cvmfstest.Repo, statements ...string) *client.Repository {
	t.Helper()
	opt := options(t, "file://"+repo.Dir)
	opt.Pin.RootHash = repo.Change(t, mustHash(t, smallRoots[3]), statements...)
	return open(t, opt)
}

// What a catalogue says that hangs by hashes from what is trusted, and absurd: there is an error of
// the entry it is about, and everything else can be read.
func TestHostileCatalogue(t *testing.T) {
	repo := cvmfstest.Small(t)
	reading := func(r *client.Repository) error {
		_, err := fs.ReadFile(r.FS(), "README")
		return err
	}
	chunked := func(r *client.Repository) error {
		_, err := fs.ReadFile(r.FS(), "big/chunked")
		return err
	}
	below := func(r *client.Repository) error {
		_, err := r.ReadDir(t.Context(), "/nested")
		return err
	}
	listing := func(r *client.Repository) error {
		_, err := r.ReadDir(t.Context(), "/")
		return err
	}
	stat := func(r *client.Repository) error {
		e, err := r.Lookup(t.Context(), "/README")
		_, _ = client.MTime(e).String(), client.Lineage("/README", e)
		return err
	}
	const twoChunks = "DELETE FROM chunks WHERE offset>0; "
	for name, test := range map[string]struct {
		change string
		use    func(*client.Repository) error
		want   error
	}{
		"a size of exabytes":            {"UPDATE catalog SET size=4611686018427387904 WHERE name='README'", reading, cvmfs.ErrCorrupt},
		"the largest size there is":     {"UPDATE catalog SET size=9223372036854775807 WHERE name='README'", reading, cvmfs.ErrCorrupt},
		"the same, stored plain":        {"UPDATE catalog SET size=9223372036854775807, flags=flags|(1<<11) WHERE name='README'", reading, cvmfs.ErrCorrupt},
		"a size too small":              {"UPDATE catalog SET size=1 WHERE name='README'", reading, cvmfs.ErrCorrupt},
		"another compression":           {"UPDATE catalog SET flags=flags|(1<<11) WHERE name='chunked'", chunked, cvmfs.ErrCorrupt},
		"no hash":                       {"UPDATE catalog SET hash=NULL WHERE name='README'", reading, cvmfs.ErrMalformed},
		"a hash of zeros":               {"UPDATE catalog SET hash=zeroblob(20) WHERE name='README'", reading, cvmfs.ErrMalformed},
		"chunked without chunks":        {"DELETE FROM chunks", chunked, cvmfs.ErrMalformed},
		"a gap between chunks":          {"DELETE FROM chunks WHERE rowid IN (SELECT chunks.rowid FROM chunks JOIN catalog USING (md5path_1, md5path_2) WHERE name='chunked' AND offset>0 LIMIT 1)", chunked, cvmfs.ErrMalformed},
		"chunks that overlap":           {"UPDATE chunks SET size=size+1 WHERE offset=0", chunked, cvmfs.ErrMalformed},
		"chunks beyond the end":         {"UPDATE catalog SET size=size-1 WHERE name='chunked'", chunked, cvmfs.ErrMalformed},
		"one chunk of exabytes":         {twoChunks + "UPDATE chunks SET size=9223372036854775807; UPDATE catalog SET size=9223372036854775807 WHERE name='chunked'", chunked, cvmfs.ErrCorrupt},
		"a catalogue of 10 GB":          {"UPDATE nested_catalogs SET size=10000000000 WHERE path='/nested'", below, cvmfs.ErrMalformed},
		"a catalogue in another place":  {"UPDATE nested_catalogs SET size=0, sha1=(SELECT sha1 FROM nested_catalogs WHERE path<>'/nested' LIMIT 1) WHERE path='/nested'", below, cvmfs.ErrMalformed},
		"a file as catalogue":           {"UPDATE nested_catalogs SET size=0, sha1=(SELECT lower(hex(hash)) FROM catalog WHERE name='README') || '-shake128' WHERE path='/nested'", below, errAny},
		"a catalogue without a hash":    {"UPDATE nested_catalogs SET sha1='' WHERE path='/nested'", below, cvmfs.ErrMalformed},
		"a name that leads up":          {"UPDATE catalog SET name='..' WHERE name='README'", listing, cvmfs.ErrMalformed},
		"a name with a slash":           {"UPDATE catalog SET name='a/b' WHERE name='README'", listing, cvmfs.ErrMalformed},
		"a name with a NUL":             {"UPDATE catalog SET name=CAST(x'610062' AS TEXT) WHERE name='README'", listing, cvmfs.ErrMalformed},
		"a directory that is a file":    {"UPDATE catalog SET mode=33188, flags=4 WHERE name='nested'", below, errAny},
		"damaged attributes":            {"UPDATE catalog SET xattr=x'01ff01' WHERE name='README'", func(r *client.Repository) error { _, err := r.Xattrs(t.Context(), "/README"); return err }, cvmfs.ErrMalformed},
		"a link of a million bytes":     {"UPDATE catalog SET mode=41471, flags=12, symlink=printf('%.*c', 1000000, 'x') WHERE name='README'", func(r *client.Repository) error { _, err := r.Readlink(t.Context(), "/README"); return err }, cvmfs.ErrMalformed},
		"a lifetime of 10000 years":     {"UPDATE properties SET value='315360000000' WHERE key='TTL'", lifetime, nil},
		"a lifetime of no time":         {"UPDATE properties SET value='0' WHERE key='TTL'", lifetime, nil},
		"a negative lifetime":           {"UPDATE properties SET value='-5' WHERE key='TTL'", lifetime, nil},
		"a time far ahead":              {"UPDATE catalog SET mtime=9223372036854775807 WHERE name='README'", stat, nil},
		"a group of four billion links": {"UPDATE catalog SET hardlinks=9223372036854775807 WHERE name='README'", stat, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := changed(t, repo, strings.Split(test.change, "; ")...)
			err := test.use(r)
			switch {
			case test.want == nil && err != nil, test.want == errAny && err == nil, //nolint:errorlint // the very value
				test.want != nil && test.want != errAny && !errors.Is(err, test.want): //nolint:errorlint // as above
				t.Errorf("error %v, want %v", err, test.want)
			case errors.Is(err, fs.ErrNotExist):
				t.Errorf("error %v says that there is nothing", err)
			}
			if got, err := describePath(t.Context(), r, "/bin/tool"); err != nil {
				t.Errorf("another entry: %+v, %v", got, err)
			}
		})
	}
}

var errAny = errors.New("any error")

// lifetime fails if the time to live is none that one could live with.
func lifetime(r *client.Repository) error {
	if d := r.TTL(); d < time.Second || d > 366*24*time.Hour {
		return fmt.Errorf("lifetime %v", d)
	}
	return nil
}
