package publish

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// catalogueCheck is the check of one catalogue.
type catalogueCheck struct {
	c       *checker
	catalog *catalog.Catalog
	top     string
	out     *checked
	self    catalog.Counters
	below   catalog.Counters
	rows    int64
	chunks  int64
	nested  map[string]catalog.Nested
	groups  map[uint32]string // group → its directory
}

func (v *catalogueCheck) bad(path, format string, args ...any) error {
	v.out.bad = true
	return v.c.problem(path, format, args...)
}

// fault turns an error about the catalogue's content into a problem.
func (v *catalogueCheck) fault(path string, err error) error {
	if errors.Is(err, cvmfs.ErrMalformed) {
		return v.bad(path, "%v", err)
	}
	return err
}

func (v *catalogueCheck) run() error {
	v.groups = make(map[uint32]string)
	v.nested = make(map[string]catalog.Nested)
	list, err := v.catalog.Nested()
	if err != nil {
		return v.fault(v.top, err)
	}
	for _, n := range list {
		v.nested[n.Path] = n
		if !n.Bind {
			v.self.Nested++
		}
		if n.Path == v.top || !strings.HasPrefix(n.Path, v.top+"/") {
			if err := v.bad(n.Path, "nested catalogue outside of %q", v.top); err != nil {
				return err
			}
		}
	}
	if err := v.properties(); err != nil {
		return err
	}
	root, found, err := v.catalog.Lookup(v.top)
	if err != nil {
		return v.fault(v.top, err)
	}
	if !found || !root.IsDir() {
		return v.bad(v.top, "the catalogue has no root directory")
	}
	if root.IsNestedRoot() != (v.top != "") || root.IsNestedMountpoint() {
		if err := v.bad(v.top, "the root directory has flags %#x", uint32(root.Flags)); err != nil {
			return err
		}
	}
	v.out.root = root
	if v.out.xattrs, err = v.catalog.Xattrs(v.top); err != nil {
		if err := v.fault(v.top, err); err != nil {
			return err
		}
	}
	v.rows++
	v.self.Count(root, nil)
	if err := v.directory(v.top, root); err != nil {
		return err
	}
	for path := range v.nested {
		if err := v.bad(path, "nested catalogue without a directory"); err != nil {
			return err
		}
	}
	return v.totals()
}

func (v *catalogueCheck) properties() error {
	prefix, _, err := v.catalog.Property("root_prefix")
	if err != nil {
		return v.fault(v.top, err)
	}
	if v.out.revision, _, err = v.catalog.Property("revision"); err != nil {
		return v.fault(v.top, err)
	}
	if prefix != v.top {
		if err := v.bad(v.top, "the catalogue says it is of %q", prefix); err != nil {
			return err
		}
	}
	err = v.catalog.Oddities(v.top, func(name, text string) error { return v.bad(v.top, "%q: %s", name, text) })
	if err != nil && !errors.Is(err, errEnough) {
		return v.fault(v.top, err)
	}
	return err
}

// totals compares what was counted with what the catalogue says.
func (v *catalogueCheck) totals() error {
	rows, chunks, err := v.catalog.Rows()
	if err != nil {
		return v.fault(v.top, err)
	}
	if rows != v.rows || chunks != v.chunks {
		if err := v.bad(v.top, "the catalogue has %d entries and %d chunks, %d and %d can be reached", rows, chunks, v.rows, v.chunks); err != nil {
			return err
		}
	}
	counters, err := v.catalog.Counters()
	if err != nil {
		return v.fault(v.top, err)
	}
	// The counters of special files came with revision 5 of the schema, those of
	// everything else were there before.
	text, _, err := v.catalog.Property("schema_revision")
	if err != nil {
		return v.fault(v.top, err)
	}
	level, _ := strconv.Atoi(text)
	complete := level >= 5
	for prefix, counted := range map[string]catalog.Counters{"self_": v.self, "subtree_": v.below} {
		for name, n := range counted.Map(prefix) {
			got, there := counters[name]
			if !there && complete {
				if err := v.bad(v.top, "there is no counter %s", name); err != nil {
					return err
				}
			}
			if got != n {
				if err := v.bad(v.top, "counter %s is %d, counted are %d", name, got, n); err != nil {
					return err
				}
			}
		}
	}
	v.out.total = v.self.Plus(v.below)
	return nil
}

// directory checks the entries of a directory and everything below it.
func (v *catalogueCheck) directory(path string, dir catalog.Entry) error {
	list, err := v.catalog.List(path)
	if err != nil {
		return v.fault(path, err)
	}
	subdirs := uint32(0)
	marker := false
	links := make(map[uint32][]catalog.Entry)
	for _, e := range list {
		sub := path + "/" + e.Name
		v.rows++
		if e.Name == markerName {
			marker = e.IsRegular()
		}
		if e.IsDir() && !e.IsBindMountpoint() {
			subdirs++
		}
		if e.HardlinkGroup != 0 {
			links[e.HardlinkGroup] = append(links[e.HardlinkGroup], e)
		}
		if err := v.entry(sub, e); err != nil {
			return err
		}
	}
	if marker != (path == v.top && v.top != "") {
		if err := v.bad(path, "the file %s is %s", markerName, map[bool]string{true: "where no nested catalogue starts", false: "missing"}[marker]); err != nil {
			return err
		}
	}
	if binds := slices.ContainsFunc(list, catalog.Entry.IsBindMountpoint); !binds && dir.Nlink != 2+subdirs {
		if err := v.bad(path, "link count is %d, with %d directories in it", dir.Nlink, subdirs); err != nil {
			return err
		}
	}
	return v.links(path, links)
}

