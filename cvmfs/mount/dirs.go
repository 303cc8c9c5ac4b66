package mount

import (
	"context"
	"errors"
	"io/fs"
	"sort"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
)

// listing is the entries of a directory in one revision, by name.
type listing struct {
	path    string
	root    cvmfs.Hash // of the revision
	entries []catalog.Entry
}

// openDir is a listing that the kernel has asked to open. It is whole from the
// beginning, so that reading it is consistent whatever happens to the revision.
type openDir struct {
	*listing
	node    uint64
	counted bool
}

// An offset in a directory says how many entries come before, "." and ".." being
// the first, and in the listing of which revision.
const indexBits = 32

// generations number the revisions that were listed.
type generations struct {
	mu    sync.Mutex   // guards the following
	roots []cvmfs.Hash // the last ones
	first uint64       // number of roots[0]
}

const keptGenerations = 8

func (g *generations) number(root cvmfs.Hash) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := len(g.roots) - 1; i >= 0; i-- {
		if g.roots[i] == root {
			return g.first + uint64(i) //nolint:gosec // never negative
		}
	}
	if len(g.roots) == keptGenerations {
		g.roots = append(g.roots[:0], g.roots[1:]...)
		g.first++
	}
	g.roots = append(g.roots, root)
	return g.first + uint64(len(g.roots)) - 1
}

// root is zero for a revision that is forgotten.
func (g *generations) root(number uint64) cvmfs.Hash {
	g.mu.Lock()
	defer g.mu.Unlock()
	if number < g.first || number-g.first >= uint64(len(g.roots)) {
		return cvmfs.Hash{}
	}
	return g.roots[number-g.first]
}

// list makes the listing of the directory that a number stands for.
func (f *fileSystem) list(ctx context.Context, op string, id uint64) (*listing, fuse.Status) {
	path, ok := f.nodes.path(id)
	if !ok {
		return nil, fuse.Status(syscall.ESTALE)
	}
	entries, root, err := f.r.List(ctx, path)
	return &listing{path, root, entries}, f.status(op, path, err)
}

func (f *fileSystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f.silent {
		return fuse.ENOSYS
	}
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	list, status := f.list(ctx, "opendir", in.NodeId)
	if !status.Ok() {
		return status
	}
	// The kernel keeps listings as it keeps pages of files, unless somebody still
	// reads that of another revision, which would get mixed up with it.
	same, busy := f.nodes.opened(in.NodeId, list.root.Digest)
	if !busy {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR
	}
	if same {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	out.Fh = f.next
	f.dirs[out.Fh] = &openDir{listing: list, node: in.NodeId, counted: !busy}
	f.dirOpens.Add(1)
	return fuse.OK
}

func (f *fileSystem) ReleaseDir(in *fuse.ReleaseIn) {
	f.mu.Lock()
	dir := f.dirs[in.Fh]
	delete(f.dirs, in.Fh)
	f.mu.Unlock()
	if dir != nil && dir.counted {
		f.nodes.closed(dir.node)
	}
}

// reading finds the listing for a read at an offset, and the index to begin at.
func (f *fileSystem) reading(ctx context.Context, in *fuse.ReadIn) (*listing, uint64, fuse.Status) {
	index := in.Offset & (1<<indexBits - 1)
	if !f.silent {
		f.mu.Lock()
		dir := f.dirs[in.Fh]
		f.mu.Unlock()
		if dir == nil {
			return nil, 0, fuse.EBADF
		}
		return dir.listing, index, fuse.OK
	}
	begun := f.r.RootHash()
	if index > 0 {
		begun = f.generations.root(in.Offset >> indexBits)
	}
	if kept := f.recent.listing(in.NodeId); kept != nil && kept.root == begun {
		return kept, index, fuse.OK
	}
	list, status := f.list(ctx, "readdir", in.NodeId)
	if !status.Ok() {
		return nil, 0, status
	}
	f.recent.keep(in.NodeId, list)
	if index <= 2 || list.root == begun {
		return list, index, fuse.OK
	}
	// The revision has changed under a reader who has a part of the listing from the
	// kernel: he goes on after the last name he has.
	names, err := f.r.NamesBefore(ctx, begun, list.path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it has changed twice
		return nil, 0, fuse.Status(syscall.ESTALE)
	case err != nil:
		return nil, 0, f.status("readdir", list.path, err)
	case index-3 >= uint64(len(names)):
		return list, uint64(len(list.entries)) + 2, fuse.OK
	}
	last := names[index-3]
	after := sort.Search(len(list.entries), func(i int) bool { return list.entries[i].Name > last })
	return list, uint64(after) + 2, fuse.OK //nolint:gosec // never negative
}

// readDir gives the entries from the offset on to add, which says whether it had
// room. With refer the kernel takes a reference to each, but not to "." and "..".
func (f *fileSystem) readDir(cancel <-chan struct{}, in *fuse.ReadIn, refer bool, add func(e catalog.Entry, d fuse.DirEntry) bool) fuse.Status {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	dir, i, status := f.reading(ctx, in)
	if !status.Ok() {
		return status
	}
	end := uint64(len(dir.entries)) + 2
	if f.silent && i >= end { // the kernel has all of it
		f.recent.forget(in.NodeId)
		return fuse.OK
	}
	for generation := f.generations.number(dir.root) << indexBits; i < end; i++ {
		d := fuse.DirEntry{Off: generation | (i + 1), Mode: catalog.ModeDir}
		var e catalog.Entry
		switch i {
		case 0:
			d.Name, d.Ino = ".", in.NodeId
		case 1:
			d.Name = ".."
			if slash := lastSlash(dir.path); slash >= 0 {
				d.Ino = directory(dir.path[:slash])
			} else {
				d.Ino = in.NodeId
			}
		default:
			name := dir.entries[i-2].Name
			path := child(dir.path, name)
			var c *client.Content
			var err error
			e, c, err = f.describe(ctx, path, dir.entries[i-2])
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) { // gone since with its revision
				continue
			}
			if err != nil {
				return f.status("readdir", path, err)
			}
			d.Name, d.Mode, d.Ino = name, e.Mode, f.nodes.find(path, e, c, refer)
		}
		if !add(e, d) {
			if refer && i > 1 {
				f.Forget(d.Ino, 1)
			}
			break
		}
	}
	return fuse.OK
}

func (f *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(cancel, in, false, func(_ catalog.Entry, d fuse.DirEntry) bool { return out.AddDirEntry(d) })
}

func (f *fileSystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(cancel, in, true, func(e catalog.Entry, d fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(d)
		if entry == nil {
			return false
		}
		if e.Name != "" { // not "." or ".."
			f.entry(d.Ino, e, entry)
		}
		return true
	})
}
