package publish_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/tier"
)

func TestPublishTricky(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clean(t, w.check(t))
	w.tricky(t)
	r := w.publish(t, func(o *publish.Options) { o.Tag = "v1"; o.Description = "first" })
	clean(t, w.check(t))
	if r.Revision != 1 || !slices.Equal(r.Tags, []string{"trunk", "generic-2026-11-28T13:00:00Z", "v1"}) {
		t.Errorf("Result = %+v", r)
	}
	entries, xattrs, nested := w.tree(t, r.RootHash)
	if want := []string{"/opt/a", "/opt/b", "/soft", "/soft/1.0"}; !slices.Equal(nested, want) {
		t.Errorf("nested catalogues = %q, want %q", nested, want)
	}
	compareWithSource(t, w.source, entries, xattrs)

	if e := entries["/hard/a"]; e.Nlink != 3 || e.HardlinkGroup == 0 || e.HardlinkGroup != entries["/hard/c"].HardlinkGroup {
		t.Errorf("/hard/a = %+v, want a group of three", e)
	}
	if e := entries["/hard/sub/a"]; e.Nlink != 1 || e.HardlinkGroup != 0 || e.Hash != entries["/hard/a"].Hash {
		t.Errorf("/hard/sub/a = %+v, want a file of its own with the same content", e)
	}
	if a, d := entries["/hard/a"].HardlinkGroup, entries["/hard/d"].HardlinkGroup; a == d {
		t.Errorf("two groups share number %d", a)
	}
	if e := entries["/hard/s2"]; e.Nlink != 2 || e.HardlinkGroup == 0 {
		t.Errorf("/hard/s2 = %+v, want linked symlinks", e)
	}
	if e := entries["/big/zeros"]; !e.IsChunked() || !e.Hash.IsZero() || e.Nlink != 2 {
		t.Errorf("/big/zeros = %+v, want chunks", e)
	}
	if e := entries["/big/exact"]; e.IsChunked() || e.Hash.IsZero() {
		t.Errorf("/big/exact = %+v, want one object", e)
	}
	if e := entries["/opt/a/.cvmfscatalog"]; !e.IsRegular() || e.Size != 0 || e.Mode&0o777 != 0o644 {
		t.Errorf("marker the rules ask for = %+v", e)
	}
	if _, there := entries["/opt/skip/.cvmfscatalog"]; there {
		t.Error("an excluded directory has a marker")
	}
	for _, path := range []string{"/big/cut", "/names/with blank"} {
		if len(xattrs[path]) > 0 {
			t.Errorf("%q has attributes %v, want none", path, xattrs[path])
		}
	}
	if _, there := xattrs["/soft"]["trusted.overlay.opaque"]; there {
		t.Error("the mark of an overlay was published")
	}
	if os.Geteuid() == 0 {
		if len(xattrs["/soft/2.0/bin/tool"]["security.capability"]) != 20 {
			t.Errorf("capability = %v", xattrs["/soft/2.0/bin/tool"])
		}
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "user.too-long") {
		t.Errorf("Warnings = %q, want one about the long attribute", r.Warnings)
	}
}

func TestCreateMakesKeys(t *testing.T) {
	t.Parallel()
	w := &world{storage: t.TempDir(), keys: filepath.Join(t.TempDir(), "new", "keys"), source: t.TempDir(), now: clock}
	w.create(t)
	for kind, want := range map[string]fs.FileMode{"masterkey": 0o400, "key": 0o400, "pub": 0o444, "crt": 0o444} {
		fi, err := os.Stat(filepath.Join(w.keys, name+"."+kind))
		must(t, err)
		if fi.Mode().Perm() != want {
			t.Errorf("mode of %s = %v, want %v", kind, fi.Mode(), want)
		}
	}
	if fi, err := os.Stat(w.keys); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory = %v, %v, want 0700", fi.Mode(), err)
	}
	before, err := os.ReadFile(filepath.Join(w.keys, name+".pub"))
	must(t, err)
	if _, err := publish.CreateKeys(w.keys, name, clock); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateKeys over keys = %v, want ErrExist", err)
	}
	if now, _ := os.ReadFile(filepath.Join(w.keys, name+".pub")); !bytes.Equal(now, before) {
		t.Error("keys were replaced")
	}
	clean(t, w.check(t))
	must(t, os.Remove(filepath.Join(w.keys, name+".crt"))) // a set half made is not taken for none
	if _, err := publish.Publish(t.Context(), w.options()); err == nil {
		t.Error("publishing without a certificate succeeded")
	}
}

