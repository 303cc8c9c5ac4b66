package mount

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
)

// fileSystem answers the kernel. It works on the protocol's own level: the
// kernel's numbers are looked up in one table, and nothing else is kept for an
// inode, which matters on a machine with little memory.
type fileSystem struct {
	fuse.RawFileSystem // what is not answered here does not exist
	r                  *client.Repository
	log                *slog.Logger
	timeout            time.Duration
	pinned             bool
	nodes              *nodes
	started            time.Time
	failures           atomic.Int64
	lastFailure        atomic.Int64 // seconds since 1970; 0 before the first
	opens, dirOpens    atomic.Int64 // since the mount; not of a silent kernel
	callers            callers
	limit              limiter
	countOpens         bool
	silent             bool    // the kernel opens and closes by itself; see recent
	recent             *recent // of a silent kernel
	generations        generations

	magicOptions

	mu    sync.Mutex // guards the open files and directories
	next  uint64
	files map[uint64]*client.File
	dirs  map[uint64]*openDir
}

func newFileSystem(r *client.Repository, opt Options) *fileSystem {
	f := &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		r:             r, log: opt.Log, timeout: opt.KernelTimeout, pinned: r.Pinned(), countOpens: opt.CountOpens, nodes: newNodes(!r.Pinned()), started: time.Now(), callers: newCallers(),
		recent: newRecent(),
		files:  map[uint64]*client.File{}, dirs: map[uint64]*openDir{},
	}
	if f.pinned {
		f.timeout = forever
	}
	return f
}

func (f *fileSystem) String() string { return "cvmfs" }

// Init hears what the kernel can do.
func (f *fileSystem) Init(s *fuse.Server) {
	const both = fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_NO_OPENDIR_SUPPORT
	f.silent = !f.countOpens && s.KernelSettings().Flags64()&both == both
}

// status translates an error for the kernel.
func (f *fileSystem) status(op, path string, err error) fuse.Status {
	var errno syscall.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, fs.ErrNotExist):
		return fuse.ENOENT
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	case errors.Is(err, client.ErrCacheFull):
		errno = syscall.ENOSPC
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		errors.As(err, &errno)
		return fuse.Status(errno)
	default:
		errno = syscall.EIO
	}
	f.failures.Add(1)
	f.lastFailure.Store(time.Now().Unix())
	if lost, ok := f.limit.allow(); ok {
		f.log.Error("request failed", "op", op, "path", path, "err", err, "suppressed", lost)
	}
	return fuse.Status(errno)
}

func (f *fileSystem) counters() Counters {
	c := Counters{Failures: f.failures.Load(), Counted: !f.silent, Opens: f.opens.Load(), DirOpens: f.dirOpens.Load()}
	if at := f.lastFailure.Load(); at != 0 {
		c.LastFailure = time.Unix(at, 0)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.OpenFiles, c.OpenDirs = len(f.files), len(f.dirs)
	return c
}

func child(dir, name string) string { return dir + "/" + name }

func (f *fileSystem) attr(id uint64, e catalog.Entry, out *fuse.Attr) {
	mtime := client.MTime(e)
	*out = fuse.Attr{
		Ino: id, Mode: e.Mode, Nlink: e.Nlink, Owner: fuse.Owner{Uid: e.UID, Gid: e.GID},
		Size: uint64(e.Size), Blocks: 1 + uint64(e.Size)/512, Blksize: 4096, //nolint:gosec // never negative
		Rdev: encodeDev(e.Rdev),
	}
	out.SetTimes(&mtime, &mtime, &mtime)
}

// encodeDev is the kernel's 32-bit form of a device number.
func encodeDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// describe adds the content of a regular file to an entry that was looked up. Both
// are of one revision.
func (f *fileSystem) describe(ctx context.Context, path string, e catalog.Entry) (catalog.Entry, *client.Content, error) {
	if !e.IsRegular() {
		return e, nil, nil
	}
	c, err := f.r.Content(ctx, path, e)
	if err != nil {
		return e, nil, err
	}
	return c.Entry(), c, nil
}

// entry tells the kernel of an entry, whose number it has taken a reference to.
func (f *fileSystem) entry(id uint64, e catalog.Entry, out *fuse.EntryOut) {
	out.NodeId = id
	out.SetEntryTimeout(f.timeout)
	out.SetAttrTimeout(f.timeout)
	f.attr(out.NodeId, e, &out.Attr)
}

func (f *fileSystem) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	dir, ok := f.nodes.path(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	path := child(dir, name)
	if name == ".." {
		path = dir[:max(0, lastSlash(dir))]
	} else if name == "." {
		path = dir
	}
	e, err := f.r.Lookup(ctx, path)
	var c *client.Content
	if err == nil {
		e, c, err = f.describe(ctx, path, e)
	}
	if err != nil {
		status := f.status("lookup", path, err)
		if status == fuse.ENOENT { // the kernel remembers that there is nothing
			out.NodeId = 0
			out.SetEntryTimeout(f.timeout)
			return fuse.OK
		}
		return status
	}
	f.entry(f.nodes.find(path, e, c, true), e, out)
	return fuse.OK
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}

func (f *fileSystem) Forget(id, lookups uint64) {
	if f.nodes.forget(id, lookups) && f.silent {
		f.recent.forget(id)
	}
}

// at returns the path and entry of a number.
func (f *fileSystem) at(ctx context.Context, op string, id uint64) (string, catalog.Entry, fuse.Status) {
	path, ok := f.nodes.path(id)
	if !ok {
		return "", catalog.Entry{}, fuse.Status(syscall.ESTALE)
	}
	e, err := f.r.Lookup(ctx, path)
	var c *client.Content
	if err == nil {
		e, c, err = f.describe(ctx, path, e)
	}
	status := f.status(op, path, err)
	if status == fuse.ENOENT || status.Ok() && !f.nodes.is(id, path, e, c) { // gone with the revision that had it
		status = fuse.Status(syscall.ESTALE)
	}
	return path, e, status
}

func (f *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		if file := f.file(in.Fh()); file != nil { // as it was opened, whatever came after
			out.SetTimeout(f.timeout)
			f.attr(in.NodeId, file.Entry(), &out.Attr)
			return fuse.OK
		}
	}
	_, e, status := f.at(ctx, "getattr", in.NodeId)
	if status == fuse.Status(syscall.ESTALE) { // whoever has it open goes on with it
		if _, c, _ := f.nodes.file(in.NodeId); c != nil {
			e, status = c.Entry(), fuse.OK
		}
	}
	if !status.Ok() {
		return status
	}
	out.SetTimeout(f.timeout)
	f.attr(in.NodeId, e, &out.Attr)
	return fuse.OK
}

