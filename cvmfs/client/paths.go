package client

import (
	"sync"

	"github.com/micavm/mica/cvmfs/catalog"
)

// maxPaths bounds the entries remembered, found and not found.
const maxPaths = 8192

// pathCache remembers entries by path in two generations: when the young one is
// full it becomes the old one, and what nobody asks for is forgotten with that.
type pathCache struct {
	half int

	mu         sync.Mutex // guards both
	young, old map[string]*catalog.Entry
}

func newPathCache(limit int) *pathCache {
	return &pathCache{half: limit / 2, young: map[string]*catalog.Entry{}}
}

// get returns what is known: nil with known true means that the path does not
// exist.
func (c *pathCache) get(path string) (e *catalog.Entry, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, known = c.young[path]; known {
		return e, true
	}
	if e, known = c.old[path]; known {
		c.add(path, e)
	}
	return e, known
}

func (c *pathCache) put(path string, e *catalog.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(path, e)
}

func (c *pathCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old = map[string]*catalog.Entry{}, nil
}

// add is called with the lock held.
func (c *pathCache) add(path string, e *catalog.Entry) {
	if len(c.young) >= c.half {
		c.old, c.young = c.young, make(map[string]*catalog.Entry, c.half/4)
	}
	c.young[path] = e
}