// The engine every reader has must open the files, and find them sound.
func TestStockSQLite(t *testing.T) {
	t.Parallel()
	tool := tier.Tool(t, "sqlite3")
	w := newWorld(t)
	w.tricky(t)
	r := w.publish(t, nil)
	repo := cvmfstest.Repo{Dir: w.repo()}
	m, err := cvmfs.ParseManifest(repo.Read(t, cvmfs.ManifestFile))
	must(t, err)
	for _, file := range []string{
		repo.Object(t, r.RootHash, cvmfs.SuffixCatalog), repo.Object(t, m.History, cvmfs.SuffixHistory), filepath.Join(repo.Dir, cvmfs.ReflogFile),
	} {
		out, err := exec.CommandContext(t.Context(), tool, "-readonly", file, "PRAGMA integrity_check; PRAGMA foreign_key_check; PRAGMA journal_mode;").CombinedOutput()
		if err != nil || string(out) != "ok\ndelete\n" {
			t.Errorf("sqlite3 = %q, %v, want ok", out, err)
		}
	}
	out, err := exec.CommandContext(t.Context(), tool, "-readonly", repo.Object(t, r.RootHash, cvmfs.SuffixCatalog),
		"SELECT count(*), max(rowid) - count(*), (SELECT value FROM properties WHERE key='TTL'), typeof((SELECT value FROM properties WHERE key='schema')) FROM catalog").CombinedOutput()
	if fields := strings.Split(strings.TrimSpace(string(out)), "|"); err != nil || len(fields) != 4 || fields[1] != "0" || fields[2] != "240" || fields[3] != "text" {
		t.Errorf("sqlite3 = %q, %v, want compact row ids, TTL 240, schema as text", out, err)
	}
}

func TestPublishAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	first := w.publish(t, nil)
	before, _, _ := w.tree(t, first.RootHash)
	published, err := os.ReadFile(filepath.Join(w.repo(), cvmfs.ManifestFile))
	must(t, err)

	same := w.publish(t, nil)
	if !same.Unchanged || same.RootHash != first.RootHash || same.Revision != 1 || same.Read != 0 || same.Added+same.Changed+same.Removed != 0 {
		t.Errorf("publishing the same tree = %+v, want nothing read and nothing changed", same)
	}
	if now, _ := os.ReadFile(filepath.Join(w.repo(), cvmfs.ManifestFile)); !bytes.Equal(now, published) {
		t.Error("publishing the same tree wrote a manifest")
	}

	tagged := w.publish(t, func(o *publish.Options) { o.Tag = "v1" })
	if !tagged.Unchanged || tagged.RootHash != first.RootHash || !slices.Equal(tagged.Tags, []string{"v1"}) {
		t.Errorf("tagging the same tree = %+v", tagged)
	}
	clean(t, w.check(t))

	w.write(t, "opt/a/new", "new")
	second := w.publish(t, nil)
	if second.Revision != 2 || second.Read != 1 || second.Added != 1 || second.NewCatalogs != 2 || second.Catalogs != 5 {
		t.Errorf("adding a file = %+v, want one file read and two of five catalogues written", second)
	}
	clean(t, w.check(t))

	must(t, os.Remove(filepath.Join(w.source, "opt/a/new")))
	must(t, os.RemoveAll(filepath.Join(w.source, "soft/1.0/.cvmfscatalog")))
	must(t, os.RemoveAll(filepath.Join(w.source, "names")))
	w.write(t, "names", "a file where a directory was")
	must(t, os.Remove(filepath.Join(w.source, "empty")))
	must(t, os.Mkdir(filepath.Join(w.source, "empty"), 0o755))
	third := w.publish(t, nil)
	clean(t, w.check(t))
	entries, xattrs, nested := w.tree(t, third.RootHash)
	compareWithSource(t, w.source, entries, xattrs)
	if want := []string{"/opt/a", "/opt/b", "/soft"}; !slices.Equal(nested, want) {
		t.Errorf("nested catalogues = %q, want %q", nested, want)
	}
	if _, there := entries["/opt/a/new"]; there || !entries["/empty"].IsDir() || !entries["/names"].IsRegular() {
		t.Error("what was removed or changed its type is still as it was")
	}
	for _, path := range []string{"/README", "/big/zeros", "/hard/b", "/soft/2.0/bin/tool"} {
		if entries[path].Hash != before[path].Hash {
			t.Errorf("content of %q changed from %v to %v", path, before[path].Hash, entries[path].Hash)
		}
	}
	// The chain of revisions goes back to the first.
	c := reader{t, cvmfstest.Repo{Dir: w.repo()}}.open(third.RootHash)
	if text, _, err := c.Property("previous_revision"); err != nil || text != second.RootHash.String() {
		t.Errorf("previous_revision = %q, %v, want %v", text, err, second.RootHash)
	}
}

