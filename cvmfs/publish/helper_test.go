package publish_test

import (
	"context"
	"crypto/rsa"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/publish"
)

const name = "tree.example.org"

var (
	clock = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	small = publish.ChunkSizes{Min: 16384, Avg: 32768, Max: 65536}
)

// world is a repository, its keys and a source tree.
type world struct {
	source, storage, keys string
	now                   time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := emptyWorld(t)
	w.create(t)
	return w
}

// emptyWorld has no repository yet.
func emptyWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{filepath.Join(dir, "source"), filepath.Join(dir, "storage"), filepath.Join(dir, "keys"), clock}
	must(t, os.Mkdir(w.source, 0o755))
	must(t, os.Mkdir(w.keys, 0o700))
	small := cvmfstest.Small(t)
	for kind, perm := range map[string]fs.FileMode{"masterkey": 0o400, "pub": 0o444, "key": 0o400, "crt": 0o444} {
		must(t, os.WriteFile(filepath.Join(w.keys, name+"."+kind), small.Key(t, kind), perm))
	}
	return w
}

func (w *world) create(t testing.TB) {
	t.Helper()
	err := publish.Create(t.Context(), publish.CreateOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) options() publish.Options {
	return publish.Options{Source: w.source, Storage: w.storage, Name: name, Keys: w.keys, Chunks: small, Now: func() time.Time { return w.now }}
}

func (w *world) publish(t testing.TB, change func(*publish.Options)) *publish.Result {
	t.Helper()
	w.now = w.now.Add(time.Hour)
	o := w.options()
	if change != nil {
		change(&o)
	}
	r, err := publish.Publish(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) repo() string { return filepath.Join(w.storage, name) }

func (w *world) check(t testing.TB) *publish.Report {
	t.Helper()
	return check(t, w.storage, name, w.keys)
}

func check(t testing.TB, storage, name, keys string) *publish.Report {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(keys, name+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := cvmfs.ParsePublicKeys(data)
	if err != nil {
		t.Fatal(err)
	}
	return checkWith(t, storage, name, public)
}

func checkWith(t testing.TB, storage, name string, public []*rsa.PublicKey) *publish.Report {
	t.Helper()
	r, err := publish.Check(t.Context(), publish.CheckOptions{Storage: storage, Name: name, MasterKeys: public, Data: true, Now: func() time.Time { return clock.Add(48 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func clean(t testing.TB, r *publish.Report) {
	t.Helper()
	for _, p := range r.Problems {
		t.Errorf("Check: %v", p)
	}
	if r.Catalogs == 0 || r.Entries == 0 {
		t.Errorf("Check looked at nothing: %+v", r)
	}
}

// write makes a file of the source, and the directories above it.
func (w *world) write(t testing.TB, path, content string) {
	t.Helper()
	file := filepath.Join(w.source, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tricky makes everything a tree may have. What needs root is left out without.
func (w *world) tricky(t testing.TB) {
	t.Helper()
	root := os.Geteuid() == 0
	at := func(path string) string { return filepath.Join(w.source, path) }
	w.write(t, "README", "read me")
	w.write(t, "empty", "")
	w.write(t, "names/with blank", "1")
	w.write(t, "names/new\nline", "2")
	w.write(t, "names/\xff\xfe", "3")
	w.write(t, "names/%20?#$(X)", "4")
	w.write(t, "names/"+strings.Repeat("x", 255), "5")
	w.write(t, "hard/a", "linked")
	must(t, os.Link(at("hard/a"), at("hard/b")))
	must(t, os.Link(at("hard/a"), at("hard/c")))
	w.write(t, "hard/d", "other pair")
	must(t, os.Link(at("hard/d"), at("hard/e")))
	must(t, os.MkdirAll(at("hard/sub"), 0o755))
	must(t, os.Link(at("hard/a"), at("hard/sub/a")))
	must(t, os.Symlink("target", at("hard/s1")))
	must(t, os.Link(at("hard/s1"), at("hard/s2")))
	must(t, os.MkdirAll(at("links"), 0o755))
	must(t, os.Symlink("$(ARCH:-x)/lib", at("links/var")))
	must(t, os.Symlink("/"+strings.Repeat("y/", 1000), at("links/long")))
	must(t, unix.Mkfifo(at("pipe"), 0o640))
	big := make([]byte, 153600)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	w.write(t, "big/cut", string(big))
	w.write(t, "big/zeros", string(make([]byte, 204800)))
	must(t, os.Link(at("big/zeros"), at("big/linked")))
	w.write(t, "big/exact", string(make([]byte, 16384)))
	w.write(t, "soft/.cvmfscatalog", "")
	w.write(t, "soft/1.0/.cvmfscatalog", "")
	w.write(t, "soft/1.0/bin/tool", "tool")
	w.write(t, "soft/2.0/bin/tool", "tool 2")
	w.write(t, "software/x", "not below soft")
	w.write(t, "opt/a/x", "1")
	w.write(t, "opt/b/x", "2")
	w.write(t, "opt/skip/x", "3")
	w.write(t, ".cvmfsdirtab", "# rules\n/opt/*\n! */skip\n")
	deep := strings.Repeat("d/", 40)
	w.write(t, deep+"file", "deep")
	must(t, os.Chmod(at("soft/1.0/bin/tool"), 0o755|os.ModeSetuid))
	must(t, os.Chmod(at("opt"), 0o777|os.ModeSticky))
	must(t, os.Chmod(at("README"), 0))
	must(t, os.Chtimes(at("empty"), time.Unix(-5, 999999999), time.Unix(-5, 999999999)))
	if root {
		must(t, os.Lchown(at("hard/d"), 1234, 70000))
		must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 300))))
	}
	for _, x := range []struct{ path, key, value string }{
		{"README", "user.short", "v"},
		{"README", "user.empty", ""},
		{"README", "user.long", strings.Repeat("v", 255)},
		{"soft", "user.ondir", "d"},
		{"names/with blank", "user.too-long", strings.Repeat("v", 256)},
		{"big/cut", "user.hash", "magic"},
	} {
		if err := unix.Lsetxattr(at(x.path), x.key, []byte(x.value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
	}
	if root {
		capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		if err := unix.Lsetxattr(at("soft/2.0/bin/tool"), "security.capability", []byte(capability), 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		if err := unix.Lsetxattr(at("soft"), "trusted.overlay.opaque", []byte("y"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
	}
}

// reader opens the catalogues of a revision.
type reader struct {
	t    testing.TB
	repo cvmfstest.Repo
}

func (p reader) open(h cvmfs.Hash) *catalog.Catalog {
	p.t.Helper()
	c, err := catalog.Open(p.repo.Object(p.t, h, cvmfs.SuffixCatalog))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// tree returns every entry by path, without row ids, and the catalogue each
// directory's children are in.
func (p reader) tree(root cvmfs.Hash) (map[string]catalog.Entry, map[string]map[string][]byte, []string) {
	p.t.Helper()
	entries := make(map[string]catalog.Entry)
	xattrs := make(map[string]map[string][]byte)
	var nested []string
	var walk func(c *catalog.Catalog, path string)
	walk = func(c *catalog.Catalog, path string) {
		list, err := c.List(path)
		must(p.t, err)
		for _, e := range list {
			sub := path + "/" + e.Name
			if e.HasXattrs {
				xattrs[sub], err = c.Xattrs(sub)
				must(p.t, err)
			}
			e.RowID = 0
			entries[sub] = e
			if e.IsNestedMountpoint() {
				n, _, err := c.NestedFor(sub)
				must(p.t, err)
				nested = append(nested, sub)
				walk(p.open(n.Hash), sub)
			} else if e.IsDir() {
				walk(c, sub)
			}
		}
	}
	c := p.open(root)
	e, ok, err := c.Lookup("")
	if err != nil || !ok {
		p.t.Fatal(ok, err)
	}
	e.RowID = 0
	entries[""] = e
	walk(c, "")
	slices.Sort(nested)
	return entries, xattrs, nested
}

func (w *world) tree(t testing.TB, root cvmfs.Hash) (map[string]catalog.Entry, map[string]map[string][]byte, []string) {
	t.Helper()
	return reader{t, cvmfstest.Repo{Dir: w.repo()}}.tree(root)
}

// compareWithSource compares what was published with lstat(2) of the source.
func compareWithSource(t testing.TB, source string, entries map[string]catalog.Entry, xattrs map[string]map[string][]byte) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(source, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path := strings.TrimPrefix(file, source)
		e, there := entries[path]
		if !there {
			t.Errorf("%q is not published", path)
			return nil
		}
		seen++
		var st unix.Stat_t
		if err := unix.Lstat(file, &st); err != nil {
			return err
		}
		if e.Mode != st.Mode || e.UID != st.Uid || e.GID != st.Gid || e.MTime != st.Mtim.Sec || int64(e.MTimeNS) != st.Mtim.Nsec {
			t.Errorf("%q = %+v, source has %+v", path, e, st)
		}
		if (e.IsRegular() || e.IsSymlink()) && e.Size != st.Size {
			t.Errorf("size of %q = %d, want %d", path, e.Size, st.Size)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && e.Rdev != st.Rdev {
			t.Errorf("device of %q = %#x, want %#x", path, e.Rdev, st.Rdev)
		}
		if e.IsSymlink() {
			if target, _ := os.Readlink(file); target != e.Symlink {
				t.Errorf("target of %q = %q, want %q", path, e.Symlink, target)
			}
		}
		return nil
	})
	must(t, err)
	if seen < 10 {
		t.Errorf("only %d entries compared", seen)
	}
	if value := xattrs["/README"]["user.long"]; len(xattrs["/README"]) > 0 && (len(value) != 255 || len(xattrs["/README"]) != 3) {
		t.Errorf("attributes of /README = %q", xattrs["/README"])
	}
}

// cancelled returns a context that has ended, and the error it ended with.
func cancelled(t testing.TB) (context.Context, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, ctx.Err()
}

func contextWithCancel(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// head is the published manifest, not verified.
func (w *world) head(t testing.TB) *cvmfs.Manifest {
	t.Helper()
	info, err := publish.ReadInfo(t.Context(), w.storage, name, nil, w.clock)
	must(t, err)
	return info.Manifest
}
