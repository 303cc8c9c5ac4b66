package publish_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/publish"
)

func (w *world) clock() time.Time { return w.now }

func TestResign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "file", "x")
	w.publish(t, nil)
	manifest, err := os.ReadFile(filepath.Join(w.repo(), cvmfs.ManifestFile))
	must(t, err)
	options := publish.ResignOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: w.clock, Lifetime: 7 * 24 * time.Hour}
	list, err := publish.Resign(t.Context(), options)
	if err != nil || !list.Expires.Equal(w.now.Add(options.Lifetime)) {
		t.Fatalf("Resign = %+v, %v", list, err)
	}
	if now, _ := os.ReadFile(filepath.Join(w.repo(), cvmfs.ManifestFile)); string(now) != string(manifest) {
		t.Error("Resign with the same certificate wrote a manifest")
	}
	clean(t, w.check(t))

	// A new repository key: the old certificate goes, the manifest is signed anew.
	other := t.TempDir()
	_, err = publish.CreateKeys(other, name, clock)
	must(t, err)
	for _, kind := range []string{"key", "crt"} {
		must(t, os.Remove(filepath.Join(w.keys, name+"."+kind)))
		must(t, os.Rename(filepath.Join(other, name+"."+kind), filepath.Join(w.keys, name+"."+kind)))
	}
	w.write(t, "file", "yy")
	if _, err := publish.Publish(t.Context(), w.options()); !errors.Is(err, publish.ErrKeys) {
		t.Errorf("publishing with a certificate that is not listed: %v, want ErrKeys", err)
	}
	list, err = publish.Resign(t.Context(), options)
	if err != nil || len(list.Fingerprints) != 1 {
		t.Fatalf("Resign with a new certificate = %+v, %v, want one fingerprint", list, err)
	}
	clean(t, w.check(t))
	w.publish(t, nil)
	clean(t, w.check(t))
	must(t, os.Remove(filepath.Join(w.keys, name+".masterkey")))
	if _, err := publish.Resign(t.Context(), options); !errors.Is(err, publish.ErrKeys) {
		t.Errorf("Resign without the master key: %v, want ErrKeys", err)
	}
}

