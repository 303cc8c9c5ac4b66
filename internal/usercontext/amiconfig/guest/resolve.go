package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

const maxLinks = 40 // as the Linux kernel

// resolve returns the path below the Root that name stands for, without
// symbolic links, in the form os.Root wants ("etc/passwd", "." for the Root).
// Parts that do not exist are kept. With last, a symbolic link at the end is
// followed too.
func (r *Root) resolve(name string, last bool) (string, error) {
	if strings.IndexByte(name, 0) >= 0 || name == "" {
		return "", &fs.PathError{Op: "resolve", Path: name, Err: fs.ErrInvalid}
	}
	pending := parts(name)
	var done []string
	links := 0
	for len(pending) > 0 {
		part := pending[0]
		pending = pending[1:]
		if part == ".." {
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			continue
		}
		here := path.Join(append(done[:len(done):len(done)], part)...)
		info, err := r.dir.Lstat(here)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			done = append(done, part)
			continue
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink == 0 || (len(pending) == 0 && !last):
			done = append(done, part)
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
		}
		target, err := r.dir.Readlink(here)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(target, "/") {
			done = done[:0]
		}
		pending = append(parts(target), pending...)
	}
	if len(done) == 0 {
		return ".", nil
	}
	return path.Join(done...), nil
}

// parts splits a path, leaving out empty parts and dots.
func parts(name string) []string {
	var list []string
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			list = append(list, part)
		}
	}
	return list
}

// clean is the name under which a path is recorded.
func clean(name string) string { return path.Clean("/" + name) }

// about says what was being done to which path, for a failing system call.
func about(doing, name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s %s: %w", doing, clean(name), err)
}

// Real returns the path that name stands for, without symbolic links.
func (r *Root) Real(name string) (string, error) {
	at, err := r.resolve(name, true)
	if err != nil {
		return "", about("resolving", name, err)
	}
	return clean(at), nil
}
