package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
)

const defaultTTL = 240 * time.Second // of a root catalogue that names none

// tree is the catalogues of one revision. The root is always attached, the
// others when a path leads into them; those not used for the longest time are
// detached when there are too many.
type tree struct {
	r        *Repository
	root     *attached
	revision uint64
	ttl      time.Duration
	paths    *pathCache

	mu     sync.Mutex           // guards the following, and attached.uses and .last
	byPath map[string]*attached // by mountpoint
	clock  uint64               // counts uses, for the order of detaching
	dead   bool                 // another revision took over
}

// attached is an open catalogue in its place. Each can be found without the one
// above it, so that they come and go independently.
type attached struct {
	hash    cvmfs.Hash
	at      string // its mountpoint, a full path
	base    string // what to cut off a full path before asking the catalogue
	cat     *catalog.Catalog
	object  *objectcache.Object
	parents []cvmfs.Hash // from the root down

	uses int
	last uint64
}

// plant attaches the root catalogue of a revision.
func (r *Repository) plant(ctx context.Context, v revision) (*tree, error) {
	t := &tree{r: r, revision: v.revision, ttl: defaultTTL, paths: newPathCache(maxPaths), byPath: map[string]*attached{}}
	root, err := t.openCatalog(ctx, catalog.Nested{Hash: v.hash, Size: v.size}, "", "", nil)
	if err != nil {
		return nil, fmt.Errorf("loading the root catalogue: %w", err)
	}
	t.root = root
	t.root.uses = 1 // for good
	t.byPath[""] = root
	number := func(key string) (uint64, bool) {
		text, ok, err := root.cat.Property(key)
		n, numErr := strconv.ParseUint(text, 10, 63)
		return n, ok && err == nil && numErr == nil
	}
	if n, ok := number("TTL"); ok && n > 0 && n < 365*24*3600 {
		t.ttl = time.Duration(n) * time.Second //nolint:gosec // bounded just now
	}
	if n, ok := number("revision"); ok && t.revision == 0 {
		t.revision = n
	}
	return t, nil
}

// openCatalog fetches and opens one catalogue. A cached file that turns out to
// be no catalogue is thrown away and fetched once more; one that cannot be opened
// for other reasons, such as too many open files, stays.
func (t *tree) openCatalog(ctx context.Context, n catalog.Nested, at, base string, parents []cvmfs.Hash) (*attached, error) {
	if n.Hash.IsZero() {
		return nil, fmt.Errorf("catalogue at %q has no hash: %w", at, cvmfs.ErrMalformed)
	}
	if slices.Contains(parents, n.Hash) {
		return nil, fmt.Errorf("catalogue %s at %q contains itself: %w", n.Hash, at, cvmfs.ErrMalformed)
	}
	if n.Size > maxCatalogSize {
		return nil, fmt.Errorf("catalogue at %q has %d bytes, more than %d: %w", at, n.Size, maxCatalogSize, cvmfs.ErrMalformed)
	}
	w := want{hash: n.Hash, suffix: cvmfs.SuffixCatalog, size: knownSize(n.Size), limit: maxCatalogSize, path: at}
	for again := false; ; again = true {
		o, err := t.r.object(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("catalogue at %q: %w", at, err)
		}
		file, done, err := t.r.fileOf(o, n.Hash)
		if err != nil {
			_ = o.Close()
			return nil, fmt.Errorf("catalogue at %q: %w", at, err)
		}
		cat, err := catalog.Open(file)
		done()
		if err == nil {
			if err = checkPrefix(cat, n, at); err == nil {
				return &attached{
					hash: n.Hash, at: at, base: base, cat: cat, object: o,
					parents: append(slices.Clip(parents), n.Hash),
				}, nil
			}
			_ = cat.Close()
			again = true // its bytes are as they were published
		}
		_ = o.Close()
		if again || o.InMemory() || !errors.Is(err, cvmfs.ErrMalformed) {
			return nil, fmt.Errorf("catalogue %s at %q: %w", n.Hash, at, err)
		}
		t.r.cache.Discard(n.Hash, err)
	}
}

// checkPrefix makes sure that a catalogue is meant for its place.
func checkPrefix(cat *catalog.Catalog, n catalog.Nested, at string) error {
	prefix, _, err := cat.Property("root_prefix")
	if err != nil {
		return err
	}
	expected := n.Path
	if n.Bind {
		expected = ""
	}
	if prefix != expected {
		return fmt.Errorf("it is made for %q and hangs at %q: %w", prefix, at, cvmfs.ErrMalformed)
	}
	return nil
}

