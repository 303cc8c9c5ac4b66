package client

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sort"
	"sync"
	"syscall"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
)

var (
	errNotDir error = syscall.ENOTDIR
	errIsDir  error = syscall.EISDIR
)

const (
	keptChunks  = 3 // of a file, that stay open between reads
	chunksAhead = 4 // fetched at a time, once a few were read in order
)

// File is an open regular file. It shows the content it had when it was opened,
// whatever happens to the revision meanwhile. It is safe for concurrent use.
type File struct {
	r       *Repository
	content *Content
	whole   *objectcache.Object // nil for chunked and empty files

	mu     sync.Mutex // guards the following
	kept   []keptChunk
	front  int // the last chunk of those read in order
	run    int // how many were
	closed bool
}

type keptChunk struct {
	index  int
	object *objectcache.Object
}

// Open opens a regular file. A file stored whole is complete in the cache when
// Open returns; of a chunked one the chunks come when they are read.
func (r *Repository) Open(ctx context.Context, p string) (*File, error) {
	p = clean(p)
	e, err := r.lookup(ctx, p)
	if err != nil {
		return nil, err
	}
	f, err := r.openEntry(ctx, p, *e)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: display(p), Err: err}
	}
	return f, nil
}

func (r *Repository) openEntry(ctx context.Context, p string, e catalog.Entry) (*File, error) {
	c, err := r.contentOf(ctx, p, e)
	if err != nil {
		return nil, err
	}
	return r.openContent(ctx, c)
}

func (r *Repository) openContent(ctx context.Context, c *Content) (*File, error) {
	f := &File{r: r, content: c, front: -1}
	if len(c.chunks) > 0 || c.entry.Size == 0 { // nothing to fetch yet
		return f, nil
	}
	r.scans.opened(ctx, c.path, c.entry.Hash)
	w := wholeOf(c.entry)
	w.path, w.external = c.path, c.entry.IsExternal()
	o, err := r.object(ctx, w)
	if err != nil {
		return nil, err
	}
	f.whole = o
	return f, nil
}

func wholeOf(e catalog.Entry) want {
	return want{hash: e.Hash, compression: e.Compression, size: e.Size}
}

func (f *File) chunk(i int) want {
	c := f.content.chunks[i]
	return want{
		hash: c.Hash, suffix: cvmfs.SuffixPartial, compression: f.content.entry.Compression, size: c.Size,
		path: f.content.path, external: f.content.entry.IsExternal(), offset: c.Offset,
	}
}

// Entry returns the entry the file was opened with.
func (f *File) Entry() catalog.Entry { return f.content.entry }

// Size returns the length in bytes.
func (f *File) Size() int64 { return f.content.entry.Size }

// Fd returns a descriptor of the whole content, valid until Close, or false if
// the content is in pieces.
func (f *File) Fd() (fd uintptr, ok bool) {
	if f.whole == nil {
		return 0, false
	}
	return f.whole.Fd(), true
}

// ReadAt implements io.ReaderAt. Reading a chunked file may wait for downloads;
// ReadAtContext lets the caller give up.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return f.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext is ReadAt for a reader that may give up when ctx ends.
func (f *File) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, &fs.PathError{Op: "read", Path: display(f.content.path), Err: fs.ErrInvalid}
	}
	if off >= f.content.entry.Size {
		return 0, io.EOF
	}
	if f.whole != nil {
		return f.whole.ReadAt(p, off)
	}
	n := 0
	for n < len(p) && off < f.content.entry.Size {
		i := sort.Search(len(f.content.chunks), func(i int) bool { return f.content.chunks[i].Offset+f.content.chunks[i].Size > off })
		if i == len(f.content.chunks) {
			break
		}
		c := f.content.chunks[i]
		o, err := f.acquire(ctx, i)
		if err != nil {
			return n, &fs.PathError{Op: "read", Path: display(f.content.path), Err: err}
		}
		part := p[n:min(len(p), n+int(min(c.Offset+c.Size-off, int64(len(p)))))]
		got, err := o.ReadAt(part, off-c.Offset)
		_ = o.Close()
		n += got
		off += int64(got)
		if got < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the object was checked for its size
			}
			return n, &fs.PathError{Op: "read", Path: display(f.content.path), Err: err}
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// acquire returns a chunk, and has the next ones fetched if reading is sequential.
func (f *File) acquire(ctx context.Context, i int) (*objectcache.Object, error) {
	f.mu.Lock()
	ahead := f.ahead(i)
	for _, k := range f.kept {
		if k.index == i {
			o := k.object.Again()
			f.mu.Unlock()
			f.fetchAhead(i, ahead)
			return o, nil
		}
	}
	f.mu.Unlock()
	f.fetchAhead(i, ahead)
	o, err := f.r.object(ctx, f.chunk(i))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		if len(f.kept) == keptChunks {
			_ = f.kept[0].object.Close()
			f.kept = append(f.kept[:0], f.kept[1:]...)
		}
		f.kept = append(f.kept, keptChunk{i, o.Again()})
	}
	return o, nil
}

// ahead is how many chunks after i are worth fetching now: one at the start of
// the file, so that looking at its head costs little, and more with each that
// was read in order, so that all processors have something to inflate. The lock
// is held. The kernel's reads overlap: that of a chunk just left is no jump.
func (f *File) ahead(i int) int {
	switch {
	case i == f.front+1:
		f.front, f.run = i, f.run+1
		return min(f.run, chunksAhead)
	case i > f.front || i < f.front-1:
		f.front, f.run = i, 0
	}
	return 0
}

func (f *File) fetchAhead(i, n int) {
	for next := i + 1; next <= i+n && next < len(f.content.chunks); next++ {
		f.r.fetchAhead(f.chunk(next))
	}
}

// Close ends the use of the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	for _, k := range f.kept {
		_ = k.object.Close()
	}
	f.kept = nil
	if f.whole != nil {
		return f.whole.Close()
	}
	return nil
}
