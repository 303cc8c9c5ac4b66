package catalog_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

func open(t testing.TB, repo cvmfstest.Repo, hash string) *catalog.Catalog {
	t.Helper()
	h, err := cvmfs.ParseHash(hash)
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(repo.Object(t, h, cvmfs.SuffixCatalog))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// walk visits a whole tree through its nested catalogues, as a client does:
// each directory is listed by the catalogue that has its children.
func walk(t testing.TB, repo cvmfstest.Repo, c *catalog.Catalog, path string, visit func(c *catalog.Catalog, path string, e catalog.Entry)) {
	t.Helper()
	list, err := c.List(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		sub := path + "/" + e.Name
		visit(c, sub, e)
		switch {
		case e.IsNestedMountpoint():
			n, found, err := c.NestedFor(sub)
			if err != nil || !found || n.Path != sub {
				t.Fatalf("NestedFor(%q) = %+v, %v, %v", sub, n, found, err)
			}
			walk(t, repo, open(t, repo, n.Hash.String()), sub, visit)
		case e.IsDir():
			walk(t, repo, c, sub, visit)
		}
	}
}

var kinds = map[uint32]string{
	catalog.ModeDir: "dir", catalog.ModeRegular: "file", catalog.ModeSymlink: "symlink", catalog.ModeFIFO: "fifo",
	catalog.ModeSocket: "socket", catalog.ModeChar: "char", catalog.ModeBlock: "block",
}

// listed is what the original client showed, without what only content or the
// client's variables can tell.
func listed(c *catalog.Catalog, path string, e catalog.Entry) (cvmfstest.Listed, error) {
	l := cvmfstest.Listed{
		Path: path, Type: kinds[e.Mode&catalog.ModeType], Mode: fmt.Sprintf("%04o", e.Mode&0o7777),
		Nlink: e.Nlink, UID: e.UID, GID: e.GID, MTime: e.MTime, MTimeNS: max(e.MTimeNS, 0), Size: e.Size, RawTarget: e.Symlink,
	}
	if t := e.Mode & catalog.ModeType; t == catalog.ModeChar || t == catalog.ModeBlock {
		l.Rdev = fmt.Sprintf("%d:%d", e.Rdev>>8&0xfff, e.Rdev&0xff|e.Rdev>>12&0xfff00)
	}
	if e.IsDir() {
		l.Size = 0
	}
	var err error
	l.Xattrs, err = c.Xattrs(path)
	if (len(l.Xattrs) > 0) != e.HasXattrs {
		err = errors.Join(err, fmt.Errorf("%q: HasXattrs = %v, Xattrs = %v", path, e.HasXattrs, l.Xattrs))
	}
	return l, err
}

func TestWalkEqualsOriginalClient(t *testing.T) {
	repo := cvmfstest.Small(t)
	for revision := 1; revision <= 3; revision++ {
		t.Run(strconv.Itoa(revision), func(t *testing.T) {
			want := cvmfstest.Expect(t, revision)
			for path, l := range want {
				if l.Type == "symlink" {
					l.Size = int64(len(l.RawTarget)) // T21: the stored size is the raw target's
				}
				l.SHA256, l.Target = "", ""
				want[path] = l
			}
			got := make(map[string]cvmfstest.Listed)
			visit := func(c *catalog.Catalog, path string, e catalog.Entry) {
				l, err := listed(c, path, e)
				if err != nil {
					t.Error(err)
				}
				got[path] = l
				found, ok, err := c.Lookup(path)
				if err != nil || !ok || found != e {
					t.Errorf("Lookup(%q) = %+v, %v, %v, want what List gave: %+v", path, found, ok, err, e)
				}
				chunks, err := c.Chunks(path)
				if err != nil || (len(chunks) > 0) != e.IsChunked() {
					t.Errorf("Chunks(%q) = %d, %v, chunked is %v", path, len(chunks), err, e.IsChunked())
				}
				if e.IsRegular() && !e.IsChunked() && e.Hash.IsZero() {
					t.Errorf("%q has no hash", path)
				}
			}
			root := open(t, repo, cvmfstest.RootHashes[revision])
			e, ok, err := root.Lookup("")
			if err != nil || !ok {
				t.Fatalf("Lookup of the root = %v, %v", ok, err)
			}
			visit(root, "", e)
			walk(t, repo, root, "", visit)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("tree (-original +got):\n%s", diff)
			}
		})
	}
}