func tagNames(t testing.TB, w *world) []string {
	t.Helper()
	info, err := publish.ReadInfo(t.Context(), w.storage, name, nil, w.clock)
	must(t, err)
	var names []string
	for _, tag := range info.Tags {
		if !strings.HasPrefix(tag.Name, "generic") {
			names = append(names, tag.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "file", "1")
	w.publish(t, func(o *publish.Options) { o.Tag = "v1" })
	w.write(t, "file", "22")
	w.publish(t, func(o *publish.Options) { o.NoGenericTag = true })
	edit := func(set string, remove ...string) error {
		return publish.EditTags(t.Context(), publish.TagOptions{Storage: w.storage, Name: name, Keys: w.keys, Set: set, Remove: remove, Now: w.clock})
	}
	must(t, edit("v2"))
	if got, want := tagNames(t, w), []string{"trunk", "trunk-previous", "v1", "v2"}; !slices.Equal(got, want) {
		t.Errorf("tags = %q, want %q", got, want)
	}
	clean(t, w.check(t))
	must(t, edit("", "v1"))
	if got, want := tagNames(t, w), []string{"trunk", "trunk-previous", "v2"}; !slices.Equal(got, want) {
		t.Errorf("tags = %q, want %q", got, want)
	}
	clean(t, w.check(t))
	for _, test := range []struct {
		err, want error
	}{
		{edit("v2"), publish.ErrExists},
		{edit("", "nothing"), publish.ErrNoTag},
		{edit("trunk"), publish.ErrExists},
		{edit("", "trunk"), publish.ErrExists},
		{edit("a b"), cvmfs.ErrMalformed},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("EditTags = %v, want %v", test.err, test.want)
		}
	}
	info, err := publish.ReadInfo(t.Context(), w.storage, name, nil, w.clock)
	if err != nil || info.Manifest.Revision != 2 || !errors.Is(info.Verified, publish.ErrKeys) || info.Counters.Regular != 1 {
		t.Errorf("ReadInfo = %+v, %v", info, err)
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	w.publish(t, func(o *publish.Options) { o.Tag = "v1"; o.NoGenericTag = true })
	w.write(t, "soft/1.0/bin/tool", "another tool")
	w.publish(t, func(o *publish.Options) { o.NoGenericTag = true })
	w.write(t, "soft/1.0/bin/tool", "a third tool")
	w.write(t, "big/cut", strings.Repeat("now it is something else", 10000))
	w.publish(t, func(o *publish.Options) { o.NoGenericTag = true })
	orphan := filepath.Join(w.repo(), "data/ab", strings.Repeat("0", 38))
	must(t, os.WriteFile(orphan, []byte("orphan"), 0o644))

	collect := func(change func(*publish.CollectOptions)) *publish.Collected {
		t.Helper()
		o := publish.CollectOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: w.clock}
		if change != nil {
			change(&o)
		}
		c, err := publish.Collect(t.Context(), o)
		must(t, err)
		return c
	}
	dry := collect(func(o *publish.CollectOptions) { o.DryRun = true })
	if _, err := os.Stat(orphan); err != nil || dry.Removed == 0 {
		t.Errorf("dry run = %+v, %v", dry, err)
	}
	young := collect(func(o *publish.CollectOptions) {
		o.MinAge, o.Now = time.Hour, time.Now
	})
	if young.Removed != 0 {
		t.Errorf("objects of this minute were removed: %v", young.Paths)
	}
	done := collect(nil)
	if diff := cmp.Diff(dry.Paths, done.Paths); diff != "" {
		t.Errorf("removed other than announced (-dry +done):\n%s", diff)
	}
	if _, err := os.Stat(orphan); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("orphan: %v, want it gone", err)
	}
	clean(t, w.check(t))                          // trunk, trunk-previous and v1 are whole
	if again := collect(nil); again.Removed > 1 { // the history object the collection itself replaced
		t.Errorf("collecting again removed %v", again.Paths)
	}

	// Once the tag is gone so is what only it needed, and nothing else.
	must(t, publish.EditTags(t.Context(), publish.TagOptions{Storage: w.storage, Name: name, Keys: w.keys, Remove: []string{"v1"}, Now: w.clock}))
	if last := collect(nil); last.Removed < 5 {
		t.Errorf("after removing the tag = %+v, want the first revision's chunks gone", last)
	}
	clean(t, w.check(t))

	// A hole in what must stay stops everything.
	info, err := publish.ReadInfo(t.Context(), w.storage, name, nil, w.clock)
	must(t, err)
	must(t, os.WriteFile(orphan, []byte("orphan"), 0o644))
	for _, tag := range info.Tags {
		if tag.Name == "trunk-previous" {
			must(t, os.Remove(filepath.Join(w.repo(), tag.Hash.ObjectPath(cvmfs.SuffixCatalog))))
		}
	}
	if _, err := publish.Collect(t.Context(), publish.CollectOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: w.clock}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with a tagged catalogue missing: %v, want ErrNotExist", err)
	}
	if _, err := os.Stat(orphan); err != nil {
		t.Errorf("something was removed all the same: %v", err)
	}
}

func TestCollectOriginal(t *testing.T) {
	t.Parallel()
	repo := cvmfstest.Small(t)
	storage := filepath.Dir(repo.Dir)
	c, err := publish.Collect(t.Context(), publish.CollectOptions{Storage: storage, Name: cvmfstest.Name, Keys: repo.Keys, Now: func() time.Time { return clock }})
	must(t, err)
	if c.Kept < 100 {
		t.Errorf("Collect = %+v", c)
	}
	clean(t, check(t, storage, cvmfstest.Name, repo.Keys))
}

