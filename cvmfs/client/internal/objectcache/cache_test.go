package objectcache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

const repo = "cache.example.org"

// content is the i-th of a series of objects, with the name it has when stored
// as it is.
func content(i int) (cvmfs.Hash, []byte) {
	data := bytes.Repeat(fmt.Appendf(nil, "object %d\n", i), 1+i*37%5000)
	return cvmfs.SHA1.Sum(data), data
}

// put stores the i-th object.
func put(t testing.TB, c *Cache, i int) cvmfs.Hash {
	t.Helper()
	h, data := content(i)
	store(t, c, h, cvmfs.Plain, data)
	return h
}

func store(t testing.TB, c *Cache, h cvmfs.Hash, comp cvmfs.Compression, data []byte) {
	t.Helper()
	txn, err := c.Begin(h, comp, false)
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Abort()
	if _, err := txn.Write(data); err != nil {
		t.Fatal(err)
	}
	o, err := txn.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
}

func openCache(t testing.TB, dir string, opt Options) *Cache {
	t.Helper()
	opt.Name = repo
	c, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	return c
}

func has(c *Cache, h cvmfs.Hash) bool {
	o, err := c.Get(h, Expect{Size: -1, Compression: cvmfs.Plain})
	if err != nil {
		return false
	}
	_ = o.Close()
	return true
}

// A process that is killed while it writes leaves whole objects only, and the
// next one clears the rest away.
func TestKilledWriter(t *testing.T) {
	if dir := os.Getenv("OBJECTCACHE_WRITE"); dir != "" {
		c := openCache(t, dir, Options{})
		fmt.Println("writing")
		for i := 0; ; i++ {
			put(t, c, i)
		}
	}
	dir := t.TempDir()
	for round := range 3 {
		cmd := start(t, "TestKilledWriter", "writing\n", "OBJECTCACHE_WRITE="+dir)
		time.Sleep(time.Duration(30+17*round) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	c := openCache(t, dir, Options{})
	if c.epoch != 3 {
		t.Errorf("%d unclean ends were noticed, want 3", c.epoch)
	}
	found := 0
	for i := 0; ; i++ {
		h, data := content(i)
		o, err := c.Get(h, Expect{Size: int64(len(data)), Compression: cvmfs.Plain})
		if err != nil {
			break
		}
		got := make([]byte, len(data))
		if _, err := o.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("object %d has wrong content, %v", i, err)
		}
		_ = o.Close()
		found++
	}
	if found == 0 {
		t.Error("no object survived")
	}
	bad, err := filepath.Glob(filepath.Join(dir, quarantineDir, "*"))
	if err != nil || len(bad) > 0 {
		t.Errorf("incomplete objects had appeared: %v, %v", bad, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	// Leftovers go once they are old enough not to be somebody's.
	leftover := filepath.Join(dir, txnDir, "leftover")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c = openCache(t, dir, Options{Now: func() time.Time { return time.Now().Add(time.Minute) }})
	if c.epoch != 3 {
		t.Error("a clean end was taken for an unclean one")
	}
	for range 100 {
		if left, _ := filepath.Glob(filepath.Join(dir, txnDir, "*")); len(left) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, txnDir, "*")); len(left) > 0 {
		t.Errorf("left in %s: %v", txnDir, left)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestEvictionOrder(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	c := openCache(t, dir, Options{Now: func() time.Time { return now }})
	defer c.Close()
	var all []cvmfs.Hash
	for i := range 20 {
		h := put(t, c, i)
		all = append(all, h)
		old := now.Add(-time.Duration(40-i) * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, name(h)), old, old); err != nil {
			t.Fatal(err)
		}
	}
	pinned, used, open := all[0], all[1], all[2]
	if err := c.Pin(pinned); err != nil {
		t.Fatal(err)
	}
	if !has(c, used) { // which makes it the youngest
		t.Fatal("an object is missing")
	}
	o, err := c.Get(open, Expect{Size: -1, Compression: cvmfs.Plain})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	total, _ := c.Usage()
	if _, err := c.Evict(t.Context(), total/2); err != nil {
		t.Fatal(err)
	}
	if got, _ := c.Usage(); got > total/2 {
		t.Errorf("%d bytes left, want %d at most", got, total/2)
	}
	for what, h := range map[string]cvmfs.Hash{"pinned": pinned, "used": used, "open": open} {
		if _, err := os.Stat(filepath.Join(dir, name(h))); err != nil {
			t.Errorf("the %s object was evicted", what)
		}
	}
	gone := 0
	for _, h := range all[3:] { // what is gone is older than all that is left
		_, err := os.Stat(filepath.Join(dir, name(h)))
		switch {
		case err != nil && gone < 0:
			t.Errorf("object %s was evicted before an older one", h)
		case err != nil:
			gone++
		case gone > 0:
			gone = -1
		}
	}
	// Another process keeps the pins.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openCache(t, dir, Options{})
	if _, err := c.Evict(t.Context(), 0); err == nil {
		t.Error("evicting everything succeeded in spite of a pin")
	}
	if !has(c, pinned) || has(c, used) {
		t.Error("want the pinned object, and nothing else")
	}
}

func TestQuarantine(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, Options{})
	defer c.Close()
	h := put(t, c, 7)
	if _, err := c.Get(h, Expect{Size: 1, Compression: cvmfs.Plain}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of an object of another size: %v", err)
	}
	if has(c, h) {
		t.Error("an object of a wrong size stays")
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, quarantineDir, "*")); len(kept) != 1 {
		t.Errorf("in quarantine: %v, want the one", kept)
	}
}

func TestMemory(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{Memory: 100 << 10})
	defer c.Close()
	c.ReadOnly()
	h, data := content(3)
	write := func(h cvmfs.Hash, data []byte) (*Object, error) {
		txn, err := c.Begin(h, cvmfs.Plain, false)
		if err != nil {
			return nil, err
		}
		defer txn.Abort()
		if _, err := txn.Write(data); err != nil {
			return nil, err
		}
		return txn.Commit()
	}
	o, err := write(h, data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Get(h, Expect{Size: int64(len(data)), Compression: cvmfs.Plain})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := again.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) || !o.InMemory() {
		t.Errorf("content from memory: %v", err)
	}
	big, long := cvmfs.SHA1.Sum([]byte("big")), make([]byte, 200<<10)
	if _, err := write(big, long); !errors.Is(err, ErrFull) {
		t.Errorf("more than the memory takes: %v, want %v", err, ErrFull)
	}
	if used := c.memory.Load(); used != int64(len(data)) {
		t.Errorf("%d bytes in memory, want %d", used, len(data))
	}
	_, _ = o.Close(), again.Close()
	if used := c.memory.Load(); used != 0 {
		t.Errorf("%d bytes in memory after closing, want none", used)
	}
	if has(c, h) {
		t.Error("an object in memory outlives its users")
	}
}

// Compat: an original client holds the lock alone.
func TestForeignLock(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "lock."+repo))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(dir, Options{Name: repo}); err == nil {
		_ = c.Close()
		t.Error("the cache was opened although another client has it for itself")
	} else if !strings.Contains(err.Error(), "in use") {
		t.Errorf("Open: %v", err)
	}
}

func FuzzPins(f *testing.F) {
	f.Add([]byte("6dbbb8b9d178f811e278804874ca6efdf98f846a\nx\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n := len(parsePins(data)); n > bytes.Count(data, []byte("\n"))+1 {
			t.Errorf("%d pins in %d lines", n, bytes.Count(data, []byte("\n"))+1)
		}
	})
}
