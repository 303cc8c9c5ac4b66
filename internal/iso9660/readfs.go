package iso9660

import (
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// The image as a file system.
var (
	_ fs.ReadLinkFS = (*Image)(nil)
	_ fs.ReadDirFS  = (*Image)(nil)
	_ fs.StatFS     = (*Image)(nil)
)

// find walks to a path. Symbolic links are not followed.
func (img *Image) find(op, name string) (*object, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	o := img.root
	if name == "." {
		return o, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		i := slices.IndexFunc(o.children, func(c *object) bool { return c.name == part })
		if i < 0 {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		o = o.children[i]
	}
	return o, nil
}

// Open implements fs.FS. A symbolic link is not followed and cannot be opened.
// Regular files are io.ReaderAt and io.Seeker too.
func (img *Image) Open(name string) (fs.File, error) {
	o, err := img.find("open", name)
	if err != nil {
		return nil, err
	}
	switch {
	case o.mode.IsDir():
		return &openDir{info: info{o}, left: entriesOf(o)}, nil
	case o.mode.IsRegular():
		return &openFile{info: info{o}, SectionReader: io.NewSectionReader(img.r, int64(o.extent)*SectorSize, o.size)}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFS.
func (img *Image) ReadDir(name string) ([]fs.DirEntry, error) {
	o, err := img.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !o.mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	return entriesOf(o), nil
}

// Stat implements fs.StatFS; as links are not followed, it is Lstat.
func (img *Image) Stat(name string) (fs.FileInfo, error) { return img.Lstat(name) }

// Lstat implements fs.ReadLinkFS.
func (img *Image) Lstat(name string) (fs.FileInfo, error) {
	o, err := img.find("lstat", name)
	if err != nil {
		return nil, err
	}
	return info{o}, nil
}

// ReadLink implements fs.ReadLinkFS.
func (img *Image) ReadLink(name string) (string, error) {
	o, err := img.find("readlink", name)
	if err != nil {
		return "", err
	}
	if o.mode&fs.ModeSymlink == 0 {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return o.link, nil
}

func entriesOf(o *object) []fs.DirEntry {
	entries := make([]fs.DirEntry, len(o.children))
	for i, c := range o.children {
		entries[i] = fs.FileInfoToDirEntry(info{c})
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries
}

type info struct{ o *object }

func (i info) Name() string       { return i.o.name }
func (i info) Size() int64        { return i.o.size }
func (i info) Mode() fs.FileMode  { return i.o.mode }
func (i info) ModTime() time.Time { return i.o.time }
func (i info) IsDir() bool        { return i.o.mode.IsDir() }
func (i info) Sys() any           { return nil }

type openFile struct {
	info
	*io.SectionReader
}

func (f *openFile) Size() int64                { return f.info.Size() }
func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info
	left []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.o.name, Err: fs.ErrInvalid}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.left)
	} else if len(d.left) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.left))
	some := d.left[:n]
	d.left = d.left[n:]
	return some, nil
}
