package objectcache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

// Txn is an object being written. Nobody sees it before Commit.
type Txn struct {
	c      *Cache
	hash   cvmfs.Hash
	comp   cvmfs.Compression
	f      *os.File
	name   string // in txn; empty if the object lives in memory
	size   int64
	sum    hash.Hash32
	ended  bool
	failed error // the first error of the disk
}

// Begin starts an object, on disk or, if inMemory or when the disk is read-only,
// in memory. comp is how its content came out of the bytes that have the hash.
func (c *Cache) Begin(h cvmfs.Hash, comp cvmfs.Compression, inMemory bool) (*Txn, error) {
	t := &Txn{c: c, hash: h, comp: comp, sum: crc32.New(castagnoli)}
	if !inMemory && !c.readOnly.Load() {
		c.writers.Add(1)
		if c.readOnly.Load() { // it became so just now, and may wait for us
			c.writers.Done()
			return c.Begin(h, comp, true)
		}
		if err := t.create(); err != nil {
			c.writers.Done()
			return nil, fmt.Errorf("starting object %s: %w", h, err)
		}
		return t, nil
	}
	fd, err := unix.MemfdCreate("mica-object", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("starting object %s in memory: %w: %w", h, ErrFull, err)
	}
	t.f = os.NewFile(uintptr(fd), "object "+h.String())
	return t, nil
}

func (t *Txn) create() error {
	for range 3 {
		t.name = rand.Text()
		f, err := t.c.folders.openFile(txnFolder, t.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		switch {
		case err == nil:
			// The lock tells others that the file has a writer. They remove old
			// ones without it.
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
				_ = f.Close()
				return err
			}
			t.f = f
			return nil
		case errors.Is(err, fs.ErrExist):
		case errors.Is(err, fs.ErrNotExist): // somebody cleared the cache
			if err := t.c.mkdir(txnDir); err != nil {
				return err
			}
		default:
			return err
		}
	}
	return fmt.Errorf("no name for a new file in %s: %w", txnDir, fs.ErrNotExist)
}

// Write implements io.Writer.
func (t *Txn) Write(p []byte) (int, error) {
	if t.name == "" {
		if used := t.c.memory.Add(int64(len(p))); used > t.c.opt.Memory {
			t.c.memory.Add(-int64(len(p)))
			return 0, ErrFull
		}
		t.size += int64(len(p))
	}
	n, err := t.f.Write(p)
	if t.name != "" {
		t.size += int64(n)
	}
	_, _ = t.sum.Write(p[:n]) // never fails
	if err != nil && t.failed == nil {
		t.failed = err
	}
	return n, err
}

// DiskFull reports whether the object failed because the disk takes no more.
func (t *Txn) DiskFull() bool { return t.name != "" && t.failed != nil && diskTrouble(t.failed) }

// Commit makes the object appear and returns it opened.
func (t *Txn) Commit() (*Object, error) {
	t.ended = true
	if t.name == "" {
		return t.c.adopt(t.hash, &shared{f: t.f, size: t.size, comp: t.comp, memory: true}), nil
	}
	defer t.c.writers.Done()
	// Not every file system has attributes. Without one the object is just not
	// checked after a crash.
	t.c.setRecord(t.f, record{sum: [4]byte(t.sum.Sum(nil)), comp: t.comp, epoch: t.c.epoch})
	if err := t.c.finish(t.name, t.hash); err != nil {
		t.failed = err
		t.drop()
		return nil, fmt.Errorf("storing object %s: %w", t.hash, err)
	}
	// A descriptor that can write would hold up a remount, so that the object is
	// opened again for readers.
	dir, base := place(t.hash)
	r, err := t.c.folders.openFile(dir, base, os.O_RDONLY)
	unlock(t.f)
	if err != nil {
		t.failed = err
		return nil, fmt.Errorf("opening object %s: %w", t.hash, err)
	}
	o := t.c.adopt(t.hash, &shared{f: r, size: t.size, comp: t.comp})
	t.c.stored(t.c.tally.add(onDisk(t.size)))
	return o, nil
}

// Abort drops the object unless it was committed.
func (t *Txn) Abort() {
	if t.ended {
		return
	}
	t.ended = true
	if t.name == "" {
		_ = t.f.Close()
		t.c.memory.Add(-t.size)
		return
	}
	t.drop()
	t.c.writers.Done()
}

// drop removes a file of txn; where it cannot, the next user of the cache does.
func (t *Txn) drop() {
	unlock(t.f)
	_ = t.c.folders.in(txnFolder, func(dir int) error { return unix.Unlinkat(dir, t.name, 0) })
}

// sweepTxn removes what killed writers left behind.
func (c *Cache) sweepTxn() {
	entries, err := fs.ReadDir(c.root.FS(), txnDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || c.opt.Now().Sub(info.ModTime()).Abs() < 10*time.Second || !info.Mode().IsRegular() {
			continue
		}
		f, err := c.root.Open(txnDir + "/" + e.Name())
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = c.root.Remove(txnDir + "/" + e.Name())
		}
		unlock(f)
	}
}