// close gives the tree up. Catalogues in use are closed when they are released.
func (t *tree) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return
	}
	t.dead = true
	t.root.uses--
	for _, a := range t.byPath {
		if a.uses == 0 {
			t.detach(a)
		}
	}
}

// detach is called with the lock held, for a catalogue that nobody uses.
func (t *tree) detach(a *attached) {
	delete(t.byPath, a.at)
	if err := a.cat.Close(); err != nil {
		t.r.log.Warn("closing a catalogue", "at", a.at, "err", err)
	}
	_ = a.object.Close()
}

func (t *tree) open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byPath)
}

func (t *tree) release(a *attached) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.uses--; a.uses == 0 && t.dead {
		t.detach(a)
	}
}

// acquire returns the deepest attached catalogue that covers dir.
func (t *tree) acquire(dir string) (*attached, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead && t.root.uses == 0 {
		return nil, os.ErrClosed
	}
	for at := dir; ; at = parentOf(at) {
		if a := t.byPath[at]; a != nil {
			t.use(a)
			return a, nil
		}
		if at == "" {
			return nil, os.ErrClosed
		}
	}
}

func (t *tree) use(a *attached) {
	a.uses++
	t.clock++
	a.last = t.clock
}

// enter adds a catalogue that was just opened, or returns the one another caller
// was faster with, in use either way.
func (t *tree) enter(a *attached) *attached {
	t.mu.Lock()
	defer t.mu.Unlock()
	if first := t.byPath[a.at]; first != nil {
		_ = a.cat.Close()
		_ = a.object.Close()
		t.use(first)
		return first
	}
	t.byPath[a.at] = a
	t.use(a)
	for len(t.byPath) > t.r.opt.MaxCatalogs {
		var oldest *attached
		for _, b := range t.byPath {
			if b.uses == 0 && (oldest == nil || b.last < oldest.last) {
				oldest = b
			}
		}
		if oldest == nil {
			break
		}
		t.detach(oldest)
	}
	return a
}

// DetachCatalogs closes the nested catalogues nobody uses at the moment, to free
// memory.
func (r *Repository) DetachCatalogs() { r.tree.Load().shed() }

func (t *tree) shed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.byPath {
		if a.uses == 0 {
			t.detach(a)
		}
	}
}

// covering finds the catalogue whose rows have dir as their parent directory,
// loading what hangs in between. Release it.
func (t *tree) covering(ctx context.Context, dir string) (*attached, error) {
	cur, err := t.acquire(dir)
	if err != nil {
		return nil, err
	}
	for {
		n, found, err := cur.cat.NestedFor(dir[len(cur.base):])
		if err != nil || !found {
			if err != nil {
				t.release(cur)
				return nil, err
			}
			return cur, nil
		}
		at := cur.base + n.Path
		if len(at) <= len(cur.at) || !strings.HasPrefix(at, cur.at) {
			t.release(cur)
			return nil, fmt.Errorf("catalogue at %q lists %q below it: %w", cur.at, at, cvmfs.ErrMalformed)
		}
		base := cur.base
		if n.Bind {
			base = at
		}
		next, err := t.openCatalog(ctx, n, at, base, cur.parents)
		t.release(cur)
		if err != nil {
			return nil, err
		}
		cur = t.enter(next)
	}
}

// retire leaves of the tree what [Repository.NamesBefore] needs.
func (t *tree) retire() {
	t.paths.clear()
	t.shed()
}

// within runs f on the catalogue that has the row of path. It tries again when
// the revision changed under its feet.
func (r *Repository) within(ctx context.Context, path string, f func(t *tree, a *attached, inner string) error) error {
	return r.in(ctx, parentOf(path), path, f)
}

// in runs f on the catalogue that has the rows below dir.
func (r *Repository) in(ctx context.Context, dir, path string, f func(t *tree, a *attached, inner string) error) error {
	for {
		t := r.tree.Load()
		a, err := t.covering(ctx, dir)
		if errors.Is(err, os.ErrClosed) && r.life.Err() == nil && r.tree.Load() != t {
			continue
		}
		if err != nil {
			return err
		}
		err = f(t, a, path[len(a.base):])
		t.release(a)
		return err
	}
}

// parentOf returns the directory of a path; the root is its own.
func parentOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return ""
}
