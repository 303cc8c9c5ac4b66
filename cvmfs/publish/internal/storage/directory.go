package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/atomicfile"
)

// Directory is a repository in a directory of this computer.
type Directory struct {
	dir  string // STORAGE/NAME
	lock string // beside it, where no server looks
}

func newDirectory(root, name string) *Directory {
	return &Directory{dir: filepath.Join(root, name), lock: filepath.Join(root, "."+name+".lock")}
}

// Dir returns the directory of the repository.
func (d *Directory) Dir() string { return d.dir }

// String returns the directory.
func (d *Directory) String() string { return d.dir }

// Parallel is one a processor.
func (d *Directory) Parallel() int { return runtime.GOMAXPROCS(0) }

func (d *Directory) file(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

type directoryLock struct{ *atomicfile.Lock }

func (directoryLock) Held() error { return nil }

// Lock takes the lock for as long as this process lives.
func (d *Directory) Lock(context.Context) (Lock, error) {
	if err := os.MkdirAll(filepath.Dir(d.lock), 0o755); err != nil {
		return nil, err
	}
	l, err := atomicfile.TryLock(d.lock)
	if err != nil {
		return nil, err
	}
	return directoryLock{l}, nil
}

// Open opens a file.
func (d *Directory) Open(_ context.Context, name string) (io.ReadCloser, error) {
	f, err := os.Open(d.file(name))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Stat describes a regular file. Anything else is not there.
func (d *Directory) Stat(_ context.Context, name string) (Info, error) {
	file := d.file(name)
	var st unix.Stat_t
	if err := retry(func() error { return unix.Lstat(file, &st) }); err != nil {
		return Info{}, &fs.PathError{Op: "lstat", Path: file, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Info{}, fmt.Errorf("%s is no file: %w", file, fs.ErrNotExist)
	}
	return Info{name, st.Size, time.Unix(st.Mtim.Unix())}, nil
}

// Replace replaces a file atomically. Files named .prev are not for readers.
func (d *Directory) Replace(_ context.Context, name string, data []byte) error {
	perm := fs.FileMode(0o644)
	if strings.HasSuffix(name, ".prev") {
		perm = 0o600
	}
	if err := os.MkdirAll(filepath.Dir(d.file(name)), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(d.file(name), data, perm)
}

// Remove removes files one by one.
func (d *Directory) Remove(ctx context.Context, names []string, done func(n int)) error {
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if i%1024 == 0 {
			done(i)
		}
	}
	done(len(names))
	return nil
}

// Objects lists the files of data/ and of the directories in it.
func (d *Directory) Objects(ctx context.Context, visit func(Info) error) error {
	dirs, err := os.ReadDir(d.file("data"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, sub := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := "data/" + sub.Name()
		if dir == stagingDir || !sub.IsDir() {
			continue
		}
		entries, err := os.ReadDir(d.file(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := visit(Info{dir + "/" + e.Name(), fi.Size(), fi.ModTime()}); err != nil {
				return err
			}
		}
	}
	return nil
}

const stagingDir = "data/txn"

// stagingPrefix marks what a killed publication of ours left behind.
const stagingPrefix = "mica-"

// prepare makes the directories objects go to. They exist beforehand in every
// repository, so that storing an object is one rename.
func (d *Directory) prepare() error {
	if err := os.MkdirAll(d.file(stagingDir), 0o755); err != nil {
		return err
	}
	for i := range 256 {
		if err := os.Mkdir(d.file(fmt.Sprintf("data/%02x", i)), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// Stage makes a directory on the same file system.
func (d *Directory) Stage(context.Context) (Stage, error) {
	if err := d.prepare(); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(d.file(stagingDir))
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), stagingPrefix) {
			if err := os.RemoveAll(filepath.Join(d.file(stagingDir), e.Name())); err != nil {
				return nil, err
			}
		}
	}
	dir, err := os.MkdirTemp(d.file(stagingDir), stagingPrefix)
	if err != nil {
		return nil, err
	}
	a, err := newArea(dir, 0o644) // a web server reads the objects
	if err != nil {
		return nil, err
	}
	return &directoryStage{d: d, area: a, files: make(map[string]string)}, nil
}

type directoryStage struct {
	d    *Directory
	area *area

	mu    sync.Mutex        // guards the following
	files map[string]string // name → staged file
	named bool              // since the last Commit something was
}

func (s *directoryStage) Dir() string { return s.area.path }

func (s *directoryStage) Create() (*os.File, error) { return s.area.create() }

func (s *directoryStage) Add(_ context.Context, name, file string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = file
	return nil
}

// Advance makes the objects durable and then gives them their names, so that a
// name never stands for bytes a power cut may still take.
func (s *directoryStage) Advance(ctx context.Context) error {
	s.mu.Lock()
	files := s.files
	s.files = make(map[string]string)
	s.named = s.named || len(files) > 0
	s.mu.Unlock()
	if len(files) == 0 {
		return nil
	}
	if err := s.area.sync(); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(files))
	for len(names) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir, _ := path.Split(names[0])
		end := slices.IndexFunc(names, func(name string) bool { return !strings.HasPrefix(name, dir) })
		if end < 0 {
			end = len(names)
		}
		if err := s.move(dir, names[:end], files); err != nil {
			return err
		}
		names = names[end:]
	}
	return nil
}

// Commit does the same for what is left, and makes the names durable, too.
func (s *directoryStage) Commit(ctx context.Context) error {
	if err := s.Advance(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	named := s.named
	s.named = false
	s.mu.Unlock()
	if !named {
		return nil
	}
	return s.area.sync()
}

// move gives the objects of one directory their names.
func (s *directoryStage) move(dir string, names []string, files map[string]string) error {
	to, err := os.Open(s.d.file(dir))
	if err != nil {
		return err
	}
	defer to.Close()
	fd := int(to.Fd())
	for _, name := range names {
		if err := s.area.rename(files[name], fd, name[len(dir):]); err != nil {
			return err
		}
	}
	return nil
}

func (s *directoryStage) Discard() { s.area.remove() }
