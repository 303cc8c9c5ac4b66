package client

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// clean brings a path into the form of the format: "" for the root, else a
// leading slash and no other decoration.
func clean(p string) string {
	if p == "" || p == "/" {
		return ""
	}
	p = path.Clean("/" + p)
	if p == "/" {
		return ""
	}
	return p
}

// Lookup returns the entry at a path: "" or "/" is the root of the repository.
// A path that is not there gives an error wrapping fs.ErrNotExist, a transition
// point the row of the upper catalogue. The Size of a symbolic link is that of
// its target with variables replaced, while Symlink holds the raw target.
func (r *Repository) Lookup(ctx context.Context, p string) (catalog.Entry, error) {
	e, err := r.lookup(ctx, clean(p))
	if err != nil {
		return catalog.Entry{}, err
	}
	return *e, nil
}

// lookup works on a clean path. The entry is shared and must not be changed.
func (r *Repository) lookup(ctx context.Context, p string) (*catalog.Entry, error) {
	absent := func() error { return &fs.PathError{Op: "lookup", Path: display(p), Err: fs.ErrNotExist} }
	if e, known := r.tree.Load().paths.get(p); known {
		if e == nil {
			return nil, absent()
		}
		return e, nil
	}
	var found *catalog.Entry
	err := r.within(ctx, p, func(t *tree, a *attached, inner string) error {
		e, ok, err := a.cat.Lookup(inner)
		if err != nil {
			return err
		}
		if ok && inner == "" && p != "" { // the root row of a re-planted snapshot has no name
			return fmt.Errorf("catalogue at %q has its own root below itself: %w", a.at, cvmfs.ErrMalformed)
		}
		if ok {
			found = r.present(e)
		}
		t.paths.put(p, found)
		return nil
	})
	if err != nil {
		return nil, &fs.PathError{Op: "lookup", Path: display(p), Err: err}
	}
	if found == nil {
		return nil, absent()
	}
	return found, nil
}

func display(p string) string {
	if p == "" {
		return "/"
	}
	return p
}

// present makes an entry what stat should show.
func (r *Repository) present(e catalog.Entry) *catalog.Entry {
	if e.IsSymlink() {
		e.Size = int64(len(expand(e.Symlink, r.vars)))
	}
	r.opt.Owners.apply(&e)
	return &e
}

// maxListed bounds how many entries of one listing are remembered by path.
const maxListed = 1024

// ReadDir returns the entries of a directory in the order of their names' bytes,
// without hidden ones.
func (r *Repository) ReadDir(ctx context.Context, p string) ([]catalog.Entry, error) {
	list, _, err := r.List(ctx, p)
	return list, err
}

// List is ReadDir that also tells the root hash of the revision the listing is of.
func (r *Repository) List(ctx context.Context, p string) (list []catalog.Entry, root cvmfs.Hash, err error) {
	p = clean(p)
	e, err := r.lookup(ctx, p)
	if err != nil {
		return nil, root, err
	}
	if !e.IsDir() {
		return nil, root, &fs.PathError{Op: "readdir", Path: display(p), Err: errNotDir}
	}
	err = r.in(ctx, p, p, func(t *tree, a *attached, inner string) error {
		root = t.root.hash
		all, err := a.cat.List(inner)
		if err != nil {
			return err
		}
		list = all[:0]
		for _, e := range all {
			shown := r.present(e)
			if len(all) <= maxListed {
				t.paths.put(p+"/"+e.Name, shown)
			}
			if !e.IsHidden() {
				list = append(list, *shown)
			}
		}
		return nil
	})
	if err != nil {
		return nil, root, &fs.PathError{Op: "readdir", Path: display(p), Err: err}
	}
	return list, root, nil
}

