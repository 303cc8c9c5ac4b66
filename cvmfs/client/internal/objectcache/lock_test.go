package objectcache

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

// copyOf returns the descriptor that a program has of f between its fork and its
// exec.
func copyOf(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	c := os.NewFile(uintptr(fd), "copy")
	t.Cleanup(func() { c.Close() })
	return c
}

// free checks that another process could take the lock.
func free(t *testing.T, what, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("%s: the lock is still held: %v", what, err)
	}
}

// A lock is free when its user is done, also while a program is being started
// that has a copy of its descriptor.
func TestLocksDespiteACopy(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, "lock."+repo)
	for what, end := range map[string]func(*Cache) error{
		"Close":    (*Cache).Close,
		"ReadOnly": func(c *Cache) error { c.ReadOnly(); return nil },
	} {
		c, err := Open(dir, Options{Name: repo})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		copyOf(t, c.lock)
		if err := end(c); err != nil {
			t.Fatal(err)
		}
		free(t, what, lock)
	}
	// Where the mark of a running client cannot be made there is no lock either.
	if err := os.Mkdir(filepath.Join(dir, "running."+repo), 0o700); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(dir, Options{Name: repo}); err == nil {
		defer c.Close()
	}
	free(t, "failed Open", lock)
}

func TestTransactionsDespiteACopy(t *testing.T) {
	c := openCache(t, t.TempDir(), Options{})
	h, data := content(1)
	for what, end := range map[string]func(*Txn) error{
		"Abort": func(x *Txn) error { x.Abort(); return nil },
		"Commit": func(x *Txn) error {
			o, err := x.Commit()
			if err == nil {
				err = o.Close()
			}
			return err
		},
	} {
		x, err := c.Begin(h, cvmfs.Plain, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Write(data); err != nil {
			t.Fatal(err)
		}
		f := copyOf(t, x.f)
		if err := end(x); err != nil {
			t.Fatal(err)
		}
		free(t, what, fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	}
	if !has(c, h) {
		t.Error("the object that was committed is not there")
	}
}

// What a killed process has left in txn goes when the cache is opened the next
// time; what a living one is writing stays, however long that takes.
func TestSweepSparesTheLiving(t *testing.T) {
	dir := t.TempDir()
	living := openCache(t, dir, Options{})
	state, name, err := living.temporary()
	if err != nil {
		t.Fatal(err)
	}
	h, data := content(1)
	x, err := living.Begin(h, cvmfs.Plain, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Write(data); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, txnDir, "left")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	next := openCache(t, dir, Options{Now: func() time.Time { return time.Now().Add(time.Minute) }})
	next.stop()
	next.stopped.Wait() // it has swept
	if _, err := os.Stat(left); err == nil {
		t.Error("what nobody holds stays")
	}
	for what, file := range map[string]string{"state": filepath.Join(dir, name), "object": filepath.Join(dir, txnDir, x.name)} {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the %s that is being written: %v", what, err)
		}
	}
	if o, err := x.Commit(); err != nil {
		t.Error(err)
	} else if err := o.Close(); err != nil {
		t.Error(err)
	}
	unlock(state)
	next.sweepTxn()
	if list, err := os.ReadDir(filepath.Join(dir, txnDir)); err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}
