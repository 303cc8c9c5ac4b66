package objectcache

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

const (
	txnDir        = "txn"
	quarantineDir = "quarantaine" // Compat: the original's spelling
	touchAfter    = time.Hour
)

// ErrFull says that an object can be kept neither on disk nor in memory.
var ErrFull = errors.New("no room for the object in the cache")

// Options of a cache.
type Options struct {
	Name   string // of the repository; names the lock and the state files
	Quota  int64  // bytes of objects, 0 for no limit
	Memory int64  // bytes of objects kept in memory when the disk takes none; 0 means 64 MiB
	Now    func() time.Time
	Log    *slog.Logger
}

// Cache is a directory of objects. It is safe for concurrent use.
type Cache struct {
	root    *os.Root
	folders folders
	opt     Options
	dir     string // as given, for messages and for SQLite
	lock    *os.File

	readOnly atomic.Bool
	writers  sync.WaitGroup // transactions on disk
	epoch    uint32         // unclean ends so far; objects of an earlier one are checked before use
	unnoted  bool           // the last unclean end could not be written down
	tally    *tally         // bytes on disk, exact after the first scan
	memory   atomic.Int64   // bytes in memory
	quota    atomic.Int64   // bytes on disk that may be, 0 for no limit
	evicting sync.Mutex     // one counts or evicts at a time; see alone
	vain     atomic.Int64   // when an eviction could not do enough, in Unix nanoseconds

	mu       sync.Mutex // guards the following
	open     map[cvmfs.Hash]*shared
	checked  map[cvmfs.Hash]struct{} // verified, but without a record of it
	pinned   map[cvmfs.Hash]struct{} // by this process
	cleanups []time.Time             // when objects were evicted

	kick    chan struct{}   // asks the evictor to look
	life    context.Context //nolint:containedctx // of the evictor, and of those who have to wait for it
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// shared is an open object; everyone who opens the same one gets the same
// descriptor.
type shared struct {
	f      *os.File
	size   int64
	comp   cvmfs.Compression
	refs   int
	memory bool
}

// Object is one use of an open object. Close it.
type Object struct {
	c    *Cache
	hash cvmfs.Hash
	s    *shared
	done atomic.Bool
}

// ReadAt implements io.ReaderAt.
func (o *Object) ReadAt(p []byte, off int64) (int, error) { return o.s.f.ReadAt(p, off) }

// Size returns the length in bytes.
func (o *Object) Size() int64 { return o.s.size }

// Fd returns the file descriptor, valid until Close.
func (o *Object) Fd() uintptr { return o.s.f.Fd() }

// Close ends the use.
func (o *Object) Close() error {
	if o.done.Swap(true) {
		return nil
	}
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	if o.s.refs--; o.s.refs > 0 {
		return nil
	}
	if o.c.open[o.hash] == o.s {
		delete(o.c.open, o.hash)
	}
	if o.s.memory {
		o.c.memory.Add(-o.s.size)
	}
	return o.s.f.Close()
}

// Open opens the cache at dir and makes what is missing of it.
func Open(dir string, opt Options) (*Cache, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Memory == 0 {
		opt.Memory = 64 << 20
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dir, err)
	}
	c := &Cache{
		root: root, folders: folders{root: root}, dir: dir, opt: opt,
		open: map[cvmfs.Hash]*shared{}, checked: map[cvmfs.Hash]struct{}{}, pinned: map[cvmfs.Hash]struct{}{},
		kick: make(chan struct{}, 1),
	}
	c.quota.Store(opt.Quota)
	c.tally = newTally(root, &c.quota)
	c.tally.peek()
	if err := c.prepare(); err != nil {
		if c.lock != nil { // of no use without the mark beside it
			unlock(c.lock)
			c.lock = nil
		}
		if !diskTrouble(err) {
			_ = root.Close()
			return nil, fmt.Errorf("preparing %s: %w", dir, err)
		}
		opt.Log.Warn("the cache cannot be written to, objects go to memory", "cache", dir, "err", err)
		c.readOnly.Store(true)
	}
	c.life, c.stop = context.WithCancel(context.Background())
	c.stopped.Go(func() { c.housekeeping(c.life) })
	return c, nil
}

func (c *Cache) prepare() error {
	if _, err := c.root.Stat("ff"); errors.Is(err, fs.ErrNotExist) {
		for i := range 256 {
			if err := c.mkdir(fmt.Sprintf("%02x", i)); err != nil {
				return err
			}
		}
	}
	for _, d := range []string{txnDir, quarantineDir} {
		if err := c.mkdir(d); err != nil {
			return err
		}
	}
	return c.takeLock()
}

