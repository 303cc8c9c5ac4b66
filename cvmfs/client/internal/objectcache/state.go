package objectcache

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ReadState reads the state file of that kind; a missing one is fs.ErrNotExist.
func (c *Cache) ReadState(kind string) ([]byte, error) { return c.ReadShared(kind + "." + c.opt.Name) }

// ReadShared is ReadState for a file that all repositories share which are in the
// cache.
func (c *Cache) ReadShared(name string) ([]byte, error) {
	data, err := c.root.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s of the cache: %w", name, err)
	}
	return data, nil
}

// WriteState replaces a state file. A durable one is on the disk when WriteState
// returns; another may be lost, or empty, after a power cut.
func (c *Cache) WriteState(kind string, data []byte, durable bool) error {
	return c.WriteShared(kind+"."+c.opt.Name, data, durable)
}

// WriteShared is WriteState for a file that all repositories share which are in
// the cache.
func (c *Cache) WriteShared(name string, data []byte, durable bool) error {
	if c.readOnly.Load() {
		return fmt.Errorf("writing %s of the cache: %w", name, fs.ErrPermission)
	}
	c.writers.Add(1)
	defer c.writers.Done()
	if err := c.replace(name, data, durable); err != nil {
		return fmt.Errorf("writing %s of the cache: %w", name, err)
	}
	return nil
}

// replace gives a file in the cache another content.
func (c *Cache) replace(name string, data []byte, durable bool) error {
	f, temp, err := c.temporary()
	if err != nil {
		return err
	}
	defer unlock(f)
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if err == nil {
		err = c.root.Rename(temp, name)
	}
	if err != nil {
		_ = c.root.Remove(temp)
	}
	return err
}

// temporary makes a file that is removed by whoever opens the cache after its
// writer was killed, and not before: it is locked.
func (c *Cache) temporary() (f *os.File, name string, err error) {
	name = txnDir + "/" + rand.Text()
	if f, err = c.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, "", err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, "", err
	}
	return f, name, nil
}
