package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// contents reads, compresses and stages the files that must be read, several at
// a time. Names of one inode are read once.
type contents struct {
	s       *scanner
	g       *staging
	queue   chan found
	readers chan *reader // who has one may use a processor

	first  map[content]*node // of the names of one inode
	copies []*node           // the other ones

	mu          sync.Mutex // guards the following, and the order of reports
	done, total int64      // bytes
	files       int64
	complete    bool // total is
}

// found is a file whose content must be read.
type found struct {
	n    *node
	path string
}

// content is what names of one inode share, unless only some are external.
type content struct {
	inode
	external bool
}

func newContents(s *scanner, g *staging) *contents {
	workers := s.options.Workers
	if workers <= 0 {
		workers = g.s.store.Parallel()
	}
	c := &contents{s: s, g: g, queue: make(chan found, 256), readers: make(chan *reader, workers), first: make(map[content]*node)}
	for range workers {
		c.readers <- newReader(s, g, c.report)
	}
	return c
}

// take waits for a reader that is free.
func (c *contents) take(ctx context.Context) (*reader, error) {
	select {
	case r := <-c.readers:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// give frees a reader, whatever it has half done.
func (c *contents) give(r *reader) {
	r.p.abort()
	c.readers <- r
}

// add decides whether a regular file must be read.
func (c *contents) add(ctx context.Context, n *node, path string) error {
	if n.grafted {
		return nil
	}
	if n.was != nil && !c.s.options.Checksum && n.looksTheSame() {
		n.entry.Hash, n.chunks = n.was.Hash, n.wasChunks
		n.entry.Compression = n.was.Compression
		n.entry.Flags |= n.was.Flags & catalog.FlagChunked
		return nil
	}
	if n.inode != (inode{}) {
		if c.first[n.content()] != nil {
			c.copies = append(c.copies, n)
			return nil
		}
		c.first[n.content()] = n
	}
	c.mu.Lock()
	c.files++
	c.total += n.entry.Size
	c.mu.Unlock()
	return send(ctx, c.queue, found{n, path})
}

func (n *node) content() content { return content{n.inode, n.entry.IsExternal()} }

// all says that there are no more files. What has been stored is told from now
// on: before, how much there is was not known.
func (c *contents) all() {
	c.s.report(Progress{Phase: PhaseScan, Done: c.s.seen, Finished: true})
	c.mu.Lock()
	c.complete = true
	c.mu.Unlock()
	c.report(0)
}

func (c *contents) report(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += bytes
	if c.complete {
		c.s.report(Progress{Phase: PhaseFiles, Done: c.done, Total: c.total})
	}
}

// start starts the workers.
func (c *contents) start(ctx context.Context, group *errgroup.Group) {
	for range cap(c.readers) {
		group.Go(func() error {
			for f := range c.queue {
				if err := c.store(ctx, f.n, f.path); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// store stores the content of one file of the source tree.
func (c *contents) store(ctx context.Context, n *node, path string) error {
	f, err := c.s.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if c.s.options.inPieces(n) {
		err = c.cut(ctx, n, path, f)
	} else {
		var r *reader
		if r, err = c.take(ctx); err == nil {
			err = r.store(ctx, n, path, f)
			c.give(r)
		}
	}
	if err != nil {
		return err
	}
	return c.s.unchanged(f, n, path)
}

// finish gives the other names of an inode its content, when all is stored.
func (c *contents) finish(result *Result) {
	for _, n := range c.copies {
		from := c.first[n.content()]
		n.entry.Hash, n.chunks = from.entry.Hash, from.chunks
		n.entry.Flags |= from.entry.Flags & catalog.FlagChunked
	}
	result.Read, result.BytesRead = c.files, c.total
	c.s.report(Progress{Phase: PhaseFiles, Done: c.done, Total: c.total, Finished: true})
}

// reader is one worker.
type reader struct {
	s      *scanner
	g      *staging
	p      *packer
	ext    *packer // hashes external files
	buffer []byte
	report func(bytes int64)
}

func newReader(s *scanner, g *staging, report func(bytes int64)) *reader {
	ext := g.packer(cvmfs.Plain)
	ext.drop = true
	return &reader{s: s, g: g, p: g.packer(s.options.Compression), ext: ext, buffer: make([]byte, 256<<10), report: report}
}

// packerOf is the one for a file's content.
func (r *reader) packerOf(n *node) *packer {
	if n.entry.IsExternal() {
		return r.ext
	}
	return r.p
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

// store packs the content of a file, in chunks if it is cut.
func (r *reader) store(ctx context.Context, n *node, path string, f io.Reader) error {
	sizes := r.s.options.Chunks
	var d *detector
	if !r.s.options.NoChunks && n.entry.Size > sizes.Min {
		d = newDetector(sizes)
	}
	p := r.packerOf(n)
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
		r.report(int64(read))
		if errors.Is(err, io.EOF) || err == nil && size == n.entry.Size && size > 0 {
			break // whether more has come meanwhile, unchanged asks
		}
		if err != nil {
			return r.s.unreadable(path, err)
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
