package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// Names that mean something to publishers, old and new.
const (
	markerName = ".cvmfscatalog"     // its directory is the root of a nested catalogue
	autoName   = ".cvmfsautocatalog" // beside it: nobody asked, the publisher chose
	dirtabName = ".cvmfsdirtab"      // rules for more of them
)

// node is a file or directory of the new revision.
type node struct {
	entry    catalog.Entry
	xattrs   map[string][]byte
	chunks   []catalog.Chunk
	children []*node // of a directory, by name
	inode    inode   // of a non-directory with several names; zero otherwise

	was       *catalog.Entry // the same path in the revision before
	wasXattrs map[string][]byte
	wasChunks []catalog.Chunk
	before    *before // of the root of a catalogue in the revision before
	gone      bool    // of a directory: something was removed from it

	// markers of the revision before that the source does not have, because the
	// publisher had added them.
	wasMarker, wasAuto *node

	nested  bool // the root of a nested catalogue
	auto    bool // … that the publisher chose
	grafted bool // of a file: its content is described, not read
}

// dir looks at nothing of the entry but the mode, which never changes: others may
// be completing the rest.
func (n *node) dir() bool { return n.entry.Mode&catalog.ModeType == catalog.ModeDir }

func (n *node) child(name string) *node {
	i, found := slices.BinarySearchFunc(n.children, name, func(c *node, name string) int { return strings.Compare(c.entry.Name, name) })
	if !found {
		return nil
	}
	return n.children[i]
}

// insert adds a child the source does not have.
func (n *node) insert(c *node) {
	i, _ := slices.BinarySearchFunc(n.children, c.entry.Name, func(c *node, name string) int { return strings.Compare(c.entry.Name, name) })
	n.children = slices.Insert(n.children, i, c)
}

type inode struct{ dev, ino uint64 }

// scanner reads the source tree.
type scanner struct {
	root     string
	device   uint64
	options  *Options
	base     *base
	warnings []string
	report   func(Progress)
	seen     int64
	empty    cvmfs.Hash // the content of markers
	marked   bool       // some marker has it
	rules    []byte     // .cvmfsdirtab of an archive
	grafted  []placed
}

// scan makes the tree of the source. Three things go on side by side: one
// goroutine reads the tree, a second one follows and compares it with the base
// revision, and several store the contents that this finds to be new.
func (s *scanner) scan(ctx context.Context, g *staging, result *Result) (*node, error) {
	var st unix.Stat_t
	if err := unix.Stat(s.file(""), &st); err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.file(""), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("reading %s: %w", s.file(""), unix.ENOTDIR)
	}
	s.device = st.Dev
	root, err := s.node("", "", &st)
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	walked := make(chan *node, 256)
	stored := newContents(s, g)
	group.Go(func() error { return s.walk(ctx, root, "", walked) })
	group.Go(func() error {
		defer close(stored.queue)
		if err := (&comparison{s.base, walked, stored}).tree(ctx, root); err != nil {
			return err
		}
		stored.all()
		return nil
	})
	stored.start(ctx, group)
	if err := group.Wait(); err != nil {
		return nil, err
	}
	stored.finish(result)
	return root, nil
}

// file is where a path of the repository is in the source.
func (s *scanner) file(path string) string {
	if s.root == "/" {
		return "/" + strings.TrimPrefix(path, "/")
	}
	return s.root + path
}

func (s *scanner) warn(format string, args ...any) {
	const enough = 1000
	if len(s.warnings) < enough {
		s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
	}
}

// walk reads a directory, sends it to walked, and goes on with those below it, in
// order. What it has sent it does not touch any more, but for what is below.
func (s *scanner) walk(ctx context.Context, dir *node, path string, walked chan<- *node) error {
	entries, err := os.ReadDir(s.file(path)) // sorted
	if err != nil {
		return fmt.Errorf("reading source: %w", err)
	}
	grafts, err := s.grafts(path, entries)
	if err != nil {
		return err
	}
	subdirs := uint32(0)
	links := make(map[inode][]*node)
	mounts := make(map[*node]bool)
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, graftPrefix) {
			continue
		}
		sub := path + "/" + name
		var st unix.Stat_t
		if err := unix.Lstat(s.file(sub), &st); err != nil {
			return fmt.Errorf("reading source: lstat %s: %w", s.file(sub), err)
		}
		n, err := s.node(sub, name, &st)
		if err != nil {
			return err
		}
		if name == markerName && !n.entry.IsRegular() {
			return fmt.Errorf("source: %q is no regular file: %w", sub, ErrSource)
		}
		dir.children = append(dir.children, n)
		switch {
		case n.dir():
			subdirs++
			if st.Dev != s.device && !s.options.CrossMounts {
				s.warn("%q is another file system, published as an empty directory", sub)
				mounts[n] = true
			}
		case st.Nlink > 1 && grafts[name] == nil:
			n.inode = inode{st.Dev, st.Ino}
			links[n.inode] = append(links[n.inode], n)
		}
		if s.seen++; s.seen%1024 == 0 {
			s.report(Progress{Phase: PhaseScan, Done: s.seen})
		}
	}
	dir.entry.Nlink = 2 + subdirs
	s.graft(path, grafts, dir.child)
	groupLinks(dir, links)
	if err := send(ctx, walked, dir); err != nil {
		return err
	}
	for _, n := range dir.children {
		switch {
		case !n.dir():
		case mounts[n]:
			n.entry.Nlink = 2
			if err := send(ctx, walked, n); err != nil {
				return err
			}
		default:
			if err := s.walk(ctx, n, path+"/"+n.entry.Name, walked); err != nil {
				return err
			}
		}
	}
	return nil
}

