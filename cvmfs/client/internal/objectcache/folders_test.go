package objectcache

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/micavm/mica/cvmfs"
)

// Whoever clears the cache under us, or puts other folders in the place of ours,
// finds the next objects where they belong, and we find those of others.
func TestFoldersReplaced(t *testing.T) {
	for what, take := range map[string]func(string) error{
		"removed": os.RemoveAll,
		"moved":   func(name string) error { return os.Rename(name, name+".old") },
	} {
		for _, anew := range []bool{false, true} {
			dir := t.TempDir()
			c := openCache(t, dir, Options{})
			defer c.Close()
			h := put(t, c, 1)
			for _, name := range []string{txnDir, name(h)[:2]} {
				name = filepath.Join(dir, name)
				if err := take(name); err != nil {
					t.Fatal(err)
				}
				if anew {
					if err := os.Mkdir(name, 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			if what == "removed" && (has(c, h) || c.Has(h)) {
				t.Errorf("%s: has an object that is gone", what)
			}
			other, _ := content(2)
			other.Digest[0] = h.Digest[0]
			if c.Has(other) {
				t.Errorf("%s: has an object that never was", what)
			}
			put(t, c, 1)
			if !has(c, h) || !c.Has(h) {
				t.Errorf("%s: a new object is not found", what)
			}
			if _, err := os.Stat(c.Path(h)); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// A folder that leads out of the cache is not followed.
func TestFolderLeadsOut(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	c := openCache(t, dir, Options{})
	defer c.Close()
	h, data := content(1)
	folder := filepath.Join(dir, name(h)[:2])
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, folder); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, name(h)[3:]), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if has(c, h) || c.Has(h) {
		t.Error("found an object outside the cache")
	}
	txn, err := c.Begin(h, cvmfs.Plain, false)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := txn.Commit(); err == nil {
		_ = o.Close()
		t.Error("stored an object outside the cache")
	}
}

// Folders that come and go while many use them cost objects, but no call meets
// the descriptor of another file.
func TestFoldersReplacedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, Options{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				h, data := content(w*200 + i)
				if txn, err := c.Begin(h, cvmfs.Plain, false); err == nil {
					_, _ = txn.Write(data)
					if o, err := txn.Commit(); err == nil {
						_ = o.Close()
					}
				}
				if o, err := c.Get(h, Expect{Size: int64(len(data)), Compression: cvmfs.Plain}); err == nil {
					got := make([]byte, len(data))
					if _, err := o.ReadAt(got, 0); err != nil || string(got) != string(data) {
						t.Errorf("object %d has wrong content: %v", w*200+i, err)
					}
					_ = o.Close()
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			list, _ := os.ReadDir(dir)
			for _, e := range list {
				if e.IsDir() {
					_ = os.RemoveAll(filepath.Join(dir, e.Name()))
				}
			}
		}
	})
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c.Has(cvmfs.SHA1.Sum(nil)) {
		t.Error("a closed cache finds objects")
	}
}