// NamesBefore returns the names that a directory had, as ReadDir orders them, in
// the revision with that root hash: the one that was shown before, for those who
// had read a part of the listing when the revision changed. An older revision
// gives an error wrapping fs.ErrNotExist.
func (r *Repository) NamesBefore(ctx context.Context, root cvmfs.Hash, p string) ([]string, error) {
	p = clean(p)
	fail := func(err error) error { return &fs.PathError{Op: "readdir", Path: display(p), Err: err} }
	r.mu.Lock()
	t := r.before
	r.mu.Unlock()
	if t == nil || t.root.hash != root {
		return nil, fail(fmt.Errorf("revision %s is not at hand any more: %w", root, fs.ErrNotExist))
	}
	a, err := t.covering(ctx, p)
	if err != nil {
		return nil, fail(err)
	}
	defer t.release(a)
	list, err := a.cat.List(p[len(a.base):])
	if err != nil {
		return nil, fail(err)
	}
	names := make([]string, 0, len(list))
	for _, e := range list {
		if !e.IsHidden() {
			names = append(names, e.Name)
		}
	}
	return names, nil
}

// Readlink returns the target of a symbolic link with variables replaced.
func (r *Repository) Readlink(ctx context.Context, p string) (string, error) {
	p = clean(p)
	e, err := r.lookup(ctx, p)
	if err != nil {
		return "", err
	}
	if !e.IsSymlink() {
		return "", &fs.PathError{Op: "readlink", Path: display(p), Err: fs.ErrInvalid}
	}
	return expand(e.Symlink, r.vars), nil
}

// Xattrs returns the extended attributes stored with a path; nil if none.
func (r *Repository) Xattrs(ctx context.Context, p string) (map[string][]byte, error) {
	p = clean(p)
	e, err := r.lookup(ctx, p)
	if err != nil || !e.HasXattrs {
		return nil, err
	}
	var set map[string][]byte
	err = r.within(ctx, p, func(_ *tree, a *attached, inner string) error {
		set, err = a.cat.Xattrs(inner)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "getxattr", Path: display(p), Err: err}
	}
	return set, nil
}

// Chunks returns the pieces of a chunked file in order; nil for others.
func (r *Repository) Chunks(ctx context.Context, p string) ([]catalog.Chunk, error) {
	p = clean(p)
	e, err := r.lookup(ctx, p)
	if err != nil || !e.IsChunked() {
		return nil, err
	}
	var chunks []catalog.Chunk
	err = r.within(ctx, p, func(_ *tree, a *attached, inner string) error {
		chunks, err = a.cat.Chunks(inner)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: display(p), Err: err}
	}
	return chunks, nil
}

// CatalogOf describes the catalogue that has the row of a path, a directory's
// own if it is the root of one.
func (r *Repository) CatalogOf(ctx context.Context, p string) (mountpoint string, hash cvmfs.Hash, counters map[string]int64, err error) {
	p = clean(p)
	dir := p
	if e, err := r.lookup(ctx, p); err != nil {
		return "", cvmfs.Hash{}, nil, err
	} else if !e.IsDir() {
		dir = parentOf(p)
	}
	err = r.in(ctx, dir, p, func(_ *tree, a *attached, _ string) error {
		mountpoint, hash = a.at, a.hash
		counters, err = a.cat.Counters()
		return err
	})
	return mountpoint, hash, counters, err
}

// Counters returns the statistics of the root catalogue.
func (r *Repository) Counters() (map[string]int64, error) {
	var counters map[string]int64
	err := r.in(context.Background(), "", "", func(_ *tree, a *attached, _ string) (err error) {
		counters, err = a.cat.Counters()
		return err
	})
	return counters, err
}

// MTime is the modification time of an entry.
func MTime(e catalog.Entry) time.Time { return time.Unix(e.MTime, int64(max(e.MTimeNS, 0))) }

// Lineage identifies what an entry at a path shares its content and attributes
// with: members of a hard link group have the same lineage, everything else has
// its own path. Groups never cross a directory.
func Lineage(p string, e catalog.Entry) string {
	if e.HardlinkGroup == 0 || e.IsDir() {
		return p
	}
	// No path has two slashes in a row, so that this is never mistaken for one.
	return parentOf(p) + "//" + strconv.FormatUint(uint64(e.HardlinkGroup), 10)
}
