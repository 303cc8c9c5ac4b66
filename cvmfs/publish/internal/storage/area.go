package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// area is a directory of its own for new files. There are as many of them as a
// publication has objects, and so a file costs no more than one system call to
// make: its name is counted, not guessed, it is looked up from the directory, not
// from the root, and its permissions are right from the start. It is safe for
// concurrent use.
type area struct {
	path  string
	dir   *os.File
	fd    int // of dir
	perm  fs.FileMode
	chmod bool // the umask or the directory's default ACL takes from perm
	last  atomic.Int64
}

// newArea takes a directory that is empty, for files of these permissions.
func newArea(path string, perm fs.FileMode) (*area, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	a := &area{path: path, dir: dir, fd: int(dir.Fd()), perm: perm}
	if err := a.probe(); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// probe finds out what permissions a new file has.
func (a *area) probe() error {
	f, err := a.create()
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil {
		a.chmod = fi.Mode().Perm() != a.perm
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// create makes a new file.
func (a *area) create() (*os.File, error) {
	name := "object-" + strconv.FormatInt(a.last.Add(1), 10)
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(a.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, uint32(a.perm))
		return err
	})
	path := filepath.Join(a.path, name)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if a.chmod {
		if err := f.Chmod(a.perm); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// rename moves a file to a directory with this descriptor.
func (a *area) rename(file string, dir int, name string) error {
	err := retry(func() error { return unix.Renameat(a.fd, filepath.Base(file), dir, name) })
	if err != nil {
		return fmt.Errorf("renaming %s to %s: %w", file, name, err)
	}
	return nil
}

// sync flushes the file system of the area: one call instead of one per object.
func (a *area) sync() error {
	if err := retry(func() error { return unix.Syncfs(a.fd) }); err != nil {
		return fmt.Errorf("flushing %s: %w", a.path, err)
	}
	return nil
}

func (a *area) close() { _ = a.dir.Close() }

// remove removes the area with all that is in it.
func (a *area) remove() {
	a.close()
	_ = os.RemoveAll(a.path)
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
