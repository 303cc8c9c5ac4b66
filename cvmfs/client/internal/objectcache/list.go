package objectcache

import (
	"context"
	"slices"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// Listed is an object on disk.
type Listed struct {
	Hash   cvmfs.Hash
	Size   int64 // bytes of plain content
	Pinned bool  // no process that shares the cache may evict it
}

// List returns the objects on disk, by hash.
func (c *Cache) List(ctx context.Context) ([]Listed, error) {
	keep := c.allPins()
	var list []Listed
	err := c.walk(ctx, func(f file) {
		_, pinned := keep[f.hash]
		list = append(list, Listed{Hash: f.hash, Size: f.size, Pinned: pinned})
	})
	return list, err
}

// SetQuota changes the limit on the bytes of objects, 0 for none. A lower one is
// enforced in the background.
func (c *Cache) SetQuota(bytes int64) {
	c.quota.Store(bytes)
	c.wake()
}

// maxCleanups bounds how many evictions are remembered.
const maxCleanups = 1024

// cleaned remembers an eviction.
func (c *Cache) cleaned() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.cleanups) == maxCleanups {
		c.cleanups = slices.Delete(c.cleanups, 0, maxCleanups/2)
	}
	c.cleanups = append(c.cleanups, c.opt.Now())
}

// Cleanups returns how many evictions this process has made within the last
// period, as far as it remembers.
func (c *Cache) Cleanups(period time.Duration) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := c.opt.Now().Add(-period)
	n := 0
	for _, at := range c.cleanups {
		if at.After(since) {
			n++
		}
	}
	return n
}
