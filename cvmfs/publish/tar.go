package publish

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/catalog"
)

// decompress returns the archive in r, which may be packed by gzip, bzip2, xz or
// zstd.
func decompress(r io.Reader) (io.Reader, func(), error) {
	in := bufio.NewReaderSize(r, 256<<10)
	magic, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	nothing := func() {}
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(in)
		return z, nothing, err
	case bytes.HasPrefix(magic, []byte("BZh")):
		return bzip2.NewReader(in), nothing, nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		z, err := xz.NewReader(in)
		return z, nothing, err
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return in, nothing, nil
}

// unpacker makes the tree of an archive and stores the contents of its files as
// they come by.
//
// Differs: members of an archive that are hard links of each other within one
// directory stay so, as those of a tree do; the original makes copies of them
// (cvmfs: cvmfs/sync_item_tar.cc). Directories the archive does not mention
// belong to root, not to nobody at all.
type unpacker struct {
	s     *scanner
	g     *staging
	tar   *tar.Reader
	root  *folder
	links []link
	real  map[*node]*node // of a link: what it is one to
	inode uint64          // last one given
	begun bool

	inline *reader // for big files
	queue  chan small
}

// folder is a directory while the archive is read.
type folder struct {
	n       *node
	index   map[string]*node // children by name
	folders map[string]*folder
	grafts  map[string]*graft // descriptions of children by name
}

func newFolder(n *node) *folder {
	return &folder{n: n, index: make(map[string]*node), folders: make(map[string]*folder), grafts: make(map[string]*graft)}
}

// link is a name of a file whose content may not be known yet.
type link struct{ n, to *node }

// small is a file that has been read and waits to be packed.
type small struct {
	n    *node
	path string
	data []byte
}

// maxSmallFile is the size up to which files are packed side by side.
const maxSmallFile = 1 << 20

// scanTar builds the tree of an archive and compares it with the base revision.
func (s *scanner) scanTar(ctx context.Context, g *staging, r io.Reader, result *Result) (*node, error) {
	in, end, err := decompress(r)
	if err != nil {
		return nil, fmt.Errorf("reading archive: %w: %w", ErrSource, err)
	}
	defer end()
	u := &unpacker{s: s, g: g, tar: tar.NewReader(in), real: make(map[*node]*node), queue: make(chan small)}
	if err := u.all(ctx, result); err != nil {
		return nil, err
	}
	root := u.root.n
	if err := (&comparison{base: s.base}).tree(ctx, root); err != nil {
		return nil, err
	}
	s.report(Progress{Phase: PhaseScan, Done: s.seen, Finished: true})
	return root, nil
}

