package publish

import (
	"context"
	"fmt"
	"os"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// base is the revision a publication starts from, read while the source is
// walked: both go down the same directories.
type base struct {
	ctx  context.Context //nolint:containedctx // of the publication that walks it
	s    *repository
	dir  string // for inflated catalogues
	root *before
	at   *before // the catalogue the walk is in

	removed int64 // names the source does not have; what was below them is not counted
}

// before is one catalogue of the base revision.
type before struct {
	hash     cvmfs.Hash
	size     int64
	revision uint64
	total    catalog.Counters // of it and everything below
	ttl      string
	path     string
	catalog  *catalog.Catalog // nil once the walk has left it
	file     string
	nested   int // catalogues below it
}

// openBase opens the root catalogue of a revision; a zero hash is a base with
// nothing in it.
func openBase(ctx context.Context, s *repository, dir string, root cvmfs.Hash) (*base, error) {
	b := &base{ctx: ctx, s: s, dir: dir}
	if root.IsZero() {
		return b, nil
	}
	var err error
	b.root, err = b.open("", root)
	b.at = b.root
	return b, err
}

func (b *base) close() {
	if b.root != nil {
		b.root.close()
	}
}

func (b *base) open(path string, h cvmfs.Hash) (*before, error) {
	file, err := b.s.unpack(b.ctx, b.dir, h, cvmfs.SuffixCatalog)
	if err != nil {
		return nil, fmt.Errorf("reading catalogue of %q: %w", path, err)
	}
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	c, err := catalog.Open(file)
	if err != nil {
		_ = os.Remove(file)
		return nil, fmt.Errorf("catalogue %v of %q: %w", h, path, err)
	}
	o := &before{hash: h, size: fi.Size(), path: path, catalog: c, file: file}
	if err := o.describe(); err != nil {
		o.close()
		return nil, fmt.Errorf("catalogue %v of %q: %w", h, path, err)
	}
	return o, nil
}

func (o *before) describe() error {
	text, _, err := o.catalog.Property("revision")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(text, &o.revision); err != nil {
		return fmt.Errorf("revision %q: %w", text, cvmfs.ErrMalformed)
	}
	if o.ttl, _, err = o.catalog.Property("TTL"); err != nil {
		return err
	}
	self, subtree, err := o.catalog.ReadCounters()
	if err != nil {
		return err
	}
	o.total = self.Plus(subtree)
	nested, err := o.catalog.Nested()
	o.nested = len(nested)
	return err
}

func (o *before) close() {
	if o.catalog != nil {
		_ = o.catalog.Close()
		_ = os.Remove(o.file)
		o.catalog = nil
	}
}

// match finds a path in the catalogue the walk is in.
func (b *base) match(n *node, path string) error {
	if b.at == nil {
		return nil
	}
	e, found, err := b.at.catalog.Lookup(path)
	if err != nil || !found {
		return err
	}
	if path == "" {
		n.before = b.root
	}
	return b.take(n, path, e)
}

// take attaches an entry of the base to a node.
func (b *base) take(n *node, path string, e catalog.Entry) (err error) {
	n.was = &e
	if e.HasXattrs {
		if n.wasXattrs, err = b.at.catalog.Xattrs(path); err != nil {
			return err
		}
	}
	if e.IsChunked() {
		n.wasChunks, err = b.at.catalog.Chunks(path)
	}
	return err
}

// listing is one directory of the base.
type listing struct {
	b       *base
	path    string
	entries map[string]catalog.Entry
	back    *before // the catalogue to return to
	entered bool
}

// enter goes into a directory, and into the catalogue it is the root of.
func (b *base) enter(dir *node, path string) (*listing, error) {
	l := &listing{b: b, path: path, back: b.at}
	if b.at == nil || dir.was == nil || !dir.was.IsDir() {
		b.at = nil // nothing below is in the base
		return l, nil
	}
	if path != "" && dir.was.IsNestedMountpoint() {
		n, found, err := b.at.catalog.NestedFor(path)
		if err != nil {
			return l, err
		}
		if !found || n.Path != path {
			return l, fmt.Errorf("catalogue %v: %q has no nested catalogue: %w", b.at.hash, path, cvmfs.ErrMalformed)
		}
		if b.at, err = b.open(path, n.Hash); err != nil {
			b.at = l.back
			return l, err
		}
		l.entered = true
		dir.before = b.at
	}
	list, err := b.at.catalog.List(path)
	if err != nil {
		l.leave()
		return l, err
	}
	l.entries = make(map[string]catalog.Entry, len(list))
	for _, e := range list {
		l.entries[e.Name] = e
	}
	return l, nil
}

// match attaches the entry of the same name to a child.
func (l *listing) match(n *node, path string) error {
	e, found := l.entries[n.entry.Name]
	if !found {
		return nil
	}
	delete(l.entries, n.entry.Name)
	return l.b.take(n, path, e)
}

// rest looks at what the base had and the source has not.
func (l *listing) rest(dir *node) error {
	for name, e := range l.entries {
		w := &node{}
		if err := l.b.take(w, l.path+"/"+name, e); err != nil {
			return err
		}
		switch name {
		case markerName:
			dir.wasMarker = w
		case autoName:
			dir.wasAuto = w
		default:
			dir.gone = true
			l.b.removed++
		}
	}
	return nil
}

// leave goes back to the directory above.
func (l *listing) leave() {
	if l.entered {
		l.b.at.close()
	}
	l.b.at = l.back
}

// comparison attaches what the base revision has to a new tree.
type comparison struct {
	base   *base
	walked <-chan *node // the directories in the order of a walk as they are complete; nil if all are
	stored *contents    // where files go whose content may be new; nil if all is stored
}

func (c *comparison) tree(ctx context.Context, root *node) error {
	if err := c.base.match(root, ""); err != nil {
		return err
	}
	return c.below(ctx, root, "")
}

func (c *comparison) below(ctx context.Context, dir *node, path string) error {
	if c.walked != nil {
		select {
		case <-c.walked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	old, err := c.base.enter(dir, path)
	if err != nil {
		return err
	}
	defer old.leave()
	for _, n := range dir.children {
		sub := path + "/" + n.entry.Name
		if err := old.match(n, sub); err != nil {
			return err
		}
		switch {
		case n.dir():
			err = c.below(ctx, n, sub)
		case n.entry.IsRegular() && c.stored != nil:
			err = c.stored.add(ctx, n, sub)
		}
		if err != nil {
			return err
		}
	}
	return old.rest(dir)
}
