package mount

import (
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
)

// nodes are the inodes that the kernel knows. A node's number is its inode
// number: a hash of what the entry is, the same in every mount.
type nodes struct {
	keep bool       // contents, for paths may come to stand for others
	mu   sync.Mutex // guards byID and what its nodes point to
	byID map[uint64]*node
}

// node is one inode. A member of a hard link group is reached by the path it was
// looked up with first; the others show the same.
type node struct {
	path     string
	identity identity
	dir      bool
	lookups  uint64          // references of the kernel
	content  *client.Content // of a regular file, if contents are kept

	// Of a directory in such a repository, unless the kernel opens by itself:
	opens    int
	revision [20]byte // that it was listed in last
	listed   bool
}

func newNodes(keep bool) *nodes {
	root := &node{identity: identify("", catalog.Entry{Mode: catalog.ModeDir}, nil), dir: true, lookups: 1}
	return &nodes{keep: keep, byID: map[uint64]*node{fuse.FUSE_ROOT_ID: root}}
}

// identity is a hash of what makes an entry one inode and no other.
type identity [20]byte

// identify takes the type, the path or the hard link group, and for a regular
// file its content too. A file that changes with a new revision is thus another
// inode, as if it had been replaced by a rename, and neither pages nor the size
// of the old one can show up in the new one. c is nil for all but regular files.
func identify(path string, e catalog.Entry, c *client.Content) identity {
	text := make([]byte, 0, 512)
	text = append(text, byte(e.Mode&catalog.ModeType>>12))
	text = append(text, client.Lineage(path, e)...)
	if c != nil {
		id := c.ID()
		text = append(append(text, 0), id[:]...)
	}
	return identity(cvmfs.SHA1.Sum(text).Digest)
}

// number is the inode number of an identity as long as no other lives under it.
func (i identity) number() uint64 { return usable(binary.LittleEndian.Uint64(i[:])) }

// directory is the number of a directory.
func directory(path string) uint64 {
	if path == "" {
		return fuse.FUSE_ROOT_ID
	}
	return identify(path, catalog.Entry{Mode: catalog.ModeDir}, nil).number()
}

// usable keeps clear of the numbers with a meaning of their own.
func usable(id uint64) uint64 {
	if id <= fuse.FUSE_ROOT_ID || id >= ^uint64(0)-1 { // unknown, root; the library's own
		return id ^ 1<<32
	}
	return id
}

// is reports whether a number still stands for what the repository says of its
// path.
func (n *nodes) is(id uint64, path string, e catalog.Entry, c *client.Content) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.byID[id]
	return known != nil && known.identity == identify(path, e, c)
}

// find returns the number of an entry; with refer it counts a reference of the
// kernel and remembers the path and the content.
func (n *nodes) find(path string, e catalog.Entry, c *client.Content, refer bool) uint64 {
	if path == "" {
		return fuse.FUSE_ROOT_ID
	}
	who := identify(path, e, c)
	id := who.number()
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		known := n.byID[id]
		if known == nil {
			break
		}
		if known.identity == who {
			if refer {
				known.lookups++
			}
			return id
		}
		id = usable(id + 1) // two hashes collide: whoever comes second moves on
	}
	if refer {
		known := &node{path: path, identity: who, dir: e.IsDir(), lookups: 1}
		if n.keep {
			known.content = c
		}
		n.byID[id] = known
	}
	return id
}

// path returns the path of a number the kernel was given.
func (n *nodes) path(id uint64) (string, bool) {
	path, _, ok := n.file(id)
	return path, ok
}

// file is path, with the content of a regular file if contents are kept.
func (n *nodes) file(id uint64) (path string, c *client.Content, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.byID[id]
	if known == nil {
		return "", nil, false
	}
	return known.path, known.content, true
}

// forget takes references back, and reports whether none is left.
func (n *nodes) forget(id, lookups uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.byID[id]
	if known == nil || id == fuse.FUSE_ROOT_ID {
		return false
	}
	if known.lookups -= min(lookups, known.lookups); known.lookups > 0 {
		return false
	}
	delete(n.byID, id)
	return true
}

// opened notes that a directory is opened in a revision, and says whether the
// listing that the kernel has of it is still right, and whether somebody still
// reads that of another revision.
func (n *nodes) opened(id uint64, revision [20]byte) (same, busy bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.byID[id]
	if known == nil {
		return false, false
	}
	same = known.listed && known.revision == revision
	busy = known.listed && !same && known.opens > 0
	if !busy {
		known.revision, known.listed = revision, true
		known.opens++
	}
	return same, busy
}

func (n *nodes) closed(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.byID[id]; known != nil && known.opens > 0 {
		known.opens--
	}
}

// directories returns the numbers of all directories.
func (n *nodes) directories() []uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []uint64
	for id, known := range n.byID {
		if known.dir {
			all = append(all, id)
		}
	}
	return all
}

func (n *nodes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.byID)
}
