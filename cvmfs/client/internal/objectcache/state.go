package objectcache

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
)

// ReadState reads the state file of that kind; a missing one is fs.ErrNotExist.
func (c *Cache) ReadState(kind string) ([]byte, error) {
	data, err := c.root.ReadFile(kind + "." + c.opt.Name)
	if err != nil {
		return nil, fmt.Errorf("reading %s of the cache: %w", kind, err)
	}
	return data, nil
}

// WriteState replaces a state file. A durable one is on the disk when WriteState
// returns; another may be lost, or empty, after a power cut.
func (c *Cache) WriteState(kind string, data []byte, durable bool) error {
	if c.readOnly.Load() {
		return fmt.Errorf("writing %s of the cache: %w", kind, fs.ErrPermission)
	}
	c.writers.Add(1)
	defer c.writers.Done()
	if err := c.replace(kind+"."+c.opt.Name, data, durable); err != nil {
		return fmt.Errorf("writing %s of the cache: %w", kind, err)
	}
	return nil
}

// replace gives a file in the cache another content.
func (c *Cache) replace(name string, data []byte, durable bool) error {
	temp := txnDir + "/" + rand.Text()
	f, err := c.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = c.root.Rename(temp, name)
	}
	if err != nil {
		_ = c.root.Remove(temp)
	}
	return err
}