// all reads the archive to its end.
func (u *unpacker) all(ctx context.Context, result *Result) error {
	group, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex // guards the order of reports
	report := func(bytes int64) {
		mu.Lock()
		defer mu.Unlock()
		result.BytesRead += bytes
		u.s.report(Progress{Phase: PhaseFiles, Done: result.BytesRead})
	}
	workers := u.s.options.Workers
	if workers <= 0 {
		workers = u.g.s.store.Parallel()
	}
	for range workers {
		group.Go(func() error {
			w := newReader(u.s, u.g, report)
			defer w.p.abort()
			for f := range u.queue {
				if err := w.store(ctx, f.n, f.path, bytes.NewReader(f.data)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	u.inline = newReader(u.s, u.g, report)
	group.Go(func() error {
		defer close(u.queue)
		defer u.inline.p.abort()
		return u.members(ctx, result)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	for _, l := range u.links {
		e, name := l.to.entry, l.n.entry.Name
		e.Name = name
		l.n.entry, l.n.xattrs, l.n.chunks = e, l.to.xattrs, l.to.chunks
	}
	u.settle(u.root, "")
	u.s.report(Progress{Phase: PhaseFiles, Done: result.BytesRead, Finished: true})
	return nil
}

// members reads one after the other.
func (u *unpacker) members(ctx context.Context, result *Result) error {
	u.root = newFolder(u.implied("", 0, 0))
	for count := 0; ; count++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := u.tar.Next()
		if errors.Is(err, io.EOF) {
			if count == 0 {
				return fmt.Errorf("the archive is empty: %w", ErrSource)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading archive: %w: %w", ErrSource, err)
		}
		if err := u.member(ctx, h, result); err != nil {
			return err
		}
		u.s.seen++
	}
}

// where cleans the name of a member.
func where(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("archive: %q leads out of it: %w", name, ErrSource)
		}
		if len(part) > unix.NAME_MAX {
			return "", fmt.Errorf("archive: %.300q has a name of %d bytes, more than %d: %w", name, len(part), unix.NAME_MAX, ErrSource)
		}
	}
	clean := path.Clean("/" + name)
	if clean == "/" {
		return "", nil
	}
	return clean, nil
}

func (u *unpacker) member(ctx context.Context, h *tar.Header, result *Result) error {
	at, err := where(h.Name)
	if err != nil {
		return err
	}
	n, err := u.node(h, at)
	if err != nil || n == nil {
		return err
	}
	if !u.begun {
		u.begun = true
		u.root.n.entry.MTime, u.root.n.entry.MTimeNS = n.entry.MTime, n.entry.MTimeNS
	}
	if at == "" {
		if !n.dir() {
			return fmt.Errorf("archive: its root is no directory: %w", ErrSource)
		}
		u.root.n = n
		return nil
	}
	parent, err := u.folder(path.Dir(at), n)
	if err != nil {
		return err
	}
	if n.entry.Name == markerName && !n.entry.IsRegular() && h.Typeflag != tar.TypeLink {
		return fmt.Errorf("archive: %q is no regular file: %w", at, ErrSource)
	}
	if target, is := strings.CutPrefix(n.entry.Name, graftPrefix); is {
		parent.grafts[target], err = readGraft(at, u.tar)
		return err
	}
	if h.Typeflag == tar.TypeLink {
		if err := u.link(n, h, at); err != nil {
			return err
		}
	}
	if err := parent.put(n, at); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink || !n.entry.IsRegular() {
		return nil
	}
	result.Read++
	return u.content(ctx, n, at)
}

// put makes n a child, in the place of a former one of the same name: what comes
// later in an archive counts.
func (f *folder) put(n *node, at string) error {
	name := n.entry.Name
	old := f.index[name]
	f.index[name] = n
	if old == nil {
		return nil
	}
	if old.dir() != n.dir() {
		return fmt.Errorf("archive: %q is a directory and something else: %w", at, ErrSource)
	}
	if sub := f.folders[name]; sub != nil {
		sub.n = n
	}
	return nil
}

// folder finds a directory, and makes those the archive has not mentioned.
func (u *unpacker) folder(at string, because *node) (*folder, error) {
	f := u.root
	if at == "/" {
		return f, nil
	}
	for name := range strings.SplitSeq(at[1:], "/") {
		sub := f.folders[name]
		if sub == nil {
			n := f.index[name]
			if n == nil {
				n = u.implied(name, because.entry.MTime, because.entry.MTimeNS)
				f.index[name] = n
			}
			if !n.dir() {
				return nil, fmt.Errorf("archive: something is below %q, which is no directory: %w", at, ErrSource)
			}
			sub = newFolder(n)
			f.folders[name] = sub
		}
		f = sub
	}
	return f, nil
}

// implied is a directory the archive does not mention. Its date is that of what
// first was found in it, so that equal archives give equal trees.
func (u *unpacker) implied(name string, mtime int64, ns int32) *node {
	n := &node{}
	n.entry.Name, n.entry.Mode, n.entry.Size, n.entry.MTime, n.entry.MTimeNS = name, catalog.ModeDir|0o755, dirSize, mtime, ns
	if o := u.s.options.Owner; o != nil {
		n.entry.UID, n.entry.GID = o.UID, o.GID
	}
	return n
}

// node describes a member; nil is one to leave out.
func (u *unpacker) node(h *tar.Header, at string) (*node, error) {
	kinds := map[byte]uint32{
		tar.TypeReg: catalog.ModeRegular, '\x00': catalog.ModeRegular, tar.TypeCont: catalog.ModeRegular, tar.TypeLink: catalog.ModeRegular, tar.TypeGNUSparse: catalog.ModeRegular,
		tar.TypeDir: catalog.ModeDir, tar.TypeSymlink: catalog.ModeSymlink, tar.TypeFifo: catalog.ModeFIFO, tar.TypeChar: catalog.ModeChar, tar.TypeBlock: catalog.ModeBlock,
	}
	kind, known := kinds[h.Typeflag]
	if !known {
		if h.Typeflag != tar.TypeXGlobalHeader {
			u.s.warn("%q: member of type %q left out", at, h.Typeflag)
		}
		return nil, nil
	}
	if h.Uid < 0 || h.Gid < 0 || h.Uid > 1<<32-1 || h.Gid > 1<<32-1 {
		return nil, fmt.Errorf("archive: %q belongs to %d:%d: %w", at, h.Uid, h.Gid, ErrSource)
	}
	n := &node{entry: catalog.Entry{
		Name: path.Base(at), Mode: kind | uint32(h.Mode&0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid), Nlink: 1, //nolint:gosec // in range
		MTime: h.ModTime.Unix(), MTimeNS: int32(h.ModTime.Nanosecond()), //nolint:gosec // below 1e9
	}}
	if at == "" {
		n.entry.Name = ""
	}
	e := &n.entry
	if o := u.s.options.Owner; o != nil {
		e.UID, e.GID = o.UID, o.GID
	}
	switch kind {
	case catalog.ModeDir:
		e.Size = dirSize
	case catalog.ModeRegular:
		e.Size, e.Compression = h.Size, u.s.options.Compression
		u.s.options.place(e, at)
	case catalog.ModeSymlink:
		if n := len(h.Linkname); n == 0 || n > catalog.MaxSymlink {
			return nil, fmt.Errorf("archive: %q leads to a path of %d bytes, want 1 to %d: %w", at, n, catalog.MaxSymlink, ErrSource)
		}
		e.Mode, e.Symlink, e.Size = kind|0o777, h.Linkname, int64(len(h.Linkname))
	case catalog.ModeChar, catalog.ModeBlock:
		e.Rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)) //nolint:gosec // what the archive says
	}
	const prefix = "SCHILY.xattr."
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if name, ok := strings.CutPrefix(key, prefix); ok && u.s.options.Xattrs.allows(name) {
			n.xattrs = u.s.keepXattr(at, n.xattrs, name, []byte(h.PAXRecords[key]))
		}
	}
	e.HasXattrs = len(n.xattrs) > 0
	return n, nil
}

// link makes n another name of a member that has been there.
func (u *unpacker) link(n *node, h *tar.Header, at string) error {
	target, err := where(h.Linkname)
	if err != nil {
		return err
	}
	var to *node
	if target != "" {
		f := u.root
		dir, name := path.Split(target)
		for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
			if part != "" && f != nil {
				f = f.folders[part]
			}
		}
		if f != nil {
			to = f.index[name]
		}
	}
	if to == nil || to.dir() {
		return fmt.Errorf("archive: %q is a link to %q, which is no file before it: %w", at, h.Linkname, ErrSource)
	}
	if first := u.real[to]; first != nil {
		to = first
	}
	if to.inode == (inode{}) {
		u.inode++
		to.inode = inode{1, u.inode}
	}
	n.inode = to.inode
	n.entry.Mode = to.entry.Mode
	u.links, u.real[n] = append(u.links, link{n, to}), to
	return nil
}

// content stores a file that is next in the archive.
func (u *unpacker) content(ctx context.Context, n *node, at string) error {
	if n.entry.Size > maxSmallFile {
		return u.inline.store(ctx, n, at, u.tar)
	}
	data := make([]byte, n.entry.Size)
	if _, err := io.ReadFull(u.tar, data); err != nil {
		return fmt.Errorf("reading archive: %q: %w: %w", at, ErrSource, err)
	}
	if at == "/"+dirtabName {
		u.s.rules = data
	}
	return send(ctx, u.queue, small{n, at, data})
}

// settle makes sorted lists of the folders, gives files the contents that are
// described, and groups hard links.
func (u *unpacker) settle(f *folder, path string) {
	f.n.children = slices.SortedFunc(maps.Values(f.index), func(a, b *node) int { return strings.Compare(a.entry.Name, b.entry.Name) })
	u.s.graft(path, f.grafts, f.n.child)
	links := make(map[inode][]*node)
	subdirs := uint32(0)
	for _, n := range f.n.children {
		if n.dir() {
			subdirs++
			n.entry.Nlink = 2
		} else if n.inode != (inode{}) {
			links[n.inode] = append(links[n.inode], n)
		}
	}
	f.n.entry.Nlink = 2 + subdirs
	groupLinks(f.n, links)
	for _, name := range slices.Sorted(maps.Keys(f.folders)) {
		u.settle(f.folders[name], path+"/"+name)
	}
	f.index, f.folders, f.grafts = nil, nil, nil
}
