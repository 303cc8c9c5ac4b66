package objectcache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

// folders are the folders of a cache that every object passes through. An os.Root
// opens and closes each folder of a path at each call; here a folder is opened
// through it once, and then serves single names, which cannot lead out of it.
// Safe for concurrent use.
type folders struct {
	root *os.Root
	open [257]atomic.Pointer[folder] // by the first byte of the hash, and txn; nil before its first use

	mu     sync.Mutex // guards opening and closing them
	closed bool
}

// txnFolder is the place of txn beside those of the hashes.
const txnFolder = 256

type folder struct {
	f    *os.File
	conn syscall.RawConn // keeps the descriptor from being closed under a call
	info fs.FileInfo
}

func folderName(i int) string {
	if i == txnFolder {
		return txnDir
	}
	return fmt.Sprintf("%02x", i)
}

// place is the folder of an object, and its name there.
func place(h cvmfs.Hash) (folder int, base string) { return int(h.Digest[0]), name(h)[len("00/"):] }

// in calls do with the descriptor of a folder. Where do does not find what it
// looks for, and the folder is not the one under its name any more, because
// somebody cleared the cache, do is called again with the one that is. A folder
// that is missing gives fs.ErrNotExist.
func (f *folders) in(i int, do func(dir int) error) error {
	for again := false; ; again = true {
		d, err := f.get(i)
		if err != nil {
			return err
		}
		closed := d.conn.Control(func(fd uintptr) {
			for err = do(int(fd)); err == unix.EINTR; { //nolint:errorlint // what the kernel said, as it said it
				err = do(int(fd))
			}
		})
		if closed != nil {
			return closed
		}
		if again || !errors.Is(err, fs.ErrNotExist) || f.current(i, d) {
			return err
		}
	}
}

func (f *folders) get(i int) (*folder, error) {
	if d := f.open[i].Load(); d != nil {
		return d, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.open[i].Load(); d != nil {
		return d, nil
	}
	if f.closed {
		return nil, os.ErrClosed
	}
	file, err := f.root.OpenFile(folderName(i), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := &folder{f: file}
	if d.info, err = file.Stat(); err == nil {
		d.conn, err = file.SyscallConn()
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	f.open[i].Store(d)
	return d, nil
}

// current reports whether a folder is still the one under its name, and forgets
// it if not. It is not closed, since others may be using it: os.File does so when
// nobody is. Its inode number is not given anew before that.
func (f *folders) current(i int, d *folder) bool {
	info, err := f.root.Stat(folderName(i))
	if err == nil && os.SameFile(info, d.info) {
		return true
	}
	f.open[i].CompareAndSwap(d, nil)
	return false
}

// close closes all; calls that are going on end first.
func (f *folders) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for i := range f.open {
		if d := f.open[i].Swap(nil); d != nil {
			_ = d.f.Close() // was never written to
		}
	}
}

// openFile opens a file of a folder.
func (f *folders) openFile(i int, base string, flags int) (file *os.File, err error) {
	err = f.in(i, func(dir int) error {
		fd, err := unix.Openat(dir, base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err == nil {
			file = os.NewFile(uintptr(fd), folderName(i)+"/"+base)
		}
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: folderName(i) + "/" + base, Err: err}
	}
	return file, nil
}

// size is the length of a file of a folder.
func (f *folders) size(i int, base string) (int64, error) {
	var st unix.Stat_t
	err := f.in(i, func(dir int) error { return unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st.Size, err
}

// finish gives a file of txn its final place. A folder that somebody removed is
// made anew.
func (c *Cache) finish(temp string, h cvmfs.Hash) error {
	to, base := place(h)
	rename := func() error {
		return c.folders.in(to, func(dir int) error {
			return c.folders.in(txnFolder, func(old int) error { return unix.Renameat(old, temp, dir, base) })
		})
	}
	err := rename()
	if errors.Is(err, fs.ErrNotExist) {
		if err = c.mkdir(folderName(to)); err == nil {
			err = rename()
		}
	}
	return err
}