func (c *Cache) mkdir(name string) error {
	if err := c.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// takeLock finds out whether all users ended cleanly, and becomes one. Compat:
// names and meaning of lock.<name> and running.<name> are the original's; but here
// several clients may hold the lock together.
func (c *Cache) takeLock() error {
	if err := c.countDead(); err != nil {
		return err
	}
	f, err := c.root.OpenFile("lock."+c.opt.Name, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for wait := time.Millisecond; ; wait *= 2 {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
			break
		}
		if wait > time.Second { // longer than another of our kind looks for the dead
			unlock(f)
			return fmt.Errorf("in use by another kind of client, which holds lock.%s: %w", c.opt.Name, err)
		}
		time.Sleep(wait)
	}
	c.lock = f
	if !c.unnoted {
		c.epoch = c.readEpoch()
	}
	mark, err := c.root.OpenFile("running."+c.opt.Name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return mark.Close()
}

// countDead counts the users that are gone and have left their marks: of any
// repository, since they all have the same objects.
func (c *Cache) countDead() error {
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return err
	}
	var marks []string
	for _, e := range entries {
		name, isMark := strings.CutPrefix(e.Name(), "running.")
		if !isMark || !e.Type().IsRegular() {
			continue
		}
		f, err := c.root.OpenFile("lock."+name, os.O_RDONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		defer unlock(f) // held until the end is written down
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			marks = append(marks, e.Name())
		}
	}
	if len(marks) == 0 {
		return nil
	}
	c.opt.Log.Warn("the cache was not closed cleanly, its objects are checked before use", "cache", c.dir)
	c.epoch = c.readEpoch()
	c.nextEpoch()
	if c.unnoted {
		return nil
	}
	for _, m := range marks {
		if err := c.root.Remove(m); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// releaseLock removes the mark of a running client if this is the last one.
func (c *Cache) releaseLock() {
	if c.lock == nil {
		return
	}
	if !c.unnoted && unix.Flock(int(c.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = c.root.Remove("running." + c.opt.Name) // only costs a check
	}
	unlock(c.lock)
	c.lock = nil
}

// unlock frees a file's lock and closes it. In this order: a program that is just
// being started has a copy of the descriptor until it runs, and would hold the
// lock on.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // fails only where there was none
	_ = f.Close()
}

// Close ends the background work. Objects that are open stay usable.
func (c *Cache) Close() error {
	c.stop()
	c.stopped.Wait()
	if !c.readOnly.Swap(true) {
		c.writers.Wait()
		c.tally.all()
		c.releaseLock()
	}
	c.folders.close()
	return c.root.Close()
}

// ReadOnly finishes writing for good, so that the file system below can be
// remounted read-only. Reading goes on; new objects live in memory.
func (c *Cache) ReadOnly() {
	if c.readOnly.Swap(true) {
		return
	}
	c.stop()
	c.stopped.Wait()
	c.writers.Wait()
	c.tally.all()
	c.releaseLock()
}

// Usage returns the bytes of objects on disk and the limit.
func (c *Cache) Usage() (bytes, quota int64) { return c.tally.peek(), c.quota.Load() }

// Path returns the file name of an object, for readers that open files by name.
func (c *Cache) Path(h cvmfs.Hash) string {
	if c.dir == "." {
		return name(h)
	}
	return strings.TrimRight(c.dir, "/") + "/" + name(h)
}

// name is where an object lies: no suffix, whatever its kind.
func name(h cvmfs.Hash) string { return strings.TrimPrefix(h.ObjectPath(cvmfs.SuffixNone), "data/") }

// Expect is what the reader of an object knows of it.
type Expect struct {
	Size        int64 // bytes of plain content; -1 if not known
	Compression cvmfs.Compression
}

// Get opens an object. A missing or bad one gives an error wrapping
// fs.ErrNotExist.
func (c *Cache) Get(h cvmfs.Hash, want Expect) (*Object, error) {
	if o := c.share(h); o != nil {
		if want.Size >= 0 && o.Size() != want.Size || o.s.comp != want.Compression {
			_ = o.Close()
			return nil, fmt.Errorf("object %s has %d bytes of %v, wanted %d of %v: %w", h, o.s.size, o.s.comp, want.Size, want.Compression, fs.ErrNotExist)
		}
		return o, nil
	}
	dir, base := place(h)
	f, err := c.folders.openFile(dir, base, os.O_RDONLY)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.opt.Log.Warn("cached object not readable", "object", h.String(), "err", err)
		}
		return nil, fmt.Errorf("object %s: %w", h, fs.ErrNotExist)
	}
	size, err := c.check(f, h, want)
	if err != nil {
		_ = f.Close()
		if !errors.Is(err, errOther) {
			c.discard(h, err)
		}
		return nil, fmt.Errorf("object %s: %w: %w", h, err, fs.ErrNotExist)
	}
	return c.adopt(h, &shared{f: f, size: size, comp: want.Compression}), nil
}

// share returns another use of an object that is open already.
func (c *Cache) share(h cvmfs.Hash) *Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.open[h]
	if s == nil {
		return nil
	}
	s.refs++
	return &Object{c: c, hash: h, s: s}
}

