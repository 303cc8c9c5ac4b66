package client

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// Content says where the bytes of one regular file of one revision come from. It
// stays good when the repository has gone on to another revision, as long as the
// servers or the cache still have the objects.
type Content struct {
	path   string
	entry  catalog.Entry
	chunks []catalog.Chunk // nil for a file stored whole
}

// Content returns that of a regular file that was looked up at a path. If the
// revision has changed since, it may be another file's, which its entry tells.
func (r *Repository) Content(ctx context.Context, p string, e catalog.Entry) (*Content, error) {
	p = clean(p)
	c, err := r.contentOf(ctx, p, e)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: display(p), Err: plain(err)}
	}
	return c, nil
}

// contentOf works on a clean path. The row is read again together with the chunks,
// so that both are of one revision.
func (r *Repository) contentOf(ctx context.Context, p string, e catalog.Entry) (*Content, error) {
	switch {
	case e.IsDir():
		return nil, errIsDir
	case !e.IsRegular():
		return nil, fmt.Errorf("%w: not a regular file", fs.ErrInvalid)
	case !e.IsChunked() || e.Size == 0:
		return &Content{path: p, entry: e}, nil
	}
	c := &Content{path: p}
	err := r.within(ctx, p, func(_ *tree, a *attached, inner string) error {
		again, ok, err := a.cat.Lookup(inner)
		if err != nil {
			return err
		}
		if !ok || !again.IsRegular() {
			return fs.ErrNotExist
		}
		c.entry = *r.present(again)
		if again.IsChunked() {
			c.chunks, err = a.cat.Chunks(inner)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(c.chunks) == 0 && c.entry.Hash.IsZero() && c.entry.Size > 0 {
		return nil, fmt.Errorf("chunked file without chunks: %w", cvmfs.ErrMalformed)
	}
	return c, nil
}

// Entry returns the file's entry.
func (c *Content) Entry() catalog.Entry { return c.entry }

// ID identifies the bytes: two contents with the same one are equal.
func (c *Content) ID() [20]byte {
	if len(c.chunks) == 0 {
		return c.entry.Hash.Digest
	}
	sum := cvmfs.SHA1.New()
	for _, chunk := range c.chunks {
		_, _ = sum.Write(chunk.Hash.Digest[:]) // never fails
	}
	return cvmfs.NewHash(cvmfs.SHA1, sum).Digest
}

// OpenContent opens a file as [Repository.Open] does, whatever the revision shown
// now has at its path.
func (r *Repository) OpenContent(ctx context.Context, c *Content) (*File, error) {
	f, err := r.openContent(ctx, c)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: display(c.path), Err: err}
	}
	return f, nil
}