// A change that keeps every entry's own row but regroups hard links.
func TestRegroupedLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := func(n string) string { return filepath.Join(w.source, n) }
	link := func(pairs ...[2]string) {
		for _, n := range []string{"a", "b", "c", "d"} {
			_ = os.Remove(at(n))
		}
		for _, p := range pairs {
			w.write(t, p[0], "same")
			must(t, os.Link(at(p[0]), at(p[1])))
			must(t, os.Chtimes(at(p[0]), clock, clock))
		}
		must(t, os.Chtimes(w.source, clock, clock))
	}
	link([2]string{"a", "b"}, [2]string{"c", "d"})
	w.publish(t, nil)
	link([2]string{"a", "c"}, [2]string{"b", "d"})
	r := w.publish(t, nil)
	if r.Unchanged {
		t.Fatal("regrouping was not seen")
	}
	clean(t, w.check(t))
	entries, _, _ := w.tree(t, r.RootHash)
	if entries["/a"].HardlinkGroup != entries["/c"].HardlinkGroup || entries["/a"].HardlinkGroup == entries["/b"].HardlinkGroup {
		t.Errorf("groups: a %d, b %d, c %d", entries["/a"].HardlinkGroup, entries["/b"].HardlinkGroup, entries["/c"].HardlinkGroup)
	}
}

// Equal trees at an equal time with equal keys give equal repositories, to the
// last byte of every file; with other keys all but what is signed by them.
func TestReproducible(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	first := w.publish(t, nil)
	second := *w
	second.storage, second.now = t.TempDir(), clock
	second.create(t)
	if r := second.publish(t, func(o *publish.Options) { o.Workers = 1 }); r.RootHash != first.RootHash {
		t.Errorf("root = %v, want that of an equal publication elsewhere, %v", r.RootHash, first.RootHash)
	}
	contents := func(w *world) map[string]string {
		files := make(map[string]string)
		must(t, filepath.WalkDir(w.repo(), func(file string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				files[strings.TrimPrefix(file, w.repo())] = string(readFile(t, file))
			}
			return err
		}))
		return files
	}
	if a, b := contents(w), contents(&second); !maps.Equal(a, b) {
		for file := range a {
			if a[file] != b[file] {
				t.Errorf("%s differs between equal publications", file)
			}
		}
		t.Errorf("equal publications have %d and %d files", len(a), len(b))
	}

	third := *w
	third.storage, third.keys, third.now = t.TempDir(), t.TempDir(), clock
	third.create(t)
	third.publish(t, nil)
	a, b := w.head(t), third.head(t)
	if a.Certificate == b.Certificate {
		t.Error("two sets of keys have one certificate")
	}
	a.Certificate, a.Reflog = b.Certificate, b.Reflog // the reflog lists the certificate
	if *a != *b {
		t.Errorf("manifest = %+v, want but for the certificate %+v", b, a)
	}
}

func TestAutomaticCatalogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for d := range 12 {
		for f := range 30 {
			w.write(t, fmt.Sprintf("usr/share/d%02d/f%02d", d, f), "x")
		}
	}
	r := w.publish(t, func(o *publish.Options) { o.MaxEntries = 100 })
	clean(t, w.check(t))
	entries, _, nested := w.tree(t, r.RootHash)
	if len(nested) == 0 {
		t.Fatal("nothing was split off")
	}
	perCatalogue := make(map[string]int)
	for path := range entries {
		home := ""
		for _, n := range nested {
			if strings.HasPrefix(path, n+"/") && len(n) > len(home) {
				home = n
			}
		}
		perCatalogue[home]++
	}
	for home, n := range perCatalogue {
		if n > 103 { // the markers come on top
			t.Errorf("the catalogue of %q has %d entries, want about 100 at most", home, n)
		}
	}
	for _, n := range nested {
		if !entries[n+"/.cvmfsautocatalog"].IsRegular() {
			t.Errorf("%q is not marked as automatic", n)
		}
	}
	again := w.publish(t, func(o *publish.Options) { o.MaxEntries = 100 })
	if !again.Unchanged {
		t.Errorf("publishing again = %+v, want nothing changed", again)
	}
	w.write(t, "usr/share/d00/more", "x")
	grown := w.publish(t, func(o *publish.Options) { o.MaxEntries = 100 })
	if _, _, now := w.tree(t, grown.RootHash); !slices.Equal(now, nested) {
		t.Errorf("after one more file nested catalogues are %q, were %q", now, nested)
	}
	clean(t, w.check(t))
	flat := w.publish(t, func(o *publish.Options) { o.MaxEntries = -1 })
	entries, _, nested = w.tree(t, flat.RootHash)
	if len(nested) != 0 {
		t.Errorf("without automatic catalogues there are %q", nested)
	}
	for path := range entries {
		if strings.HasPrefix(filepath.Base(path), ".cvmfs") {
			t.Errorf("left behind: %q", path)
		}
	}
	clean(t, w.check(t))
}

func TestContinueOriginal(t *testing.T) {
	t.Parallel()
	repo := cvmfstest.Small(t)
	storage := filepath.Dir(repo.Dir)
	clean(t, check(t, storage, cvmfstest.Name, repo.Keys))
	snapshots := cvmfstest.Snapshots(t)
	public, err := cvmfs.ParsePublicKeys(repo.Key(t, "pub"))
	must(t, err)
	clean(t, checkWith(t, filepath.Dir(snapshots.Dir), cvmfstest.Name, public))

	source := t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "README"), []byte("continued"), 0o644))
	must(t, os.MkdirAll(filepath.Join(source, "software/4.0"), 0o755))
	must(t, os.WriteFile(filepath.Join(source, "software/4.0/.cvmfscatalog"), nil, 0o644))
	r, err := publish.Publish(t.Context(), publish.Options{
		Source: source, Storage: storage, Name: cvmfstest.Name, Keys: repo.Keys, Tag: "continued", Now: func() time.Time { return clock },
	})
	must(t, err)
	if r.Revision != 4 || r.RootHash.Algorithm != cvmfs.SHAKE128 || r.Removed == 0 {
		t.Errorf("Publish = %+v, want revision 4 by the algorithm of revision 3", r)
	}
	clean(t, check(t, storage, cvmfstest.Name, repo.Keys))
	m, err := cvmfs.ParseManifest(repo.Read(t, cvmfs.ManifestFile))
	must(t, err)
	if m.Metainfo.String() != "26c3ed98b53e1308d02478520e466feac9f97ee2-shake128" {
		t.Errorf("Metainfo = %v, want that of before", m.Metainfo)
	}
	// A new algorithm takes the small documents along.
	r, err = publish.Publish(t.Context(), publish.Options{
		Source: source, Storage: storage, Name: cvmfstest.Name, Keys: repo.Keys, Algorithm: cvmfs.RIPEMD160, TTL: time.Hour, Now: func() time.Time { return clock.Add(time.Hour) },
	})
	must(t, err)
	if r.Revision != 5 || r.RootHash.Algorithm != cvmfs.RIPEMD160 {
		t.Errorf("Publish = %+v, want revision 5 by rmd160", r)
	}
	m, err = cvmfs.ParseManifest(repo.Read(t, cvmfs.ManifestFile))
	must(t, err)
	for _, h := range []cvmfs.Hash{m.Certificate, m.History, m.Metainfo, m.Reflog} {
		if h.Algorithm != cvmfs.RIPEMD160 {
			t.Errorf("%v in a manifest by rmd160", h)
		}
	}
	clean(t, check(t, storage, cvmfstest.Name, repo.Keys))
}

func TestCompressionNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "empty", "")
	w.write(t, "file", "content")
	w.write(t, "big", string(make([]byte, 100000)))
	r := w.publish(t, func(o *publish.Options) { o.Compression = cvmfs.Plain; o.Algorithm = cvmfs.SHAKE128 })
	clean(t, w.check(t))
	entries, _, _ := w.tree(t, r.RootHash)
	if got, want := entries["/empty"].Hash.String(), "7f9c2ba4e88f827d616045507605853ed73b8093-shake128"; got != want { // T14
		t.Errorf("hash of the empty file = %v, want %v", got, want)
	}
	if e := entries["/big"]; uint32(e.Flags) != 2628 {
		t.Errorf("flags of the chunked file = %d, want 2628", e.Flags)
	}
	stored, err := os.ReadFile(filepath.Join(w.repo(), entries["/file"].Hash.ObjectPath(cvmfs.SuffixNone)))
	if err != nil || string(stored) != "content" {
		t.Errorf("stored form = %q, %v, want the content itself", stored, err)
	}
}

func TestWhitelistIsRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "file", "1")
	if r := w.publish(t, nil); r.WhitelistRenewed || !r.WhitelistExpires.Equal(clock.Add(publish.DefaultWhitelistLifetime)) {
		t.Errorf("fresh: %+v", r)
	}
	w.now = clock.Add(40 * 24 * time.Hour) // it has ended
	w.write(t, "file", "22")
	if r := w.publish(t, nil); !r.WhitelistRenewed || !r.WhitelistExpires.Equal(w.now.Add(publish.DefaultWhitelistLifetime)) {
		t.Errorf("after its end: %+v", r)
	}
	must(t, os.Remove(filepath.Join(w.keys, name+".masterkey")))
	w.write(t, "file", "333")
	w.publish(t, nil)
	w.now = w.now.Add(40 * 24 * time.Hour)
	w.write(t, "file", "4444")
	if _, err := publish.Publish(t.Context(), w.options()); !errors.Is(err, cvmfs.ErrExpired) {
		t.Errorf("after its end, without the master key: %v, want ErrExpired", err)
	}
}

func TestOwnerAndDiffOfEntries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "a/file", "1")
	r := w.publish(t, func(o *publish.Options) { o.Owner = &publish.Owner{UID: 7, GID: 8} })
	entries, _, _ := w.tree(t, r.RootHash)
	got := make(map[string][2]uint32)
	for path, e := range entries {
		got[path] = [2]uint32{e.UID, e.GID}
	}
	want := map[string][2]uint32{"": {7, 8}, "/a": {7, 8}, "/a/file": {7, 8}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}

// Files the original cut are cut at the same places.
func TestCutsOfOriginalFiles(t *testing.T) {
	t.Parallel()
	repo := cvmfstest.Small(t)
	root, err := cvmfs.ParseHash(cvmfstest.RootHashes[3])
	must(t, err)
	known := map[string][]int64{
		"/v3/bigraw":    {16801, 34119, 86516, 124202, 145346},
		"/big/zeros":    {65536, 131072, 196608},
		"/big/hardbig1": {65536},
	}
	source, offsets := t.TempDir(), make(map[string][]int64)
	c := reader{t, repo}.open(root)
	for path := range known {
		at := c
		for {
			n, found, err := at.NestedFor(path)
			must(t, err)
			if !found {
				break
			}
			at = reader{t, repo}.open(n.Hash)
			if e, _, err := at.Lookup(path); err == nil && e.Name != "" && !e.IsNestedRoot() {
				break
			}
		}
		e, found, err := at.Lookup(path)
		if err != nil || !found {
			t.Fatalf("Lookup(%q) = %v, %v", path, found, err)
		}
		chunks, err := at.Chunks(path)
		must(t, err)
		var content bytes.Buffer
		for _, chunk := range chunks {
			if chunk.Offset > 0 {
				offsets[path] = append(offsets[path], chunk.Offset)
			}
			stored := repo.Read(t, chunk.Hash.ObjectPath(cvmfs.SuffixPartial))
			_, err := cvmfs.CopyVerified(&content, bytes.NewReader(stored), chunk.Hash, e.Compression, chunk.Size)
			must(t, err)
		}
		must(t, os.WriteFile(filepath.Join(source, filepath.Base(path)), content.Bytes(), 0o644))
	}
	if diff := cmp.Diff(known, offsets); diff != "" {
		t.Errorf("chunks of the original (-known +read):\n%s", diff)
	}
	w := newWorld(t)
	w.source = source
	r := w.publish(t, nil)
	c = reader{t, cvmfstest.Repo{Dir: w.repo()}}.open(r.RootHash)
	got := make(map[string][]int64)
	for path := range known {
		chunks, err := c.Chunks("/" + filepath.Base(path))
		must(t, err)
		for _, chunk := range chunks[1:] {
			got[path] = append(got[path], chunk.Offset)
		}
	}
	if diff := cmp.Diff(known, got); diff != "" {
		t.Errorf("chunks of ours (-original +ours):\n%s", diff)
	}
}
