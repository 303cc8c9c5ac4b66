package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

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
	fi, err := os.Lstat(d.file(name))
	if err != nil {
		return Info{}, err
	}
	if !fi.Mode().IsRegular() {
		return Info{}, fmt.Errorf("%s is no file: %w", d.file(name), fs.ErrNotExist)
	}
	return Info{name, fi.Size(), fi.ModTime()}, nil
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
	return &directoryStage{d: d, dir: dir, files: make(map[string]string)}, nil
}

type directoryStage struct {
	d   *Directory
	dir string

	mu    sync.Mutex        // guards files
	files map[string]string // name → staged file
}

func (s *directoryStage) Dir() string { return s.dir }

func (s *directoryStage) Add(_ context.Context, name, file string) error {
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // a web server reads it
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = file
	return nil
}

// Commit makes the objects durable and then gives them their names, so that a
// name never stands for bytes a power cut may still take.
func (s *directoryStage) Commit(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		return nil
	}
	if err := syncFS(s.dir); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := os.Rename(s.files[name], s.d.file(name)); err != nil {
			return err
		}
		delete(s.files, name)
	}
	return syncFS(s.dir)
}

func (s *directoryStage) Discard() { _ = os.RemoveAll(s.dir) }

// syncFS flushes the file system of dir: one call instead of one per object.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("flushing %s: %w", dir, err)
	}
	return nil
}