// send gives one goroutine's work to another.
func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// groupLinks makes hard links of the names that share an inode within one
// directory. Names elsewhere are files of their own: the format has no groups
// across directories.
func groupLinks(dir *node, links map[inode][]*node) {
	group := uint32(0)
	for _, n := range dir.children {
		members := links[n.inode]
		if n.dir() || len(members) < 2 || n.entry.HardlinkGroup != 0 {
			continue
		}
		group++
		for _, m := range members {
			m.entry.HardlinkGroup = group // within the directory; the catalogue numbers anew
			m.entry.Nlink = uint32(len(members))
			m.xattrs, m.entry.HasXattrs = members[0].xattrs, members[0].entry.HasXattrs
		}
	}
}

// node describes one file without its content.
func (s *scanner) node(path, name string, st *unix.Stat_t) (*node, error) {
	n := &node{entry: catalog.Entry{
		Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: 1,
		MTime: st.Mtim.Sec, MTimeNS: int32(st.Mtim.Nsec), //nolint:gosec // below 1e9
		Compression: s.options.Compression,
	}}
	if s.options.Owner != nil {
		n.entry.UID, n.entry.GID = s.options.Owner.UID, s.options.Owner.GID
	}
	e := &n.entry
	switch {
	case e.IsDir():
		e.Size = dirSize
	case e.IsRegular():
		e.Size = st.Size
		s.options.place(e, path)
	case e.IsSymlink():
		target, err := os.Readlink(s.file(path))
		if err != nil {
			return nil, fmt.Errorf("reading source: %w", err)
		}
		e.Symlink, e.Size = target, int64(len(target))
	default:
		if t := e.Mode & catalog.ModeType; t == catalog.ModeChar || t == catalog.ModeBlock {
			e.Rdev = st.Rdev
		}
	}
	if !e.IsRegular() {
		e.Compression = 0
	}
	var err error
	if n.xattrs, err = s.xattrs(path); err != nil {
		return nil, err
	}
	e.HasXattrs = len(n.xattrs) > 0
	return n, nil
}

// dirSize is what directories are published with: their real size is an
// accident of the file system they come from, and no reader looks at it.
const dirSize = 4096

