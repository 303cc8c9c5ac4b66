package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// contents reads, compresses and stages the files that must be read, several at
// a time. Names of one inode are read once.
func (s *scanner) contents(ctx context.Context, g *staging, result *Result) error {
	total := int64(0)
	type content struct {
		inode
		external bool
	}
	of := func(n *node) content { return content{n.inode, n.entry.IsExternal()} }
	first := make(map[content]*node)
	var work, copies []*node
	for _, n := range s.unread {
		if n.inode != (inode{}) {
			if first[of(n)] != nil {
				copies = append(copies, n)
				continue
			}
			first[of(n)] = n
		}
		work = append(work, n)
		total += n.entry.Size
	}
	workers := s.options.Workers
	if workers <= 0 {
		workers = g.s.store.Parallel()
	}
	var done atomic.Int64
	var mu sync.Mutex // guards the order of reports
	report := func(n int64, finished bool) {
		mu.Lock()
		defer mu.Unlock()
		s.report(Progress{Phase: PhaseFiles, Done: done.Add(n), Total: total, Finished: finished})
	}
	queue := make(chan *node)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		for _, n := range work {
			select {
			case queue <- n:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		group.Go(func() error {
			w := newReader(s, g, report)
			defer w.p.abort()
			for n := range queue {
				if err := w.read(ctx, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, n := range copies {
		from := first[of(n)]
		n.entry.Hash, n.chunks = from.entry.Hash, from.chunks
		n.entry.Flags |= from.entry.Flags & catalog.FlagChunked
	}
	result.Read += int64(len(work))
	result.BytesRead += total
	report(0, true)
	return nil
}

// reader is one worker.
type reader struct {
	s      *scanner
	g      *staging
	p      *packer
	ext    *packer // hashes external files
	buffer []byte
	report func(n int64, finished bool)
}

func newReader(s *scanner, g *staging, report func(n int64, finished bool)) *reader {
	ext := g.packer(cvmfs.Plain)
	ext.drop = true
	return &reader{s: s, g: g, p: g.packer(s.options.Compression), ext: ext, buffer: make([]byte, 256<<10), report: report}
}

// place marks a regular file as external if it is one. Its content lies on other
// servers as it is.
func (o *Options) place(e *catalog.Entry, at string) {
	for _, p := range o.External {
		if p = strings.TrimSuffix(path.Clean(p), "/"); at == p || strings.HasPrefix(at, p+"/") {
			e.Flags |= catalog.FlagExternal
			e.Compression = cvmfs.Plain
			return
		}
	}
}

// read stores the content of one file of the source tree.
func (r *reader) read(ctx context.Context, n *node) error {
	path := r.s.paths[n]
	f, err := r.s.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.store(ctx, n, path, f); err != nil {
		return err
	}
	return r.s.unchanged(f, n, path)
}

// store packs the content of a file, in chunks if it is cut.
func (r *reader) store(ctx context.Context, n *node, path string, f io.Reader) error {
	sizes := r.s.options.Chunks
	var d *detector
	if !r.s.options.NoChunks && n.entry.Size > sizes.Min {
		d = newDetector(sizes)
	}
	p := r.p
	if n.entry.IsExternal() {
		p = r.ext
	}
	if err := p.begin(); err != nil {
		return err
	}
	size, start := int64(0), int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		read, err := f.Read(r.buffer)
		for b := r.buffer[:read]; len(b) > 0; {
			end, cut := len(b), false
			if d != nil {
				end, cut = d.next(b)
			}
			if _, err := p.Write(b[:end]); err != nil {
				return fmt.Errorf("storing %q: %w", path, err)
			}
			size += int64(end)
			b = b[end:]
			if cut {
				if err := r.chunk(ctx, p, n, start, size); err != nil {
					return fmt.Errorf("storing %q: %w", path, err)
				}
				start = size
			}
		}
		r.report(int64(read), false)
		if errors.Is(err, io.EOF) || err == nil && size == n.entry.Size && size > 0 {
			break // whether more has come meanwhile, unchanged asks
		}
		if err != nil {
			return fmt.Errorf("reading source: %q: %w: %w", path, ErrSource, err)
		}
		if size > n.entry.Size {
			break
		}
	}
	if size != n.entry.Size {
		return fmt.Errorf("source: %q changed while it was published: %w", path, ErrSource)
	}
	if err := r.last(ctx, p, n, start, size); err != nil {
		return fmt.Errorf("storing %q: %w", path, err)
	}
	return nil
}

// chunk ends a chunk at a cut and starts the next.
func (r *reader) chunk(ctx context.Context, p *packer, n *node, start, end int64) error {
	o, err := p.finish()
	if err != nil {
		return err
	}
	if err := r.g.keep(ctx, o, 'P'); err != nil {
		return err
	}
	n.chunks = append(n.chunks, catalog.Chunk{Offset: start, Size: end - start, Hash: o.hash})
	return p.begin()
}

// last ends the file: what was never cut is stored whole.
func (r *reader) last(ctx context.Context, p *packer, n *node, start, end int64) error {
	if len(n.chunks) > 0 {
		if err := r.chunk(ctx, p, n, start, end); err != nil {
			return err
		}
		n.entry.Flags |= catalog.FlagChunked
		return nil
	}
	o, err := p.finish()
	if err != nil {
		return err
	}
	n.entry.Hash = o.hash
	return r.g.keep(ctx, o, 0)
}