func TestDiff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	first := w.publish(t, nil)
	w.write(t, "opt/a/new", "new")
	w.write(t, "README2", "x")
	must(t, os.Remove(filepath.Join(w.source, "hard/c")))
	must(t, os.RemoveAll(filepath.Join(w.source, "soft/1.0")))
	must(t, os.Chmod(filepath.Join(w.source, "software/x"), 0o600))
	second := w.publish(t, nil)
	got := make(map[string]string)
	last := ""
	err := publish.Diff(t.Context(), w.storage, name, first.RootHash, second.RootHash, func(c publish.Change) error {
		got[c.Path] = c.Kind
		last = c.Path
		return nil
	})
	must(t, err)
	want := map[string]string{
		"/": "changed", "/opt/a": "changed", "/opt/a/.cvmfscatalog": "changed", "/opt/a/new": "added", "/README2": "added",
		"/hard": "changed", "/hard/a": "changed", "/hard/b": "changed", "/hard/c": "removed",
		"/soft": "changed", "/soft/1.0": "removed", "/soft/1.0/.cvmfscatalog": "removed", "/soft/1.0/bin": "removed", "/soft/1.0/bin/tool": "removed",
		"/software/x": "changed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	if last != "/software/x" {
		t.Errorf("last difference is %q, want them in order", last)
	}
	err = publish.Diff(t.Context(), w.storage, name, first.RootHash, first.RootHash, func(c publish.Change) error {
		t.Errorf("a revision differs from itself: %+v", c)
		return nil
	})
	must(t, err)
}

func TestAttachProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "a", "first")
	w.write(t, "b", "second")
	w.publish(t, nil)
	read := func() *client.Repository {
		pem, err := os.ReadFile(filepath.Join(w.keys, name+".pub"))
		must(t, err)
		public, err := cvmfs.ParsePublicKeys(pem)
		must(t, err)
		r, err := client.Open(t.Context(), client.Options{
			Name: name, Servers: []string{"file://" + w.repo()}, MasterKeys: public, CacheDir: t.TempDir(), Record: 100, Now: w.clock,
		})
		must(t, err)
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	r := read()
	for _, file := range []string{"/b", "/a"} {
		f, err := r.Open(t.Context(), file)
		must(t, err)
		must(t, f.Close())
	}
	p := r.Recorded()
	all := *p
	all.Objects = append(slices.Clone(p.Objects), profile.Object{Hash: cvmfs.SHA1.Sum([]byte("gone")), Size: 4})
	o := publish.ProfileOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: w.clock}
	if missing, err := publish.AttachProfile(t.Context(), o, &all); missing != 1 || err != nil {
		t.Fatalf("AttachProfile = %d, %v; want one missing", missing, err)
	}
	w.write(t, "c", "third")
	w.publish(t, nil) // which leaves it where it is
	clean(t, w.check(t))
	got, err := read().Profile(t.Context())
	must(t, err)
	if diff := cmp.Diff(p, got); diff != "" {
		t.Errorf("Profile (-attached +read):\n%s", diff)
	}

	other := *p
	other.Repository = "other.example.org"
	if _, err := publish.AttachProfile(t.Context(), o, &other); !errors.Is(err, cvmfs.ErrWrongName) {
		t.Errorf("AttachProfile of another repository = %v, want ErrWrongName", err)
	}
	// Another certificate than the one that readers know.
	fresh := t.TempDir()
	_, err = publish.CreateKeys(fresh, name, clock)
	must(t, err)
	for _, kind := range []string{"key", "crt"} {
		must(t, os.Rename(filepath.Join(fresh, name+"."+kind), filepath.Join(w.keys, name+"."+kind)))
	}
	if _, err := publish.AttachProfile(t.Context(), o, p); !errors.Is(err, publish.ErrKeys) {
		t.Errorf("AttachProfile with other keys = %v, want ErrKeys", err)
	}
}