// xattrs reads the extended attributes that may be published.
func (s *scanner) xattrs(path string) (map[string][]byte, error) {
	file := s.file(path)
	list, err := readGrowing(func(b []byte) (int, error) { return unix.Llistxattr(file, b) })
	if err != nil || len(list) == 0 {
		if errors.Is(err, unix.ENOTSUP) || err == nil {
			return nil, nil
		}
		return nil, fmt.Errorf("reading source: listing attributes of %s: %w", file, err)
	}
	var set map[string][]byte
	for raw := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		key := string(raw)
		if !s.options.Xattrs.allows(key) {
			continue
		}
		value, err := readGrowing(func(b []byte) (int, error) { return unix.Lgetxattr(file, key, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading source: attribute %q of %s: %w", key, file, err)
		}
		set = s.keepXattr(path, set, key, value)
	}
	return set, nil
}

// keepXattr adds an attribute to a set, which may be nil, if the format holds it.
func (s *scanner) keepXattr(path string, set map[string][]byte, key string, value []byte) map[string][]byte {
	if len(key) > catalog.MaxXattrValue || len(value) > catalog.MaxXattrValue || len(set) == catalog.MaxXattrs {
		s.warn("%q: attribute %q of %d bytes left out, the format holds %d of %d bytes", path, key, len(value), catalog.MaxXattrs, catalog.MaxXattrValue)
		return set
	}
	if set == nil {
		set = make(map[string][]byte)
	}
	set[key] = value
	return set
}

// readGrowing calls a function that wants a buffer of unknown size.
func readGrowing(read func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := read(b)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}

// looksTheSame compares everything a content may have changed with. A revision
// made by tools that store no nanoseconds is compared by the second.
func (n *node) looksTheSame() bool {
	e, w := n.entry, *n.was
	return w.IsRegular() && w.IsExternal() == e.IsExternal() && (!w.Hash.IsZero() || w.IsChunked()) &&
		e.Mode == w.Mode && e.UID == w.UID && e.GID == w.GID && e.Size == w.Size &&
		e.MTime == w.MTime && (w.MTimeNS < 0 || e.MTimeNS == w.MTimeNS) && sameXattrs(n.xattrs, n.wasXattrs)
}

func sameXattrs(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// open opens a regular file of the source. Whether it is the one that was
// described is asked when it has been read (see unchanged). It does not wait for
// the other end of a pipe that has taken the file's place.
func (s *scanner) open(path string) (*sourceFile, error) {
	f := &sourceFile{name: s.file(path)}
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	err := retry(func() (err error) {
		f.fd, err = unix.Open(f.name, flags|unix.O_NOATIME, 0)
		if errors.Is(err, unix.EPERM) { // O_NOATIME is for the owner alone
			f.fd, err = unix.Open(f.name, flags, 0)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading source: open %s: %w", f.name, err)
	}
	return f, nil
}

// unchanged makes sure that a file is what was described, after it has been read.
func (s *scanner) unchanged(f *sourceFile, n *node, path string) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return fmt.Errorf("reading source: %s: %w", f.name, err)
	}
	if st.Mode != n.entry.Mode || st.Size != n.entry.Size || st.Mtim.Sec != n.entry.MTime || int32(st.Mtim.Nsec) != n.entry.MTimeNS { //nolint:gosec // below 1e9
		return fmt.Errorf("source: %q changed while it was published: %w", path, ErrSource)
	}
	return nil
}

// sourceFile is an open file of the source. An os.File would ask the kernel
// twice as much for each: whether it can be waited for, and in which mode it is.
type sourceFile struct {
	fd   int
	name string
}

// Read reads what comes next, io.EOF at the end.
func (f *sourceFile) Read(b []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Read(f.fd, b)
		return err
	})
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: err}
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// ReadAt reads what is at an offset, io.EOF behind the end.
func (f *sourceFile) ReadAt(b []byte, at int64) (n int, err error) {
	for n < len(b) && err == nil {
		var read int
		err = retry(func() (err error) {
			read, err = unix.Pread(f.fd, b[n:], at+int64(n))
			return err
		})
		if err != nil {
			err = &fs.PathError{Op: "read", Path: f.name, Err: err}
		} else if read == 0 {
			err = io.EOF
		} else {
			n += read
		}
	}
	return n, err
}

// Close frees the descriptor.
func (f *sourceFile) Close() { _ = unix.Close(f.fd) } // it was only read from

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// XattrRules say which extended attributes are published. A rule is a name, or
// a prefix followed by "*".
type XattrRules struct {
	Allow []string // wins over Deny
	Deny  []string // nil means the default: what belongs to one machine
}

// defaultDeny keeps out what an overlay, a security module or a mounted
// repository left on the tree, and ACLs, which a reader cannot enforce.
var defaultDeny = []string{"trusted.overlay.*", "user.overlay.*", "security.selinux", "security.ima", "security.evm", "system.*", "xfsroot.*"}

func (r XattrRules) allows(key string) bool {
	deny := r.Deny
	if deny == nil {
		deny = defaultDeny
	}
	return matchesAny(r.Allow, key) || !matchesAny(deny, key) && !isMagic(key)
}

func matchesAny(rules []string, key string) bool {
	return slices.ContainsFunc(rules, func(rule string) bool {
		prefix, wild := strings.CutSuffix(rule, "*")
		return key == rule || wild && strings.HasPrefix(key, prefix)
	})
}

// isMagic reports whether a mounted repository answers this name itself: a tree
// copied out of one must not carry the old answers along.
func isMagic(key string) bool {
	return slices.Contains([]string{
		"user.fqrn", "user.revision", "user.root_hash", "user.tag", "user.expires", "user.host", "user.host_list", "user.external_host",
		"user.proxy", "user.proxy_list", "user.proxy_list_external", "user.timeout", "user.timeout_direct", "user.external_timeout",
		"user.pubkeys", "user.repo_counters", "user.repo_metainfo", "user.nclg", "user.version", "user.pid", "user.uptime", "user.maxfd",
		"user.usedfd", "user.useddirp", "user.inode_max", "user.nopen", "user.ndiropen", "user.ndownload", "user.nioerr",
		"user.timestamp_last_ioerr", "user.rx", "user.speed", "user.hitrate", "user.ncleanup24", "user.logbuffer", "user.authz",
		"user.hash", "user.lhash", "user.chunks", "user.chunk_list", "user.compression", "user.direct_io", "user.external_file",
		"user.external_url", "user.rawlink", "user.catalog_counters",
	}, key)
}
