package publish

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs/catalog"
)

// piece is a part of a big file, which is stored by itself.
type piece struct {
	n    *node
	path string
	f    *sourceFile
	catalog.Chunk
}

// inPieces reports whether a file has more than one chunk for certain.
func (o *Options) inPieces(n *node) bool { return !o.NoChunks && n.entry.Size > o.Chunks.Max }

// cut finds the chunks of a big file and has each of them stored by whoever is
// free, so that one file keeps all processors busy. It is not further ahead than
// there are readers: what it has looked at is still in memory when they come.
func (c *contents) cut(ctx context.Context, n *node, path string, f *sourceFile) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cap(c.readers))
	var pieces []*piece
	d := newDetector(c.s.options.Chunks)
	buffer := make([]byte, 256<<10)
	start, at := int64(0), int64(0)
	add := func() {
		p := &piece{n, path, f, catalog.Chunk{Offset: start, Size: at - start}}
		pieces = append(pieces, p)
		start = at
		group.Go(func() error { return c.piece(ctx, p) })
	}
	var err error
	for err == nil && ctx.Err() == nil && at < n.entry.Size {
		var read int
		read, err = f.Read(buffer[:min(int64(len(buffer)), n.entry.Size-at)])
		for b := buffer[:read]; len(b) > 0; {
			end, cut := d.next(b)
			at += int64(end)
			b = b[end:]
			if cut {
				add()
			}
		}
	}
	if err == nil {
		add()
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err != nil {
		return c.s.unreadable(path, err)
	}
	for _, p := range pieces {
		n.chunks = append(n.chunks, p.Chunk)
	}
	n.entry.Flags |= catalog.FlagChunked
	return nil
}

// piece stores a part of a file.
func (c *contents) piece(ctx context.Context, p *piece) error {
	r, err := c.take(ctx)
	if err != nil {
		return err
	}
	defer c.give(r)
	o, err := r.pack(ctx, p)
	if err != nil {
		return err
	}
	p.Hash = o.hash
	if err := c.g.keep(ctx, o, 'P'); err != nil {
		return fmt.Errorf("storing %q: %w", p.path, err)
	}
	return nil
}

// pack compresses a part of a file.
func (r *reader) pack(ctx context.Context, p *piece) (packed, error) {
	to := r.packerOf(p.n)
	if err := to.begin(); err != nil {
		return packed{}, err
	}
	part := io.NewSectionReader(p.f, p.Offset, p.Size)
	for left := p.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return packed{}, err
		}
		read, err := part.Read(r.buffer)
		if err != nil && (read == 0 || !errors.Is(err, io.EOF)) {
			return packed{}, r.s.unreadable(p.path, err)
		}
		if _, err := to.Write(r.buffer[:read]); err != nil {
			return packed{}, fmt.Errorf("storing %q: %w", p.path, err)
		}
		left -= int64(read)
		r.report(int64(read))
	}
	o, err := to.finish()
	if err != nil {
		err = fmt.Errorf("storing %q: %w", p.path, err)
	}
	return o, err
}

// unreadable tells a file that has become shorter from one that cannot be read.
func (s *scanner) unreadable(path string, err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("source: %q changed while it was published: %w", path, ErrSource)
	}
	return fmt.Errorf("reading source: %q: %w: %w", path, ErrSource, err)
}
