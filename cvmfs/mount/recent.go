package mount

import (
	"context"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/micavm/mica/cvmfs/client"
)

// A number of the kernel's stands for one content, and within a revision for one
// listing. The kernel is told therefore to open and close files and directories
// by itself: it asks for pages and entries that it does not have, and for nothing
// else. What it has read once costs as much as on a disk. When the revision
// changes it is told to forget the listings. That goes for entries marked for
// direct I/O, too: the mark is for content that changes under a reader.
//
// Nobody says then when a file is opened or closed. Files are opened when a page
// of theirs is asked for, and those that are likely to be asked for again stay
// open for a while.

const (
	keptFiles    = 32
	keptListings = 8
	oneRead      = 128 << 10 // what the kernel asks for at once, at most
)

// recent are the files and listings used last, by inode number.
type recent struct {
	mu       sync.Mutex // guards the following
	clock    uint64
	files    map[uint64]*recentFile
	listings map[uint64]*recentListing
}

// recentFile is closed by whoever uses it last after it left the table.
type recentFile struct {
	*client.File
	users int // and one for the table
	last  uint64
}

type recentListing struct {
	*listing
	last uint64
}

func newRecent() *recent {
	return &recent{files: map[uint64]*recentFile{}, listings: map[uint64]*recentListing{}}
}

// file returns an open file, to be given back to release. Readers that come at
// the same time share one.
func (r *recent) file(id uint64, open func() (*client.File, fuse.Status)) (*recentFile, fuse.Status) {
	r.mu.Lock()
	file := r.use(id)
	r.mu.Unlock()
	if file != nil {
		return file, fuse.OK
	}
	opened, status := open()
	if !status.Ok() {
		return nil, status
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if file := r.use(id); file != nil { // somebody else was faster
		_ = opened.Close() // read only
		return file, fuse.OK
	}
	if len(r.files) >= keptFiles {
		oldest := id
		for other, f := range r.files {
			if known := r.files[oldest]; known == nil || f.last < known.last {
				oldest = other
			}
		}
		r.drop(oldest)
	}
	r.files[id] = &recentFile{File: opened, users: 1}
	return r.use(id), fuse.OK
}

// use is called with the lock held.
func (r *recent) use(id uint64) *recentFile {
	file := r.files[id]
	if file != nil {
		r.clock++
		file.users, file.last = file.users+1, r.clock
	}
	return file
}

// drop takes a file out of the table, with the lock held.
func (r *recent) drop(id uint64) {
	if file := r.files[id]; file != nil {
		delete(r.files, id)
		r.leave(file)
	}
}

func (r *recent) leave(file *recentFile) {
	if file.users--; file.users == 0 {
		_ = file.Close() // read only
	}
}

// release ends a use. A file that was read to its end at once is not kept: the
// kernel has all of it.
func (r *recent) release(id uint64, file *recentFile, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if whole && r.files[id] == file {
		r.drop(id)
	}
	r.leave(file)
}

// listing returns a listing that is kept, or nil.
func (r *recent) listing(id uint64) *listing {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.listings[id]
	if known == nil {
		return nil
	}
	r.clock++
	known.last = r.clock
	return known.listing
}

func (r *recent) keep(id uint64, l *listing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.listings[id]; !known && len(r.listings) >= keptListings {
		oldest := id
		for other, l := range r.listings {
			if known := r.listings[oldest]; known == nil || l.last < known.last {
				oldest = other
			}
		}
		delete(r.listings, oldest)
	}
	r.clock++
	r.listings[id] = &recentListing{l, r.clock}
}

// forget drops what is kept of a number.
func (r *recent) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(id)
	delete(r.listings, id)
}

func (r *recent) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.files {
		r.drop(id)
	}
	r.listings = map[uint64]*recentListing{}
}

// readRecent answers a read without a handle.
func (f *fileSystem) readRecent(ctx context.Context, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	file, status := f.recent.file(in.NodeId, func() (*client.File, fuse.Status) { return f.openNode(ctx, in.NodeId) })
	if !status.Ok() {
		return nil, status
	}
	whole := file.Size() <= oneRead && in.Offset+uint64(len(buf)) >= uint64(file.Size()) //nolint:gosec // never negative
	defer func() { f.recent.release(in.NodeId, file, whole) }()
	return f.readFile(ctx, file.File, in, buf)
}

// lateAnswers is how long an answer may be on its way to the kernel.
const lateAnswers = time.Second

// revised has the kernel forget the listings of another revision. It does so
// twice, for an answer may have been on its way with an old one.
func (s *Server) revised() {
	if !s.fs.silent {
		return
	}
	s.forgetListings()
	go func() {
		select {
		case <-time.After(lateAnswers):
			s.forgetListings()
		case <-s.done:
		}
	}()
}

func (s *Server) forgetListings() {
	for _, id := range s.fs.nodes.directories() {
		_ = s.fuse.InodeNotify(id, 0, 0) // fails for one that the kernel has forgotten already
	}
}
