package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/micavm/mica/cvmfs/catalog"
)

// FS returns the repository as a file system of package io/fs, with ReadLink and
// Lstat. Open and Stat follow symbolic links as if the repository were the root
// of a machine. Names that io/fs has no form for (not UTF-8) are left out.
func (r *Repository) FS() fs.FS { return fsys{r} }

type fsys struct{ r *Repository }

var _ interface {
	fs.ReadLinkFS
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
} = fsys{}

// maxLinks is how many symbolic links one name may lead through, as in Linux.
const maxLinks = 40

// Resolve follows the symbolic links of a path, in the middle and at the end, as
// if the repository were the root of a machine, and returns where it leads to.
func (r *Repository) Resolve(ctx context.Context, p string) (string, catalog.Entry, error) {
	at, e, err := r.follow(ctx, clean(p), true)
	if err != nil {
		return "", catalog.Entry{}, &fs.PathError{Op: "open", Path: display(clean(p)), Err: plain(err)}
	}
	return at, *e, nil
}

// follow works on a clean path. Without last, a link at its end stays.
func (r *Repository) follow(ctx context.Context, p string, last bool) (string, *catalog.Entry, error) {
	rest := strings.Split(p, "/")
	at := ""
	e, err := r.lookup(ctx, at)
	if err != nil {
		return "", nil, err
	}
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			at = parentOf(at)
			if e, err = r.lookup(ctx, at); err != nil {
				return "", nil, err
			}
			continue
		}
		if !e.IsDir() {
			return "", nil, errNotDir
		}
		here := at + "/" + next
		if e, err = r.lookup(ctx, here); err != nil {
			return "", nil, err
		}
		if e.IsSymlink() && (last || len(rest) > 0) {
			if links++; links > maxLinks {
				return "", nil, syscall.ELOOP
			}
			target := expand(e.Symlink, r.vars)
			if path.IsAbs(target) {
				at = ""
			}
			if e, err = r.lookup(ctx, at); err != nil {
				return "", nil, err
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		at = here
	}
	return at, e, nil
}

func (f fsys) resolve(op, name string, follow bool) (string, *catalog.Entry, error) {
	if !fs.ValidPath(name) {
		return "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at, e, err := f.r.follow(context.Background(), name, follow)
	if err != nil {
		return "", nil, &fs.PathError{Op: op, Path: name, Err: plain(err)}
	}
	return at, e, nil
}

// plain takes the path off an error that gets another one.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (f fsys) Open(name string) (fs.File, error) {
	at, e, err := f.resolve("open", name, true)
	if err != nil {
		return nil, err
	}
	info := fileInfo{name: path.Base(name), e: *e}
	if e.IsDir() {
		list, err := f.list(name, at)
		if err != nil {
			return nil, err
		}
		return &dirFile{info: info, list: list}, nil
	}
	if e.IsSpecial() {
		return &specialFile{info}, nil
	}
	file, err := f.r.openEntry(context.Background(), at, *e)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &regularFile{File: file, info: info, section: io.NewSectionReader(file, 0, e.Size)}, nil
}

func (f fsys) list(name, at string) ([]fs.DirEntry, error) {
	entries, err := f.r.ReadDir(context.Background(), at)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: plain(err)}
	}
	list := make([]fs.DirEntry, 0, len(entries))
	for _, e := range entries {
		if fs.ValidPath(e.Name) {
			list = append(list, fs.FileInfoToDirEntry(fileInfo{name: e.Name, e: e}))
		}
	}
	return list, nil
}

func (f fsys) ReadDir(name string) ([]fs.DirEntry, error) {
	at, _, err := f.resolve("readdir", name, true)
	if err != nil {
		return nil, err
	}
	return f.list(name, at)
}

func (f fsys) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	regular, ok := file.(*regularFile)
	if !ok { // a directory refuses, a special file has nothing
		return io.ReadAll(file)
	}
	// No more memory at once than there are bytes: the size is what a catalogue says.
	var data bytes.Buffer
	data.Grow(int(min(regular.Size(), 1<<20)))
	if _, err := data.ReadFrom(regular); err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: plain(err)}
	}
	return data.Bytes(), nil
}

func (f fsys) stat(op, name string, follow bool) (fs.FileInfo, error) {
	_, e, err := f.resolve(op, name, follow)
	if err != nil {
		return nil, err
	}
	return fileInfo{name: path.Base(name), e: *e}, nil
}

func (f fsys) Stat(name string) (fs.FileInfo, error)  { return f.stat("stat", name, true) }
func (f fsys) Lstat(name string) (fs.FileInfo, error) { return f.stat("lstat", name, false) }

func (f fsys) ReadLink(name string) (string, error) {
	_, e, err := f.resolve("readlink", name, false)
	if err != nil {
		return "", err
	}
	if !e.IsSymlink() {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return expand(e.Symlink, f.r.vars), nil
}

// FileMode translates the mode of an entry.
func FileMode(e catalog.Entry) fs.FileMode {
	mode := fs.FileMode(e.Mode & 0o777)
	switch e.Mode & catalog.ModeType {
	case catalog.ModeDir:
		mode |= fs.ModeDir
	case catalog.ModeSymlink:
		mode |= fs.ModeSymlink
	case catalog.ModeFIFO:
		mode |= fs.ModeNamedPipe
	case catalog.ModeSocket:
		mode |= fs.ModeSocket
	case catalog.ModeChar:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case catalog.ModeBlock:
		mode |= fs.ModeDevice
	}
	if e.Mode&syscall.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if e.Mode&syscall.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if e.Mode&syscall.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// fileInfo presents an entry; Sys returns it.
type fileInfo struct {
	name string
	e    catalog.Entry
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.e.Size }
func (i fileInfo) Mode() fs.FileMode  { return FileMode(i.e) }
func (i fileInfo) ModTime() time.Time { return MTime(i.e) }
func (i fileInfo) IsDir() bool        { return i.e.IsDir() }
func (i fileInfo) Sys() any           { return i.e }
func (i fileInfo) String() string     { return fs.FormatFileInfo(i) }

type regularFile struct {
	*File
	info    fileInfo
	section *io.SectionReader
}

func (f *regularFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *regularFile) Read(p []byte) (int, error) { return f.section.Read(p) }
func (f *regularFile) Seek(offset int64, whence int) (int64, error) {
	return f.section.Seek(offset, whence)
}

// specialFile is a pipe, socket or device: there is nothing to read here.
type specialFile struct{ info fileInfo }

func (f *specialFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *specialFile) Close() error               { return nil }
func (f *specialFile) Read([]byte) (int, error)   { return 0, io.EOF }

type dirFile struct {
	info fileInfo
	list []fs.DirEntry
	next int
}

func (d *dirFile) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dirFile) Close() error               { return nil }

func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errIsDir}
}

func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	left := d.list[d.next:]
	if n <= 0 {
		d.next = len(d.list)
		return left, nil
	}
	if len(left) == 0 {
		return nil, io.EOF
	}
	left = left[:min(n, len(left))]
	d.next += len(left)
	return left, nil
}