// T3, T4: a transition point has a row above and a row below, equal but for the
// flags; a name that merely starts the same is not below it.
func TestTransitionPoints(t *testing.T) {
	repo := cvmfstest.Small(t)
	root := open(t, repo, cvmfstest.RootHashes[3])
	nested, err := root.Nested()
	if err != nil || len(nested) == 0 {
		t.Fatalf("Nested = %v, %v", nested, err)
	}
	for _, n := range nested {
		upper, ok, err := root.Lookup(n.Path)
		if err != nil || !ok || !upper.IsNestedMountpoint() {
			t.Errorf("Lookup(%q) above = %+v, %v, %v", n.Path, upper, ok, err)
		}
		child := open(t, repo, n.Hash.String())
		lower, ok, err := child.Lookup(n.Path)
		if err != nil || !ok || !lower.IsNestedRoot() {
			t.Errorf("Lookup(%q) below = %+v, %v, %v", n.Path, lower, ok, err)
		}
		lower.Flags, lower.RowID = upper.Flags, upper.RowID
		if diff := cmp.Diff(upper, lower); diff != "" {
			t.Errorf("%q (-above +below):\n%s", n.Path, diff)
		}
		if prefix, ok, err := child.Property("root_prefix"); err != nil || !ok || prefix != n.Path {
			t.Errorf("root_prefix of %q = %q, %v, %v", n.Path, prefix, ok, err)
		}
		if list, err := root.List(n.Path); err != nil || len(list) > 0 {
			t.Errorf("List(%q) above = %d entries, %v, want none", n.Path, len(list), err)
		}
		for path, want := range map[string]bool{n.Path: true, n.Path + "/x/y": true, n.Path + "plus": false, n.Path + "plus/x": false} {
			got, ok, err := root.NestedFor(path)
			if err != nil || (ok && got.Path == n.Path) != want {
				t.Errorf("NestedFor(%q) = %q, %v, %v, want below %q: %v", path, got.Path, ok, err, n.Path, want)
			}
		}
	}
}

func TestCountersOfOriginal(t *testing.T) {
	repo := cvmfstest.Small(t)
	self, subtree, err := open(t, repo, cvmfstest.RootHashes[3]).ReadCounters()
	if err != nil {
		t.Fatal(err)
	}
	want := catalog.Counters{Dir: 88, Regular: 178, Symlink: 16, Special: 4, Nested: 7, Chunked: 5, Chunks: 25, ChunkedSize: 829440, FileSize: 859585, Xattr: 4}
	if diff := cmp.Diff(want, self.Plus(subtree)); diff != "" {
		t.Errorf("counters of the whole tree (-want +got):\n%s", diff)
	}
}

// T20 and the snapshots: hidden in its directory, there by name; a tagged root
// planted below it keeps its own paths.
func TestHiddenSnapshots(t *testing.T) {
	repo := cvmfstest.Snapshots(t)
	root := open(t, repo, cvmfstest.RootHashes[4])
	list, err := root.List("")
	if err != nil {
		t.Fatal(err)
	}
	hidden := 0
	for _, e := range list {
		if e.IsHidden() {
			hidden++
			if e.Name != ".cvmfs" {
				t.Errorf("%q is hidden", e.Name)
			}
		}
	}
	if hidden != 1 {
		t.Errorf("%d hidden entries, want 1", hidden)
	}
	n, ok, err := root.NestedFor("/.cvmfs/snapshots/rev1/README")
	if err != nil || !ok || n.Path != "/.cvmfs" || n.Bind {
		t.Fatalf("NestedFor below /.cvmfs = %+v, %v, %v", n, ok, err)
	}
	virtual := open(t, repo, n.Hash.String())
	n, ok, err = virtual.NestedFor("/.cvmfs/snapshots/rev1/README")
	if err != nil || !ok || !n.Bind || n.Path != "/.cvmfs/snapshots/rev1" || n.Hash.String() != cvmfstest.RootHashes[1] {
		t.Fatalf("NestedFor below the snapshot = %+v, %v, %v", n, ok, err)
	}
	e, ok, err := virtual.Lookup("/.cvmfs/snapshots/rev1")
	if err != nil || !ok || !e.IsBindMountpoint() || e.IsNestedMountpoint() {
		t.Errorf("Lookup of the mountpoint = %+v, %v, %v", e, ok, err)
	}
	if _, ok, err := open(t, repo, n.Hash.String()).Lookup("/README"); err != nil || !ok {
		t.Errorf("Lookup inside the planted root = %v, %v", ok, err)
	}
}

