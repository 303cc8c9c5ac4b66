package client_test

import (
	"context"
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

// use reads a file, or lists a directory.
func use(ctx context.Context, r *client.Repository, path string) error {
	if e, err := r.Lookup(ctx, path); err != nil || !e.IsDir() {
		_, readErr := fs.ReadFile(r.FS(), strings.TrimPrefix(path, "/"))
		return errors.Join(err, readErr)
	}
	_, err := r.ReadDir(ctx, path)
	return err
}

// What a catalogue says that hangs by hashes from what is trusted, and absurd:
// there is an error of the entry it is about, and everything else can be read.
func TestHostileCatalogue(t *testing.T) {
	repo := cvmfstest.Small(t)
	for name, h := range cvmfstest.HostileCatalogues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opt := options(t, "file://"+repo.Dir)
			opt.Pin.RootHash = repo.Hostile(t, h)
			r := open(t, opt)
			switch err := use(t.Context(), r, h.Path); {
			case err == nil, h.Err != nil && !errors.Is(err, h.Err):
				t.Errorf("error %v, want %v", err, h.Err)
			case errors.Is(err, fs.ErrNotExist):
				t.Errorf("error %v says that there is nothing", err)
			}
			if got, err := describePath(t.Context(), r, "/bin/tool"); err != nil {
				t.Errorf("another entry: %+v, %v", got, err)
			}
			if used, _ := r.CacheUsage(); used > 10<<20 {
				t.Errorf("%d bytes are in the cache", used)
			}
		})
	}
}

// What is absurd and does no harm is borne; what only one attribute is made of
// harms that alone.
func TestOddCatalogue(t *testing.T) {
	repo := cvmfstest.Small(t)
	stat := func(r *client.Repository) error {
		e, err := r.Lookup(t.Context(), "/README")
		_, _ = client.MTime(e).String(), client.Lineage("/README", e)
		return err
	}
	for name, test := range map[string]struct {
		change string
		use    func(*client.Repository) error
		want   error
	}{
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
			r := changed(t, repo, test.change)
			if err := test.use(r); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if got, err := describePath(t.Context(), r, "/bin/tool"); err != nil {
				t.Errorf("another entry: %+v, %v", got, err)
			}
		})
	}
}

// lifetime fails if the time to live is none that one could live with.
func lifetime(r *client.Repository) error {
	if d := r.TTL(); d < time.Second || d > 366*24*time.Hour {
		return fmt.Errorf("lifetime %v", d)
	}
	return nil
}
