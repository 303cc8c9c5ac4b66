package client

import (
	"context"
	"io/fs"

	"github.com/micavm/mica/cvmfs"
)

// Pin fetches a regular file and keeps it in the cache for good: no eviction,
// not even by another process, removes it. Symbolic links are not followed.
func (r *Repository) Pin(ctx context.Context, p string) error {
	p = clean(p)
	f, err := r.Open(ctx, p)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fail := func(err error) error { return &fs.PathError{Op: "pin", Path: display(p), Err: err} }
	var hashes []cvmfs.Hash
	if f.whole != nil {
		hashes = append(hashes, f.content.entry.Hash)
	}
	for i, c := range f.content.chunks {
		o, err := r.object(ctx, f.chunk(i))
		if err != nil {
			return fail(err)
		}
		if err := o.Close(); err != nil {
			return fail(err)
		}
		hashes = append(hashes, c.Hash)
	}
	if err := r.cache.Pin(hashes...); err != nil {
		return fail(err)
	}
	return nil
}
