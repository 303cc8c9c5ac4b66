package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a file being written. Write to it, then Commit; Close without Commit
// removes it.
type File struct {
	*os.File
	path string
	done bool
}

// Create starts a file that will appear at path with the given permissions,
// whatever the umask.
func Create(path string, perm fs.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return nil, fmt.Errorf("creating %s: %w", path, pathless(err))
	}
	if err := f.Chmod(perm); err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, fmt.Errorf("creating %s: %w", path, pathless(err))
	}
	return &File{File: f, path: path}, nil
}

// Commit makes the file appear under its name. After it Close does nothing.
func (f *File) Commit() error {
	if f.done {
		return nil
	}
	err := f.Sync()
	if cerr := f.File.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	f.done = true
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("writing %s: %w", f.path, pathless(err))
	}
	return syncDir(filepath.Dir(f.path))
}

// Close removes a file that was not committed.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	err := f.File.Close()
	if rerr := os.Remove(f.Name()); err == nil {
		err = rerr
	}
	return err
}

// Write replaces the file at path with data.
func Write(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // Commit reports
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("writing %s: %w", path, pathless(err))
	}
	return f.Commit()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// pathless drops the temporary name from an error: the user knows the final one.
func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
