package client

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// StopWriting ends all writing to the cache's disk for good, so that its file
// system can be remounted read-only. Reading goes on.
func (r *Repository) StopWriting() { r.cache.ReadOnly() }

// CacheUsage returns the bytes of objects in the cache and its limit.
func (r *Repository) CacheUsage() (bytes, quota int64) { return r.cache.Usage() }

// SetCacheQuota changes the limit, in bytes; 0 means none. A lower one is
// enforced in the background, by this process alone.
func (r *Repository) SetCacheQuota(bytes int64) { r.cache.SetQuota(bytes) }

// PinnedBytes returns how many of these bytes stay, whatever the limit is.
func (r *Repository) PinnedBytes() int64 { return r.cache.Pinned() }

// EvictCache removes the objects that were not used for the longest time until
// at most target bytes are left.
func (r *Repository) EvictCache(ctx context.Context, target int64) error {
	_, err := r.cache.Evict(ctx, target)
	return err
}

// Cleanups returns how often this process has evicted objects within the last
// period, up to a thousand times.
func (r *Repository) Cleanups(period time.Duration) int { return r.cache.Cleanups(period) }

// Cached is an object in the cache.
type Cached struct {
	Hash   cvmfs.Hash
	Size   int64 // bytes of plain content
	Pinned bool  // it stays, whatever the limit is

	// Catalog is true of a catalogue that is open, or hangs below one that is, and
	// At is then where in the repository, "" for the root. The cache does not know
	// what the others are.
	Catalog bool
	At      string
}

// Cached returns the objects in the cache, those of other repositories that share
// it too, by hash.
func (r *Repository) Cached(ctx context.Context) ([]Cached, error) {
	catalogs, err := r.tree.Load().catalogs()
	if err != nil {
		return nil, err
	}
	listed, err := r.cache.List(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Cached, 0, len(listed))
	for _, o := range listed {
		at, is := catalogs[o.Hash]
		list = append(list, Cached{Hash: o.Hash, Size: o.Size, Pinned: o.Pinned, Catalog: is, At: at})
	}
	return list, nil
}

// catalogs returns where the catalogues belong that are open, and those that hang
// below them.
func (t *tree) catalogs() (map[cvmfs.Hash]string, error) {
	t.mu.Lock()
	var open []*attached
	for _, a := range t.byPath {
		t.use(a)
		open = append(open, a)
	}
	t.mu.Unlock()
	known := map[cvmfs.Hash]string{}
	var failed error
	for _, a := range open {
		known[a.hash] = a.at
		below, err := a.cat.Nested()
		failed = cmp.Or(failed, err)
		for _, n := range below {
			known[n.Hash] = a.base + n.Path
		}
		t.release(a)
	}
	return known, failed
}

// OpenCatalog is a catalogue in memory.
type OpenCatalog struct {
	At    string // its place in the repository, "" for the root
	Depth int    // how many of the open ones it hangs below
}

// OpenCatalogs returns the catalogues in memory, each behind those that it hangs
// below.
func (r *Repository) OpenCatalogs() []OpenCatalog {
	t := r.tree.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]OpenCatalog, 0, len(t.byPath))
	for at := range t.byPath {
		c := OpenCatalog{At: at}
		for up := at; up != ""; {
			up = parentOf(up)
			if t.byPath[up] != nil {
				c.Depth++
			}
		}
		list = append(list, c)
	}
	// By components: a name may have characters that sort before the slash.
	slices.SortFunc(list, func(a, b OpenCatalog) int {
		return slices.Compare(strings.Split(a.At, "/"), strings.Split(b.At, "/"))
	})
	return list
}