func TestMissing(t *testing.T) {
	c := open(t, cvmfstest.Small(t), cvmfstest.RootHashes[3])
	for _, path := range []string{"/nothing", "/README/below", "/nothing/at/all"} {
		if e, ok, err := c.Lookup(path); ok || err != nil {
			t.Errorf("Lookup(%q) = %+v, %v, %v, want nothing", path, e, ok, err)
		}
		if list, err := c.List(path); len(list) > 0 || err != nil {
			t.Errorf("List(%q) = %v, %v, want nothing", path, list, err)
		}
	}
	for _, path := range []string{"/", "README", "//", "/a/", "/a//b", "/a/../b", "/.", "/a\x00b", "/" + strings.Repeat("x", 256)} {
		if _, _, err := c.Lookup(path); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("Lookup(%q) = %v, want ErrMalformed", path, err)
		}
	}
	if _, ok, err := c.Property("nothing"); ok || err != nil {
		t.Errorf("Property(nothing) = %v, %v", ok, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Lookup(""); err == nil {
		t.Error("Lookup after Close succeeded")
	}
}

// A file name with every character an URI gives a meaning to.
func TestOpenOddFileName(t *testing.T) {
	repo := cvmfstest.Small(t)
	h, _ := cvmfs.ParseHash(cvmfstest.RootHashes[3])
	odd := filepath.Join(t.TempDir(), "a b%20?mode=memory#x&y;'\"")
	if err := os.Rename(repo.Object(t, h, cvmfs.SuffixCatalog), odd); err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(odd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok, err := c.Lookup("/README"); err != nil || !ok {
		t.Errorf("Lookup = %v, %v", ok, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := open(t, cvmfstest.Small(t), cvmfstest.RootHashes[3])
	done := make(chan error)
	for range 8 {
		go func() {
			for range 200 {
				if _, ok, err := c.Lookup("/README"); err != nil || !ok {
					done <- fmt.Errorf("Lookup = %v, %w", ok, err)
					return
				}
				if list, err := c.List(""); err != nil || len(list) == 0 {
					done <- fmt.Errorf("List = %d entries, %w", len(list), err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// build makes a catalogue of a few entries and returns its file.
func build(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "catalog")
	b, err := catalog.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, add := range tree() {
		if err := b.Add(add.path, add.e, add.xattrs, add.chunks); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.AddNested(catalog.Nested{Path: "/nested", Hash: cvmfs.SHAKE128.Sum([]byte("n")), Size: 7}); err != nil {
		t.Fatal(err)
	}
	err = b.Finish(catalog.Properties{Revision: 7, Previous: cvmfs.SHA1.Sum([]byte("p")), TTL: 4 * time.Minute, LastModified: time.Unix(1e9, 0)}, catalog.Counters{Dir: 3})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

type added struct {
	path   string
	e      catalog.Entry
	xattrs map[string][]byte
	chunks []catalog.Chunk
}

func tree() []added {
	sum := func(a cvmfs.Algorithm, s string) cvmfs.Hash { return a.Sum([]byte(s)) }
	return []added{
		{"", catalog.Entry{Mode: 0o40755, Nlink: 4, Size: 4096, MTimeNS: -1}, nil, nil},
		{"/dir", catalog.Entry{Name: "dir", Mode: 0o41777, Nlink: 2, MTime: -5, MTimeNS: 999999999, UID: 3000000001, GID: 4294967295}, nil, nil},
		{
			"/dir/\xff\n",
			catalog.Entry{Name: "\xff\n", Mode: 0o106755, Nlink: 2, HardlinkGroup: 1, Size: 3, Hash: sum(cvmfs.SHA1, "a"), MTimeNS: 0},
			map[string][]byte{"security.capability": {1, 0, 2}, "user.empty": {}},
			nil,
		},
		{"/dir/raw", catalog.Entry{Name: "raw", Mode: 0o100000, Nlink: 1, Size: 0, Hash: sum(cvmfs.SHAKE128, ""), Compression: cvmfs.Plain, MTimeNS: -1}, nil, nil},
		{
			"/big",
			catalog.Entry{Name: "big", Mode: 0o100644, Nlink: 1, Size: 30, Compression: cvmfs.Plain, Flags: catalog.FlagChunked, MTimeNS: -1},
			nil,
			[]catalog.Chunk{{0, 10, sum(cvmfs.RIPEMD160, "x")}, {10, 20, sum(cvmfs.RIPEMD160, "y")}},
		},
		{"/link", catalog.Entry{Name: "link", Mode: 0o120777, Nlink: 1, Size: 7, Symlink: "$(A:-b)", MTimeNS: -1}, nil, nil},
		{"/null", catalog.Entry{Name: "null", Mode: 0o20666, Nlink: 1, Rdev: 0x103, MTimeNS: -1}, nil, nil},
		{"/pipe", catalog.Entry{Name: "pipe", Mode: 0o10600, Nlink: 1, MTimeNS: -1}, nil, nil},
		{"/nested", catalog.Entry{Name: "nested", Mode: 0o40755, Nlink: 2, MTimeNS: -1, Flags: catalog.FlagNestedMountpoint}, nil, nil},
	}
}

func TestBuildRoundTrip(t *testing.T) {
	file := build(t)
	c, err := catalog.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, want := range tree() {
		got, ok, err := c.Lookup(want.path)
		if err != nil || !ok {
			t.Fatalf("Lookup(%q) = %v, %v", want.path, ok, err)
		}
		if got.RowID != int64(i+1) {
			t.Errorf("row id of %q = %d, want %d: row ids become inodes", want.path, got.RowID, i+1)
		}
		want.e.RowID, want.e.HasXattrs = got.RowID, len(want.xattrs) > 0
		want.e.Flags = got.Flags&^(catalog.FlagNestedMountpoint|catalog.FlagChunked) | want.e.Flags
		if diff := cmp.Diff(want.e, got); diff != "" {
			t.Errorf("Lookup(%q) (-want +got):\n%s", want.path, diff)
		}
		xattrs, err := c.Xattrs(want.path)
		if err != nil || !cmp.Equal(xattrs, want.xattrs) {
			t.Errorf("Xattrs(%q) = %v, %v, want %v", want.path, xattrs, err, want.xattrs)
		}
		chunks, err := c.Chunks(want.path)
		if err != nil || !cmp.Equal(chunks, want.chunks) {
			t.Errorf("Chunks(%q) = %v, %v, want %v", want.path, chunks, err, want.chunks)
		}
	}
	// T5, T6: the values the original writes.
	for path, want := range map[string]catalog.Flags{"": 1, "/dir": 1, "/link": 12, "/null": 20, "/pipe": 20, "/nested": 3, "/dir/raw": 2564, "/big": 0x40 | 4 | 0x100 | 0x800} {
		if e, _, _ := c.Lookup(path); e.Flags != want {
			t.Errorf("flags of %q = %#x, want %#x", path, e.Flags, want)
		}
	}
	counters, err := c.Counters()
	if err != nil || len(counters) != 24 || counters["self_dir"] != 3 || counters["subtree_dir"] != 3 || counters["self_regular"] != 3 ||
		counters["self_chunks"] != 2 || counters["self_chunked_size"] != 30 || counters["self_file_size"] != 33 || counters["self_nested"] != 1 || counters["self_xattr"] != 1 {
		t.Errorf("Counters = %v, %v", counters, err)
	}
	entries, chunks, err := c.Rows()
	if err != nil || entries != 9 || chunks != 2 {
		t.Errorf("Rows = %d, %d, %v, want 9, 2", entries, chunks, err)
	}
	objects := make(map[string]int)
	err = c.Objects(func(o catalog.Object) error { objects[o.Hash.ObjectPath(o.Suffix)]++; return nil })
	if err != nil || len(objects) != 4 {
		t.Errorf("Objects = %v, %v, want 4", objects, err)
	}
}

func TestBuildIsReproducible(t *testing.T) {
	first, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Error("equal entries gave different files")
	}
	if first[18] != 1 || first[19] != 1 {
		t.Errorf("journal versions = %d, %d, want 1, 1: the original has no WAL", first[18], first[19])
	}
}

func TestBuildRefuses(t *testing.T) {
	good := cvmfs.SHA1.Sum(nil)
	for name, a := range map[string]added{
		"dots":                {path: "/..", e: catalog.Entry{Name: "..", Mode: 0o40755}},
		"name of another":     {path: "/a", e: catalog.Entry{Name: "b", Mode: 0o40755}},
		"no content":          {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o100644}},
		"content of a dir":    {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o40755, Hash: good}},
		"md5":                 {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o100644, Hash: cvmfs.MD5.Sum(nil)}},
		"chunks with a gap":   {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o100644, Size: 3, Flags: catalog.FlagChunked}, chunks: []catalog.Chunk{{0, 1, good}, {2, 1, good}}},
		"chunks too short":    {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o100644, Size: 3, Flags: catalog.FlagChunked}, chunks: []catalog.Chunk{{0, 1, good}}},
		"value of 256":        {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o40755}, xattrs: map[string][]byte{"user.x": make([]byte, 256)}},
		"mixed chunk hashes":  {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o100644, Size: 2, Flags: catalog.FlagChunked}, chunks: []catalog.Chunk{{0, 1, good}, {1, 1, cvmfs.SHAKE128.Sum(nil)}}},
		"chunks of no chunks": {path: "/a", e: catalog.Entry{Name: "a", Mode: 0o100644, Size: 2, Hash: good}, chunks: []catalog.Chunk{{0, 2, good}}},
	} {
		b, err := catalog.Create(filepath.Join(t.TempDir(), "c"))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Add(a.path, a.e, a.xattrs, a.chunks); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("%s: Add = %v, want ErrMalformed", name, err)
		}
		b.Discard()
	}
}