// adopt enters an opened object, or uses the one that came first.
func (c *Cache) adopt(h cvmfs.Hash, s *shared) *Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.open[h]; first != nil && first.size == s.size && first.comp == s.comp {
		if s.memory {
			c.memory.Add(-s.size)
		}
		_ = s.f.Close()
		s = first
	} else {
		c.open[h] = s
	}
	s.refs++
	return &Object{c: c, hash: h, s: s}
}

var (
	errEmpty    = errors.New("empty")
	errSize     = errors.New("wrong size")
	errChecksum = errors.New("wrong checksum")
	errKind     = errors.New("not a regular file")
	errOther    = errors.New("another content, from the same stored bytes")
)

// check looks whether the file is what the cache once wrote.
func (c *Cache) check(f *os.File, h cvmfs.Hash, want Expect) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errKind
	}
	known, recorded := getRecord(f)
	switch {
	case recorded && known.comp != want.Compression:
		return 0, errOther
	case want.Size >= 0 && info.Size() != want.Size:
		return 0, errSize
	case info.Size() == 0 && want.Size != 0:
		return 0, errEmpty // Compat: an original client may have left an empty certificate
	}
	if c.epoch > 0 && (!recorded || known.epoch != c.epoch) && !c.isChecked(h) {
		if err := verify(f, h, want.Compression, known, recorded); err != nil {
			return 0, err
		}
		known.epoch = c.epoch
		if !recorded || c.readOnly.Load() || !c.setRecord(f, known) {
			c.mu.Lock()
			c.checked[h] = struct{}{}
			c.mu.Unlock()
		}
	}
	if now := c.opt.Now(); now.Sub(info.ModTime()) > touchAfter && !c.readOnly.Load() {
		_ = c.root.Chtimes(name(h), now, now) // only the order of eviction suffers
	}
	return info.Size(), nil
}

func (c *Cache) isChecked(h cvmfs.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.checked[h]
	return ok
}

// verify compares content and checksum. An uncompressed object is verified by
// its own name; others by their record, and pass where there is none, since a
// file of the right size that an original client left is no worse than there.
func verify(f *os.File, h cvmfs.Hash, comp cvmfs.Compression, known record, recorded bool) error {
	if comp == cvmfs.Plain {
		sum := h.Algorithm.New()
		if _, err := io.Copy(sum, io.NewSectionReader(f, 0, 1<<62)); err != nil {
			return err
		}
		if cvmfs.NewHash(h.Algorithm, sum) != h {
			return errChecksum
		}
		return nil
	}
	if !recorded {
		return nil
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return err
	}
	if [4]byte(sum.Sum(nil)) != known.sum {
		return errChecksum
	}
	return nil
}

// discard takes a bad file away: into quarantine if it has content that
// somebody may want to look at.
func (c *Cache) discard(h cvmfs.Hash, why error) {
	c.opt.Log.Warn("bad object in the cache", "object", h.String(), "err", why)
	if c.readOnly.Load() {
		return
	}
	var err error
	if errors.Is(why, errSize) || errors.Is(why, errChecksum) {
		err = c.root.Rename(name(h), quarantineDir+"/"+strings.ReplaceAll(name(h), "/", ""))
	} else {
		err = c.root.RemoveAll(name(h))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.opt.Log.Warn("bad object stays in the cache", "object", h.String(), "err", err)
	}
}

// Discard takes an object away whose content turned out to be unusable.
func (c *Cache) Discard(h cvmfs.Hash, why error) {
	c.discard(h, fmt.Errorf("%w: %w", errChecksum, why))
}

// Remove evicts one object; a missing one is no error.
func (c *Cache) Remove(h cvmfs.Hash) error {
	info, err := c.root.Lstat(name(h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = c.root.Remove(name(h))
	}
	if err != nil {
		return fmt.Errorf("removing object %s: %w", h, err)
	}
	c.tally.add(-onDisk(info.Size()))
	return nil
}

// Has reports whether an object is there, without looking into it.
func (c *Cache) Has(h cvmfs.Hash) bool {
	if o := c.share(h); o != nil {
		_ = o.Close()
		return true
	}
	size, err := c.folders.size(place(h))
	return err == nil && size > 0
}

// diskTrouble tells errors of a disk that takes no more data from others.
func diskTrouble(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.ENOENT, syscall.ESTALE, syscall.EACCES, syscall.EPERM, syscall.ENODEV, syscall.EFBIG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Again returns another use of the same object.
func (o *Object) Again() *Object {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	o.s.refs++
	return &Object{c: o.c, hash: o.hash, s: o.s}
}

// InMemory reports whether the object has no file of its own.
func (o *Object) InMemory() bool { return o.s.memory }
