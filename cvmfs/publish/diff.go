package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// Change is a difference between two revisions.
type Change struct {
	Kind string // "added", "removed" or "changed"
	Path string
	From catalog.Entry // zero if added
	To   catalog.Entry // zero if removed
}

// Diff gives the differences from one revision to another to visit, in the
// order of paths. Subtrees whose catalogue is the same are passed over; what is
// below an added or removed directory is given too.
func Diff(ctx context.Context, root, name string, from, to cvmfs.Hash, visit func(Change) error) error {
	s, err := openStorage(root, name)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "mica-diff-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // temporary
	d := &differ{ctx: ctx, s: s, temp: temp, visit: visit}
	if err := d.catalogs(side{hash: from}, side{hash: to}, ""); err != nil {
		return fmt.Errorf("comparing revisions of %q: %w", name, err)
	}
	return nil
}

type differ struct {
	ctx   context.Context
	s     *repository
	temp  string
	visit func(Change) error
}

// side is one of the two trees at some directory: an open catalogue, one to
// open, or nothing there.
type side struct {
	hash    cvmfs.Hash
	catalog *catalog.Catalog
}

// enter opens the catalogue of a side that has one to open.
func (d *differ) enter(s side) (side, func(), error) {
	if s.catalog != nil || s.hash.IsZero() {
		return s, func() {}, nil
	}
	file, err := d.s.unpack(d.ctx, d.temp, s.hash, cvmfs.SuffixCatalog)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil, fmt.Errorf("catalogue %v: %w", s.hash, err)
	}
	if err != nil {
		return s, nil, err
	}
	c, err := catalog.Open(file)
	if err != nil {
		_ = os.Remove(file)
		return s, nil, err
	}
	return side{s.hash, c}, func() { _ = c.Close(); _ = os.Remove(file) }, nil
}

// catalogs compares the directory path of two catalogues.
func (d *differ) catalogs(a, b side, path string) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if a.catalog == nil && b.catalog == nil && a.hash == b.hash {
		return nil
	}
	a, leaveA, err := d.enter(a)
	if err != nil {
		return err
	}
	defer leaveA()
	b, leaveB, err := d.enter(b)
	if err != nil {
		return err
	}
	defer leaveB()
	if path == "" {
		if err := d.top(a, b); err != nil {
			return err
		}
	}
	return d.directory(a, b, path)
}

// top compares the root directories themselves.
func (d *differ) top(a, b side) error {
	if a.catalog == nil || b.catalog == nil {
		return nil
	}
	from, _, err := a.catalog.Lookup("")
	if err != nil {
		return err
	}
	to, _, err := b.catalog.Lookup("")
	if err != nil {
		return err
	}
	if alike(from, to) {
		return nil
	}
	return d.visit(Change{"changed", "/", from, to})
}

func (d *differ) directory(a, b side, path string) error {
	from, err := list(a, path)
	if err != nil {
		return err
	}
	to, err := list(b, path)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(from)+len(to))
	for name := range from {
		names = append(names, name)
	}
	for name := range to {
		if _, both := from[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := d.entry(a, b, path+"/"+name, from, to, name); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) entry(a, b side, path string, from, to map[string]catalog.Entry, name string) error {
	f, inFrom := from[name]
	t, inTo := to[name]
	change := Change{Path: path, From: f, To: t}
	switch {
	case !inTo:
		change.Kind = "removed"
	case !inFrom:
		change.Kind = "added"
	case !alike(f, t):
		change.Kind = "changed"
	default:
		same, err := sameDetails(a, b, path, f, t)
		if err != nil {
			return err
		}
		if !same {
			change.Kind = "changed"
		}
	}
	if change.Kind != "" {
		if err := d.visit(change); err != nil {
			return err
		}
	}
	below := func(s side, e catalog.Entry, there bool) (side, error) {
		if !there || !e.IsDir() || s.catalog == nil || e.IsBindMountpoint() {
			return side{}, nil
		}
		if !e.IsNestedMountpoint() {
			return s, nil
		}
		n, found, err := s.catalog.NestedFor(path)
		if err == nil && !found {
			err = fmt.Errorf("%q has no nested catalogue: %w", path, cvmfs.ErrMalformed)
		}
		return side{hash: n.Hash}, err
	}
	sa, err := below(a, f, inFrom)
	if err != nil {
		return err
	}
	sb, err := below(b, t, inTo)
	if err != nil {
		return err
	}
	if sa == (side{}) && sb == (side{}) {
		return nil
	}
	return d.catalogs(sa, sb, path)
}

func list(s side, path string) (map[string]catalog.Entry, error) {
	if s.catalog == nil {
		return nil, nil
	}
	entries, err := s.catalog.List(path)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]catalog.Entry, len(entries))
	for _, e := range entries {
		byName[e.Name] = e
	}
	return byName, nil
}

// alike reports whether two entries look the same to a user.
func alike(a, b catalog.Entry) bool {
	const aside = catalog.FlagNestedMountpoint | catalog.FlagNestedRoot
	a.RowID, a.HardlinkGroup, a.Flags = b.RowID, b.HardlinkGroup, a.Flags&^aside
	b.Flags &^= aside
	a.MTimeNS, b.MTimeNS = max(a.MTimeNS, 0), max(b.MTimeNS, 0)
	if a.IsDir() && b.IsDir() {
		a.Size = b.Size
	}
	return a == b
}

// sameDetails compares what is not in the entries.
func sameDetails(a, b side, path string, f, t catalog.Entry) (bool, error) {
	if f.HasXattrs {
		x, err := a.catalog.Xattrs(path)
		if err != nil {
			return false, err
		}
		y, err := b.catalog.Xattrs(path)
		if err != nil || !sameXattrs(x, y) {
			return false, err
		}
	}
	if f.IsChunked() && t.IsChunked() {
		x, err := a.catalog.Chunks(path)
		if err != nil {
			return false, err
		}
		y, err := b.catalog.Chunks(path)
		if err != nil || !slices.Equal(x, y) {
			return false, err
		}
	}
	return true, nil
}