func (f *fileSystem) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	path, ok := f.nodes.path(in.NodeId)
	if !ok {
		return nil, fuse.Status(syscall.ESTALE)
	}
	target, err := f.r.Readlink(ctx, path)
	if err != nil {
		return nil, f.status("readlink", path, err)
	}
	return []byte(target), fuse.OK
}

func (f *fileSystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f.silent {
		return fuse.ENOSYS
	}
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return fuse.EROFS
	}
	file, status := f.openNode(ctx, in.NodeId)
	if !status.Ok() {
		return status
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE // a number has one content
	if file.Entry().DirectIO() {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	out.Fh = f.next
	f.files[out.Fh] = file
	f.opens.Add(1)
	return fuse.OK
}

// openNode opens the file that a number stands for, whatever its path has come to
// stand for since.
func (f *fileSystem) openNode(ctx context.Context, id uint64) (*client.File, fuse.Status) {
	path, c, ok := f.nodes.file(id)
	if !ok {
		return nil, fuse.Status(syscall.ESTALE)
	}
	var file *client.File
	var err error
	if c != nil {
		file, err = f.r.OpenContent(ctx, c)
	} else {
		file, err = f.r.Open(ctx, path)
	}
	return file, f.status("open", path, err)
}

func (f *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	if f.silent {
		return f.readRecent(ctx, in, buf)
	}
	file := f.file(in.Fh)
	if file == nil {
		return nil, fuse.EBADF
	}
	return f.readFile(ctx, file, in, buf)
}

func (f *fileSystem) readFile(ctx context.Context, file *client.File, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if in.Offset >= uint64(file.Size()) { //nolint:gosec // never negative
		return fuse.ReadResultData(nil), fuse.OK
	}
	offset := int64(in.Offset) //nolint:gosec // below the size
	n := int(min(int64(len(buf)), file.Size()-offset))
	if _, err := file.ReadAtContext(ctx, buf[:n], offset); err != nil {
		path, _ := f.nodes.path(in.NodeId)
		return nil, f.status("read", path, err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *fileSystem) file(handle uint64) *client.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files[handle]
}

func (f *fileSystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	f.mu.Lock()
	file := f.files[in.Fh]
	delete(f.files, in.Fh)
	f.mu.Unlock()
	if file == nil {
		return
	}
	if err := file.Close(); err != nil {
		f.log.Warn("closing a file", "err", err)
	}
}

func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const block = 4096
	used, quota := f.r.CacheUsage()
	quota = max(quota, used)
	*out = fuse.StatfsOut{
		Bsize: block, Frsize: block, NameLen: 255,
		Blocks: uint64(quota) / block, Bfree: uint64(quota-used) / block, //nolint:gosec // never negative
	}
	out.Bavail = out.Bfree
	if counters, err := f.r.Counters(); err == nil {
		for _, kind := range []string{"regular", "symlink", "special", "dir"} {
			out.Files += uint64(max(0, counters["self_"+kind]) + max(0, counters["subtree_"+kind])) //nolint:gosec // as above
		}
		out.Ffree = out.Files - min(out.Files, uint64(f.nodes.count())) //nolint:gosec // as above
	}
	return fuse.OK
}

// Flush has nothing to do. Saying so once spares a round trip at every close.
func (f *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Ioctl refuses with the code that says "not for this kind of file". Overlayfs
// takes ENOSYS, the protocol's default, for a broken lower layer and then fails
// to copy up.
func (f *fileSystem) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}
