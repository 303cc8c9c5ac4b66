package publish

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// writer turns the tree into catalogues, bottom up.
type writer struct {
	ctx     context.Context
	g       *staging
	ttl     time.Duration
	now     time.Time
	result  *Result
	report  func(Progress)
	count   int64
	rebuild bool // write every catalogue, changed or not
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
// keeps that of the revision before if nothing in it changed.
func (w *writer) catalogue(root *node, path string) (written, error) {
	if err := w.ctx.Err(); err != nil {
		return written{}, err
	}
	r := &region{dirty: w.rebuild || root.before == nil}
	if err := w.collect(r, root, path, true); err != nil {
		return written{}, err
	}
	if root.before != nil && root.before.nested != len(r.nested) {
		r.dirty = true
	}
	w.count++
	w.report(Progress{Phase: PhaseCatalogs, Done: w.count})
	w.result.Catalogs++
	if b := root.before; !r.dirty && (path != "" || w.sameTTL(b)) {
		return written{hash: b.hash, size: b.size, revision: b.revision, total: b.total, kept: true}, nil
	}
	out, err := w.write(r, root, path)
	if err != nil {
		return written{}, fmt.Errorf("writing catalogue of %q: %w", path, err)
	}
	w.result.NewCatalogs++
	return out, nil
}

func (w *writer) sameTTL(b *before) bool { return b.ttl == fmt.Sprint(int64(w.ttl/time.Second)) }

// collect gathers the entries of a catalogue and finds out whether they are
// those of the revision before.
func (w *writer) collect(r *region, n *node, path string, top bool) error {
	r.entries = append(r.entries, placed{path, n})
	if !n.same() || n.gone || !top && n.nested != (n.before != nil) {
		r.dirty = true
	}
	if !n.dir() {
		return nil
	}
	if n.nested && !top {
		out, err := w.catalogue(n, path)
		if err != nil {
			return err
		}
		r.nested = append(r.nested, catalog.Nested{Path: path, Hash: out.hash, Size: out.size})
		r.below = r.below.Plus(out.total)
		if !out.kept {
			r.dirty = true
		}
		return nil
	}
	if regrouped(n) {
		r.dirty = true
	}
	for _, c := range n.children {
		if err := w.collect(r, c, path+"/"+c.entry.Name, false); err != nil {
			return err
		}
	}
	return nil
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
func (w *writer) write(r *region, root *node, path string) (written, error) {
	if root.before != nil {
		return w.writeRevision(r, root, path, root.before.revision+1)
	}
	return w.writeRevision(r, root, path, 1)
}

func (w *writer) writeRevision(r *region, root *node, path string, revision uint64) (written, error) {
	file := filepath.Join(w.g.dir, "catalogue")
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
	out.hash, err = w.g.putFile(w.ctx, file, cvmfs.SuffixCatalog)
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
