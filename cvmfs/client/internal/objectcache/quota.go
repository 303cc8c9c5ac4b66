package objectcache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
)

const (
	block     = 4096
	keepFour  = 3 // after an eviction three quarters of the quota are in use
	pinsState = "pinned"
)

// onDisk is what a file of that size takes.
func onDisk(size int64) int64 { return (size + block - 1) / block * block }

func (c *Cache) wake() {
	select {
	case c.kick <- struct{}{}:
	default: // it is awake already
	}
}

// housekeeping counts what is there, and evicts when there is too much.
func (c *Cache) housekeeping(ctx context.Context) {
	if c.readOnly.Load() {
		return
	}
	c.sweepTxn()
	c.count(ctx)
	for {
		c.keepQuota(ctx)
		select {
		case <-c.kick:
		case <-ctx.Done():
			return
		}
	}
}

// stored is told of the bytes on disk after an object was added. Storing goes on
// while there is eviction in the background, until that is left behind.
func (c *Cache) stored(used int64) {
	switch quota := c.quota.Load(); {
	case quota <= 0 || used <= quota:
	case used > quota+quota/hardLimitOf:
		c.keepQuota(c.life)
	default:
		c.wake()
	}
}

// keepQuota evicts if there is more than the quota.
func (c *Cache) keepQuota(ctx context.Context) {
	quota := c.quota.Load()
	if quota <= 0 || c.tally.add(0) <= quota || time.Now().UnixNano()-c.vain.Load() < int64(vainFor) {
		return
	}
	really, done := c.alone(ctx.Done())
	defer done()
	if c.tally.all() <= quota { // as another has seen to meanwhile
		return
	}
	_, left, err := c.evict(ctx, really, func(int64) int64 { return quota / 4 * keepFour })
	if left > quota || !really {
		c.vain.Store(time.Now().UnixNano())
	}
	if err != nil && ctx.Err() == nil {
		c.opt.Log.Warn("evicting from the cache", "cache", c.dir, "err", err)
	}
}

// count finds out how much is there.
func (c *Cache) count(ctx context.Context) {
	really, done := c.alone(ctx.Done())
	defer done()
	var total int64
	before := c.tally.all()
	if err := c.walk(ctx, func(f file) { total += onDisk(f.size) }); err != nil {
		if ctx.Err() == nil {
			c.opt.Log.Warn("the cache cannot be counted", "cache", c.dir, "err", err)
		}
		return
	}
	c.counted(really, total, before)
}

// counted puts the tally right, which was before when the counting began. What was
// added meanwhile may count twice until the next time. Who was not alone leaves it
// to the other.
func (c *Cache) counted(really bool, total, before int64) {
	if really {
		c.tally.add(total - before)
		c.tally.all()
	}
}

// file is one object on disk.
type file struct {
	hash cvmfs.Hash
	size int64
	used time.Time
}

// walk calls f for each object on disk.
func (c *Cache) walk(ctx context.Context, f func(file)) error {
	for i := range 256 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		dir := fmt.Sprintf("%02x", i)
		entries, err := fs.ReadDir(c.root.FS(), dir)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return err
		}
		for _, e := range entries {
			h, err := cvmfs.ParseHash(dir + e.Name())
			if err != nil {
				continue
			}
			info, err := e.Info()
			if err != nil {
				continue
			}
			f(file{hash: h, size: info.Size(), used: info.ModTime()})
		}
	}
	return nil
}

// Evict removes objects, the longest unused first, until at most target bytes
// are left. Pinned objects and those in use here stay. It returns how many bytes
// it removed.
func (c *Cache) Evict(ctx context.Context, target int64) (int64, error) {
	return c.evictTo(ctx, func(int64) int64 { return target })
}

// MakeRoom is Evict for a disk that is full: it removes a quarter of what is there.
func (c *Cache) MakeRoom(ctx context.Context) (int64, error) {
	return c.evictTo(ctx, func(total int64) int64 { return total / 4 * keepFour })
}

func (c *Cache) evictTo(ctx context.Context, target func(total int64) int64) (int64, error) {
	if c.readOnly.Load() {
		return 0, fs.ErrPermission
	}
	really, done := c.alone(ctx.Done())
	defer done()
	freed, _, err := c.evict(ctx, really, target)
	return freed, err
}

