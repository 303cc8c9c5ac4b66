package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// copier copies the objects of revisions, several at a time. What it keeps to
// is this: a catalogue that is in the replica has everything below it there too.
type copier struct {
	r     *replicator
	stage storage.Stage
	done  map[cvmfs.Hash]bool // catalogues that are here, or are pending

	// pending are catalogues that have come, which are stored once what they
	// refer to is.
	pending []pending

	group *errgroup.Group
	ctx   context.Context //nolint:containedctx // of group
	stop  context.CancelFunc

	mu     sync.Mutex      // guards the following
	queued map[string]bool // since the last flush
	bytes  int64           // staged since then
	copied int64           // objects, altogether
	faults []string        // what the source does not have, or has damaged
	broken int64           // how many
}

type pending struct {
	depth int // of nesting: deeper ones are stored first
	path  string
	file  string
	size  int64
}

// Limits of what is staged before it is given its names.
const (
	flushBytes   = 256 << 20
	flushObjects = 20000
	maxFaults    = 20 // that are named
)

func newCopier(r *replicator, stage storage.Stage) *copier {
	c := &copier{r: r, stage: stage, done: make(map[cvmfs.Hash]bool)}
	c.begin()
	return c
}

func (c *copier) begin() {
	workers := c.r.o.Workers
	if workers <= 0 {
		workers = 16 // what a client has, too
	}
	ctx, stop := context.WithCancel(c.r.ctx)
	c.stop = stop
	c.group, c.ctx = errgroup.WithContext(ctx)
	c.group.SetLimit(workers)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queued, c.bytes = make(map[string]bool), 0
}

// end stops what is still on its way.
func (c *copier) end() {
	c.stop()
	_ = c.group.Wait() // its failure has been reported, or is that it was stopped
}

// job is an object to copy.
type job struct {
	hash   cvmfs.Hash
	suffix cvmfs.Suffix
	limit  int64  // of its stored size
	where  string // what it is for
}

// storedLimit bounds the stored form of an object of a plain size: a longer one
// is no honest encoding, whatever its hash.
func storedLimit(c cvmfs.Compression, size int64) int64 {
	if c == cvmfs.Zlib {
		return 2*size + 64<<10
	}
	return size
}

// queue has an object copied, unless it is here.
func (c *copier) queue(j job) {
	path := j.hash.ObjectPath(j.suffix)
	c.mu.Lock()
	known := c.queued[path]
	c.queued[path] = true
	c.mu.Unlock()
	if known {
		return
	}
	c.group.Go(func() error {
		here, err := c.here(path)
		if err != nil || here {
			return err
		}
		file, size, err := c.fetch(c.ctx, j)
		if err != nil {
			return c.fault(path, j.where, err)
		}
		if err := c.stage.Add(c.ctx, path, file); err != nil {
			return err
		}
		c.count(size)
		return nil
	})
}

func (c *copier) here(path string) (bool, error) {
	_, err := c.r.s.store.Stat(c.r.ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (c *copier) count(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += size
	c.copied++
	c.r.result.Objects++
	c.r.result.Bytes += size
	if c.copied%64 == 0 {
		c.r.o.Progress(Progress{Phase: PhaseCopy, Done: c.copied})
	}
}

// fault remembers what the source does not have, and lets the rest be copied; any
// other error is passed on.
func (c *copier) fault(path, where string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, cvmfs.ErrCorrupt) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken++
	if len(c.faults) < maxFaults {
		what := "is missing"
		if errors.Is(err, cvmfs.ErrCorrupt) {
			what = "is damaged"
		}
		c.faults = append(c.faults, fmt.Sprintf("object %s, of %q, %s", path, where, what))
	}
	return nil
}

// incomplete is the error about all that is missing, or nil.
func (c *copier) incomplete() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == 0 {
		return nil
	}
	slices.Sort(c.faults)
	more := ""
	if n := c.broken - int64(len(c.faults)); n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	return fmt.Errorf("%w: %s%s", ErrIncomplete, strings.Join(c.faults, "; "), more)
}

// fetch gets the stored form of an object into a file of the staging area and
// verifies it.
func (c *copier) fetch(ctx context.Context, j job) (file string, size int64, err error) {
	f, err := c.stage.Create()
	if err != nil {
		return "", 0, err
	}
	err = get(ctx, c.r.from, j.hash.ObjectPath(j.suffix), func(r io.Reader) error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
		sum := j.hash.Algorithm.New()
		n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(r, j.limit+1))
		if err != nil {
			return err
		}
		if got := cvmfs.NewHash(j.hash.Algorithm, sum); n > j.limit || got != j.hash {
			return fmt.Errorf("object %s: %w: %d bytes of hash %s", j.hash, cvmfs.ErrCorrupt, n, got)
		}
		size = n
		return nil
	})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		removeQuietly(f.Name())
		return "", 0, err
	}
	return f.Name(), size, nil
}

// removeQuietly removes a temporary file, which lies where all will go anyway.
func removeQuietly(file string) { _ = os.Remove(file) }