// links checks groups of hard links: within one directory, all alike.
func (v *catalogueCheck) links(path string, links map[uint32][]catalog.Entry) error {
	for group, members := range links {
		if other, used := v.groups[group]; used {
			if err := v.bad(path, "group %d of hard links is in %q too", group, other); err != nil {
				return err
			}
		}
		v.groups[group] = path
		for _, m := range members {
			like := members[0]
			like.Name, like.RowID = m.Name, m.RowID
			if m != like {
				if err := v.bad(path+"/"+m.Name, "differs from %q, with which it is linked", members[0].Name); err != nil {
					return err
				}
			}
			if int(m.Nlink) != len(members) {
				if err := v.bad(path+"/"+m.Name, "link count is %d, %d are linked", m.Nlink, len(members)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (v *catalogueCheck) entry(path string, e catalog.Entry) error {
	var chunks []catalog.Chunk
	again, found, err := v.catalog.Lookup(path)
	if err == nil && e.IsChunked() {
		chunks, err = v.catalog.Chunks(path)
	}
	if err != nil {
		if err := v.fault(path, err); err != nil {
			return err
		}
	} else if !found || again != e {
		if err := v.bad(path, "the directory lists it, its path leads elsewhere"); err != nil {
			return err
		}
	}
	v.chunks += int64(len(chunks))
	v.self.Count(e, chunks)
	if e.HasXattrs {
		if _, err := v.catalog.Xattrs(path); err != nil {
			if err := v.fault(path, err); err != nil {
				return err
			}
		}
	}
	if !e.IsRegular() && (e.IsExternal() || e.DirectIO() || e.IsChunked()) {
		if err := v.bad(path, "flags %#x on what is no regular file", uint32(e.Flags)); err != nil {
			return err
		}
	}
	if !e.IsDir() && e.HardlinkGroup == 0 && e.Nlink != 1 {
		if err := v.bad(path, "link count is %d without links", e.Nlink); err != nil {
			return err
		}
	}
	switch {
	case e.IsDir():
		return v.subdirectory(path, e)
	case e.IsSymlink():
		if e.Size != int64(len(e.Symlink)) || e.Symlink == "" {
			return v.bad(path, "size is %d, the target has %d bytes", e.Size, len(e.Symlink))
		}
		return nil
	case e.IsSpecial():
		return nil
	}
	return v.content(path, e, chunks)
}

func (v *catalogueCheck) content(path string, e catalog.Entry, chunks []catalog.Chunk) error {
	if e.Hash.IsZero() && !e.IsChunked() {
		return v.bad(path, "no content hash")
	}
	if e.IsChunked() && len(chunks) == 0 {
		return v.bad(path, "chunked without chunks")
	}
	if e.IsExternal() {
		return nil // it lies with somebody else
	}
	if !e.Hash.IsZero() {
		if err := v.c.note(e.Hash, cvmfs.SuffixNone, e.Compression, e.Size, path); err != nil {
			return err
		}
	}
	for _, chunk := range chunks {
		if err := v.c.note(chunk.Hash, cvmfs.SuffixPartial, e.Compression, chunk.Size, path); err != nil {
			return err
		}
	}
	return nil
}

// subdirectory goes down, through a transition point if it is one.
func (v *catalogueCheck) subdirectory(path string, e catalog.Entry) error {
	n, listed := v.nested[path]
	delete(v.nested, path)
	transition := e.IsNestedMountpoint() || e.IsBindMountpoint()
	switch {
	case e.IsNestedRoot():
		return v.bad(path, "flags %#x inside a catalogue", uint32(e.Flags))
	case transition != listed || listed && n.Bind != e.IsBindMountpoint():
		return v.bad(path, "flags %#x, nested catalogue %v", uint32(e.Flags), n.Hash)
	case !transition:
		return v.directory(path, e)
	}
	list, err := v.catalog.List(path)
	if err != nil {
		return v.fault(path, err)
	}
	if len(list) > 0 {
		if err := v.bad(path, "%d entries below a transition point", len(list)); err != nil {
			return err
		}
	}
	if n.Bind {
		_, err := v.c.catalogue("", n.Hash)
		return err
	}
	child, err := v.c.catalogue(path, n.Hash)
	if err != nil || child == nil {
		return err
	}
	v.below = v.below.Plus(child.total)
	if n.Size != 0 && n.Size != child.size {
		if err := v.bad(path, "nested catalogue %v has %d bytes, announced are %d", n.Hash, child.size, n.Size); err != nil {
			return err
		}
	}
	if e.HasXattrs {
		xattrs, err := v.catalog.Xattrs(path)
		if err != nil {
			return v.fault(path, err)
		}
		if !sameXattrs(xattrs, child.xattrs) && !child.bad {
			if err := v.bad(path, "its extended attributes differ from those of the root of the nested catalogue"); err != nil {
				return err
			}
		}
	}
	above, below := e, child.root
	above.Flags, above.RowID = below.Flags, below.RowID
	if above != below && !child.bad {
		return v.bad(path, "the entry differs from the root of the nested catalogue: %+v, %+v", above, below)
	}
	return nil
}