// evict does the work of Evict, for who is alone, really or not. targetOf gets the
// bytes that were found; left is how many of them are still there.
func (c *Cache) evict(ctx context.Context, really bool, targetOf func(total int64) int64) (freed, left int64, err error) {
	var files []file
	var total int64
	before := c.tally.all()
	if err := c.walk(ctx, func(f file) {
		files = append(files, f)
		total += onDisk(f.size)
	}); err != nil {
		return 0, 0, err
	}
	c.counted(really, total, before)
	target := targetOf(total)
	if total <= target {
		return 0, total, nil
	}
	c.emptyQuarantine()
	keep := c.allPins()
	sort.Slice(files, func(i, j int) bool {
		a, b := files[i], files[j]
		return cmp.Or(a.used.Compare(b.used), bytes.Compare(a.hash.Digest[:], b.hash.Digest[:])) < 0
	})
	count := 0
	for _, f := range files {
		if total-freed <= target || ctx.Err() != nil {
			break
		}
		if _, pinned := keep[f.hash]; pinned || c.inUse(f.hash) {
			continue
		}
		if err := c.root.Remove(name(f.hash)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return freed, total - freed, err
		}
		c.tally.add(-onDisk(f.size))
		freed += onDisk(f.size)
		count++
	}
	c.tally.all()
	if count > 0 {
		c.cleaned()
	}
	c.opt.Log.Info("evicted objects", "cache", c.dir, "objects", count, "bytes", freed, "left", total-freed)
	if total-freed > target {
		return freed, total - freed, fmt.Errorf("%d bytes are pinned or in use, more than the wanted %d", total-freed, target)
	}
	return freed, total - freed, ctx.Err()
}

func (c *Cache) emptyQuarantine() {
	entries, err := fs.ReadDir(c.root.FS(), quarantineDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		_ = c.root.RemoveAll(quarantineDir + "/" + e.Name()) // the next eviction tries again
	}
}

func (c *Cache) inUse(h cvmfs.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[h] != nil
}

// Pin keeps objects from eviction, beyond the life of this process too.
func (c *Cache) Pin(hashes ...cvmfs.Hash) error {
	old, err := c.ReadState(pinsState)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := parsePins(old)
	c.mu.Lock()
	changed := false
	for _, h := range hashes {
		if _, known := all[h]; !known {
			changed = true
		}
		c.pinned[h] = struct{}{}
		all[h] = struct{}{}
	}
	c.mu.Unlock()
	if !changed {
		return nil
	}
	lines := make([]string, 0, len(all))
	for h := range all {
		lines = append(lines, h.String())
	}
	slices.Sort(lines)
	return c.WriteState(pinsState, []byte(strings.Join(lines, "\n")+"\n"), true)
}

func parsePins(data []byte) map[cvmfs.Hash]struct{} {
	pins := map[cvmfs.Hash]struct{}{}
	for line := range strings.Lines(string(data)) {
		if h, err := cvmfs.ParseHash(strings.TrimSpace(line)); err == nil {
			pins[h] = struct{}{}
		}
	}
	return pins
}

// Pinned counts the bytes on disk that no process that shares the cache may evict.
func (c *Cache) Pinned() int64 {
	total := int64(0)
	for h := range c.allPins() {
		if size, err := c.folders.size(place(h)); err == nil {
			total += onDisk(size)
		}
	}
	return total
}

// allPins is what no process that shares the cache may evict: pins, and the root
// catalogues of breadcrumbs, without which there is no offline start.
func (c *Cache) allPins() map[cvmfs.Hash]struct{} {
	keep := map[cvmfs.Hash]struct{}{}
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err == nil {
		for _, e := range entries {
			switch kind, _, _ := strings.Cut(e.Name(), "."); kind {
			case pinsState:
				data, _ := c.root.ReadFile(e.Name())
				for h := range parsePins(data) {
					keep[h] = struct{}{}
				}
			case "cvmfschecksum":
				data, _ := c.root.ReadFile(e.Name())
				text, _, _ := strings.Cut(string(data), "T")
				if h, err := cvmfs.ParseHash(text); err == nil {
					keep[h] = struct{}{}
				}
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for h := range c.pinned {
		keep[h] = struct{}{}
	}
	return keep
}