// revision copies a root catalogue with all below, and some of those before it,
// as far as the source has kept them.
func (c *copier) revision(root cvmfs.Hash, before int) error {
	if err := c.catalogue(root, "", 0, c.r.head.m.RootSize); err != nil {
		return err
	}
	for at := root; before > 0; before-- {
		previous, err := c.previous(at)
		if err != nil || previous.IsZero() {
			return err
		}
		here, err := c.here(previous.ObjectPath(cvmfs.SuffixCatalog))
		if err != nil {
			return err
		}
		if !here {
			err := once(c.r.ctx, c.r.from, previous.ObjectPath(cvmfs.SuffixCatalog), func(io.Reader) error { return nil })
			if errors.Is(err, fs.ErrNotExist) {
				return nil // garbage collection ends the chain here
			}
		}
		if err := c.catalogue(previous, "", 0, 0); err != nil {
			return err
		}
		at = previous
	}
	return nil
}

// previous returns the root catalogue before one. The replica may not have it
// yet, the source does.
func (c *copier) previous(at cvmfs.Hash) (cvmfs.Hash, error) {
	file, err := unpackFrom(c.r.ctx, c.r.from, c.stage.Dir(), at, cvmfs.SuffixCatalog)
	if errors.Is(err, fs.ErrNotExist) {
		return cvmfs.Hash{}, nil // it has been reported
	}
	if err != nil {
		return cvmfs.Hash{}, err
	}
	defer removeQuietly(file)
	previous, _, err := predecessor(file)
	return previous, err
}

// catalogue copies a catalogue after everything it refers to.
func (c *copier) catalogue(h cvmfs.Hash, path string, depth int, plain int64) error {
	if err := c.r.ctx.Err(); err != nil {
		return err
	}
	if c.done[h] {
		return nil
	}
	c.done[h] = true
	object := h.ObjectPath(cvmfs.SuffixCatalog)
	here, err := c.here(object)
	if err != nil || here && !c.r.o.Recheck {
		return err
	}
	limit := int64(maxDatabase)
	if plain > 0 {
		limit = storedLimit(cvmfs.Zlib, plain)
	}
	file, size, err := c.fetch(c.r.ctx, job{hash: h, suffix: cvmfs.SuffixCatalog, limit: limit})
	if err != nil {
		return c.fault(object, path+"/", err)
	}
	nested, err := c.contents(file, h, path)
	if err != nil {
		removeQuietly(file)
		return fmt.Errorf("catalogue %v of %q: %w", h, path, err)
	}
	for _, n := range nested {
		below := n.Path
		if n.Bind {
			below = ""
		}
		if err := c.catalogue(n.Hash, below, depth+1, n.Size); err != nil {
			return err
		}
	}
	if here {
		removeQuietly(file)
	} else {
		c.pending = append(c.pending, pending{depth, object, file, size})
	}
	c.mu.Lock()
	full := c.bytes >= flushBytes || len(c.queued) >= flushObjects
	c.mu.Unlock()
	if full {
		return c.flush()
	}
	return nil
}

// contents queues the objects of a catalogue and returns those below it.
func (c *copier) contents(file string, h cvmfs.Hash, path string) ([]catalog.Nested, error) {
	plain, err := unpackFrom(c.r.ctx, local(file), c.stage.Dir(), h, cvmfs.SuffixCatalog)
	if err != nil {
		return nil, err
	}
	defer removeQuietly(plain)
	cat, err := catalog.Open(plain)
	if err != nil {
		return nil, err
	}
	defer cat.Close() //nolint:errcheck // read only
	if h == c.r.head.m.RootHash {
		if err := c.r.noteExternal(cat); err != nil {
			return nil, err
		}
	}
	err = cat.Objects(func(o catalog.Object) error {
		if !o.External {
			c.queue(job{o.Hash, o.Suffix, storedLimit(o.Compression, o.Size), path + "/"})
		}
		return c.ctx.Err()
	})
	if err != nil {
		if werr := c.group.Wait(); werr != nil {
			err = werr // why the context has ended
		}
		return nil, err
	}
	return cat.Nested()
}

// local is a source of one file, whatever it is asked for.
type local string

func (l local) String() string { return string(l) }

func (l local) Open(context.Context, string) (io.ReadCloser, error) {
	f, err := os.Open(string(l))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// flush gives names to what has come: objects first, then catalogues, the deepest
// first. If the source has turned out to lack something, no catalogue is stored.
func (c *copier) flush() error {
	if err := c.group.Wait(); err != nil {
		return err
	}
	if err := c.stage.Commit(c.r.ctx); err != nil {
		return err
	}
	slices.SortStableFunc(c.pending, func(a, b pending) int { return cmp.Compare(b.depth, a.depth) })
	for i, p := range c.pending {
		if c.broken > 0 {
			removeQuietly(p.file)
			continue
		}
		if i > 0 && p.depth != c.pending[i-1].depth {
			if err := c.stage.Commit(c.r.ctx); err != nil {
				return err
			}
		}
		if err := c.stage.Add(c.r.ctx, p.path, p.file); err != nil {
			return err
		}
		c.r.result.Catalogs++
		c.count(p.size)
	}
	c.pending = nil
	if err := c.stage.Commit(c.r.ctx); err != nil {
		return err
	}
	c.stop()
	c.begin()
	return nil
}
