package publish

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// writer turns the tree into catalogues, bottom up, several side by side.
type writer struct {
	g     *staging
	ttl   time.Duration
	now   time.Time
	slots chan struct{} // one for each catalogue that may be in work at a time

	mu     sync.Mutex // guards the following, and the order of reports
	result *Result
	report func(Progress)
	count  int64
}

// newWriter lets as many catalogues be in work at a time as there are workers; 0
// means one a processor.
func newWriter(g *staging, workers int, ttl time.Duration, now time.Time, result *Result, report func(Progress)) *writer {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &writer{g: g, ttl: ttl, now: now, slots: make(chan struct{}, workers), result: result, report: report}
}

// written is a catalogue of the new revision.
type written struct {
	hash     cvmfs.Hash
	size     int64
	revision uint64
	total    catalog.Counters // of it and everything below
	kept     bool             // it is that of the revision before
}

// region is what one catalogue covers while it is put together.
type region struct {
	under   []written // the catalogues of the nested roots in the order of a walk, those not come by yet
	nested  []catalog.Nested
	below   catalog.Counters
	dirty   bool
	entries []placed
}

type placed struct {
	path string
	n    *node
}

// catalogue writes the catalogue of the directory root and all below it, or
// keeps that of the revision before if nothing in it changed. Those of the nested
// roots come first, as their hashes are in it; the entries of a catalogue are
// gathered when its turn comes, so that few are in memory at a time.
func (w *writer) catalogue(ctx context.Context, root *node, path string) (written, error) {
	roots := nestedRoots(nil, root, path)
	r := &region{dirty: root.before == nil, under: make([]written, len(roots))}
	group, below := errgroup.WithContext(ctx)
	for i, p := range roots {
		group.Go(func() (err error) {
			r.under[i], err = w.catalogue(below, p.n, p.path)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return written{}, err
	}
	if err := send(ctx, w.slots, struct{}{}); err != nil {
		return written{}, err
	}
	defer func() { <-w.slots }()
	r.collect(root, path, true)
	if root.before != nil && root.before.nested != len(r.nested) {
		r.dirty = true
	}
	if b := root.before; !r.dirty && (path != "" || w.sameTTL(b)) {
		w.done(false)
		return written{hash: b.hash, size: b.size, revision: b.revision, total: b.total, kept: true}, nil
	}
	out, err := w.write(ctx, r, root, path)
	if err != nil {
		return written{}, fmt.Errorf("writing catalogue of %q: %w", path, err)
	}
	w.done(true)
	return out, nil
}

// done counts a catalogue.
func (w *writer) done(anew bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	w.result.Catalogs++
	if anew {
		w.result.NewCatalogs++
	}
	w.report(Progress{Phase: PhaseCatalogs, Done: w.count})
}

// nestedRoots adds the roots of the catalogues right below that of a directory to
// list, in the order of a walk.
func nestedRoots(list []placed, dir *node, path string) []placed {
	for _, c := range dir.children {
		switch sub := path + "/" + c.entry.Name; {
		case !c.dir():
		case c.nested:
			list = append(list, placed{sub, c})
		default:
			list = nestedRoots(list, c, sub)
		}
	}
	return list
}

func (w *writer) sameTTL(b *before) bool { return b.ttl == fmt.Sprint(int64(w.ttl/time.Second)) }

// collect gathers the entries of a catalogue and finds out whether they are
// those of the revision before.
func (r *region) collect(n *node, path string, top bool) {
	r.entries = append(r.entries, placed{path, n})
	if !n.same() || n.gone || !top && n.nested != (n.before != nil) {
		r.dirty = true
	}
	if !n.dir() {
		return
	}
	if n.nested && !top {
		out := r.under[0]
		r.under = r.under[1:]
		r.nested = append(r.nested, catalog.Nested{Path: path, Hash: out.hash, Size: out.size})
		r.below = r.below.Plus(out.total)
		if !out.kept {
			r.dirty = true
		}
		return
	}
	if regrouped(n) {
		r.dirty = true
	}
	for _, c := range n.children {
		r.collect(c, path+"/"+c.entry.Name, false)
	}
}

// same reports whether the row of n would be the one of the revision before,
// leaving aside what it means for catalogues.
func (n *node) same() bool {
	if n.was == nil {
		return false
	}
	const aside = catalog.FlagNestedMountpoint | catalog.FlagNestedRoot
	a, b := n.entry, *n.was
	if a.IsChunked() != b.IsChunked() || a.IsExternal() != b.IsExternal() || b.Flags&(catalog.FlagBindMountpoint|catalog.FlagHidden|catalog.FlagDirectIO) != 0 {
		return false
	}
	if (a.HardlinkGroup != 0) != (b.HardlinkGroup != 0) {
		return false
	}
	a.RowID, a.HardlinkGroup, a.Flags = b.RowID, b.HardlinkGroup, b.Flags&^aside
	b.Flags &^= aside
	if a.IsDir() {
		a.Size = b.Size // Compat: the original records the directory's own size, which says nothing
	}
	if a != b || !sameXattrs(n.xattrs, n.wasXattrs) || len(n.chunks) != len(n.wasChunks) {
		return false
	}
	for i := range n.chunks {
		if n.chunks[i] != n.wasChunks[i] {
			return false
		}
	}
	return true
}

// regrouped reports whether the hard links within a directory are others than
// before, although each entry looks the same.
func regrouped(dir *node) bool {
	to, from := make(map[uint32]uint32), make(map[uint32]uint32)
	for _, c := range dir.children {
		if c.was == nil || c.entry.HardlinkGroup == 0 {
			continue
		}
		now, then := c.entry.HardlinkGroup, c.was.HardlinkGroup
		if old, seen := to[now]; seen && old != then {
			return true
		}
		if old, seen := from[then]; seen && old != now {
			return true
		}
		to[now], from[then] = then, now
	}
	return false
}

// write makes the successor of the catalogue a directory had, or its first.
func (w *writer) write(ctx context.Context, r *region, root *node, path string) (written, error) {
	if root.before != nil {
		return w.writeRevision(ctx, r, root, path, root.before.revision+1)
	}
	return w.writeRevision(ctx, r, root, path, 1)
}

func (w *writer) writeRevision(ctx context.Context, r *region, root *node, path string, revision uint64) (written, error) {
	file := w.g.temporary("catalogue")
	b, err := catalog.Create(file)
	if err != nil {
		return written{}, err
	}
	if err := fill(b, r, path); err != nil {
		b.Discard()
		return written{}, err
	}
	p := catalog.Properties{RootPrefix: path, Revision: revision, FirstNested: path != "", LastModified: w.now}
	if root.before != nil {
		p.Previous = root.before.hash
	}
	if path == "" {
		p.TTL = w.ttl
	}
	out := written{revision: p.Revision, total: b.Self().Plus(r.below)}
	if err := b.Finish(p, r.below); err != nil {
		return written{}, err
	}
	defer os.Remove(file) //nolint:errcheck // it lies in the staging area
	fi, err := os.Stat(file)
	if err != nil {
		return written{}, err
	}
	out.size = fi.Size()
	out.hash, err = w.g.putFile(ctx, file, cvmfs.SuffixCatalog)
	return out, err
}

// fill adds the entries. Groups of hard links are numbered through the
// catalogue in the order they come.
func fill(b *catalog.Builder, r *region, top string) error {
	groups := uint32(0)
	numbers := make(map[groupKey]uint32)
	for _, p := range r.entries {
		e := p.n.entry
		e.Flags &= catalog.FlagChunked | catalog.FlagExternal
		if p.n.nested {
			if p.path == top {
				e.Flags |= catalog.FlagNestedRoot
			} else {
				e.Flags |= catalog.FlagNestedMountpoint
			}
		}
		if e.HardlinkGroup != 0 {
			key := groupKey{filepath.Dir(p.path), e.HardlinkGroup}
			if numbers[key] == 0 {
				groups++
				numbers[key] = groups
			}
			e.HardlinkGroup = numbers[key]
		}
		if err := b.Add(p.path, e, p.n.xattrs, p.n.chunks); err != nil {
			return err
		}
	}
	for _, n := range r.nested {
		if err := b.AddNested(n); err != nil {
			return err
		}
	}
	return nil
}

type groupKey struct {
	dir   string
	group uint32
}
