package publish_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/atomicfile"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "file", "x")
	attempt := func(change func(*publish.Options)) error {
		o := w.options()
		change(&o)
		_, err := publish.Publish(t.Context(), o)
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(w.repo(), cvmfs.ManifestFile))
	must(t, err)
	locked, err := atomicfile.TryLock(filepath.Join(w.storage, "."+name+".lock"))
	must(t, err)
	if err := attempt(func(*publish.Options) {}); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("while another publishes: %v, want ErrLocked", err)
	}
	must(t, locked.Unlock())
	canceled, stop := cancelled(t)
	if _, err := publish.Publish(canceled, w.options()); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v, want %v", err, stop)
	}
	for what, test := range map[string]struct {
		change func(*publish.Options)
		want   error
	}{
		"another name":   {func(o *publish.Options) { o.Name = "other.example.org" }, publish.ErrNoRepository},
		"a wrong name":   {func(o *publish.Options) { o.Name = "../x" }, cvmfs.ErrMalformed},
		"no source":      {func(o *publish.Options) { o.Source += "x" }, fs.ErrNotExist},
		"a file":         {func(o *publish.Options) { o.Source += "/file" }, unix.ENOTDIR},
		"no keys":        {func(o *publish.Options) { o.Keys = w.source }, fs.ErrNotExist},
		"trunk":          {func(o *publish.Options) { o.Tag = "trunk" }, publish.ErrExists},
		"a wrong tag":    {func(o *publish.Options) { o.Tag = "a b" }, cvmfs.ErrMalformed},
		"chunk sizes":    {func(o *publish.Options) { o.Chunks = publish.ChunkSizes{Min: 5, Avg: 4, Max: 3} }, errors.ErrUnsupported},
		"itself":         {func(o *publish.Options) { o.Source = filepath.Dir(w.storage) }, publish.ErrSource},
		"an old storage": {func(o *publish.Options) { o.Storage = w.source }, publish.ErrNoRepository},
	} {
		if err := attempt(test.change); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", what, err, test.want)
		}
	}
	w.write(t, ".cvmfscatalog", "")
	if err := attempt(func(*publish.Options) {}); !errors.Is(err, publish.ErrSource) {
		t.Errorf("marker at the root: %v, want ErrSource", err)
	}
	must(t, os.Remove(filepath.Join(w.source, ".cvmfscatalog")))
	w.write(t, ".cvmfsdirtab", "relative/*\n")
	if err := attempt(func(*publish.Options) {}); !errors.Is(err, publish.ErrSource) {
		t.Errorf("bad rules: %v, want ErrSource", err)
	}
	must(t, os.Remove(filepath.Join(w.source, ".cvmfsdirtab")))
	if now, _ := os.ReadFile(filepath.Join(w.repo(), cvmfs.ManifestFile)); !bytes.Equal(now, manifest) {
		t.Error("a refused publication changed the manifest")
	}
	if err := publish.Create(t.Context(), publish.CreateOptions{Storage: w.storage, Name: name, Keys: w.keys}); !errors.Is(err, publish.ErrExists) {
		t.Errorf("Create again: %v, want ErrExists", err)
	}
	w.publish(t, func(o *publish.Options) { o.Tag = "v1" })
	if err := attempt(func(o *publish.Options) { o.Tag = "v1" }); !errors.Is(err, publish.ErrExists) {
		t.Errorf("the same tag: %v, want ErrExists", err)
	}
	clean(t, w.check(t))
	left, err := filepath.Glob(filepath.Join(w.repo(), "data/txn/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// What a killed publication left is gone after the next, and harmless until then.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "file", "x")
	staged := filepath.Join(w.repo(), "data/txn/mica-killed/object-1")
	must(t, os.MkdirAll(filepath.Dir(staged), 0o700))
	must(t, os.WriteFile(staged, []byte("half"), 0o600))
	must(t, os.WriteFile(filepath.Join(w.repo(), "data/ab", strings.Repeat("0", 38)), []byte("orphan"), 0o644))
	clean(t, w.check(t))
	w.publish(t, nil)
	if _, err := os.Stat(staged); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("leftover: %v, want it gone", err)
	}
	clean(t, w.check(t))

	// A reflog that is ahead of the manifest, as after a power cut between the
	// two, or none at all, does not stop the next publication.
	for _, spoil := range []func(string) error{
		func(f string) error { return os.Remove(f) },
		func(f string) error { return os.WriteFile(f, []byte("damaged"), 0o644) },
	} {
		must(t, spoil(filepath.Join(w.repo(), cvmfs.ReflogFile)))
		w.write(t, "file", w.now.String())
		w.publish(t, nil)
		clean(t, w.check(t))
	}
}

// A damaged object is found, by its size even when the same file comes again.
func TestDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	r := w.publish(t, nil)
	entries, _, _ := w.tree(t, r.RootHash)
	object := filepath.Join(w.repo(), entries["/README"].Hash.ObjectPath(cvmfs.SuffixNone))
	good, err := os.ReadFile(object)
	must(t, err)

	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for what, damage := range map[string]func() error{
		"flipped": func() error { return os.WriteFile(object, flipped, 0o644) },
		"cut":     func() error { return os.WriteFile(object, good[:3], 0o644) },
		"missing": func() error { return os.Remove(object) },
	} {
		must(t, damage())
		report := w.check(t)
		if len(report.Problems) != 1 || report.Problems[0].Path != "/README" {
			t.Errorf("%s: Problems = %v, want one about /README", what, report.Problems)
		}
	}
	// Neither the revision nor a tag changes when the same tree mends it.
	must(t, os.WriteFile(object, good[:3], 0o644))
	before := w.head(t)
	if again := w.publish(t, func(o *publish.Options) { o.Checksum = true }); !again.Unchanged || again.Objects != 1 || *w.head(t) != *before {
		t.Errorf("publishing the same tree by its contents = %+v, want one object and no revision", again)
	}
	clean(t, w.check(t))
	must(t, os.WriteFile(object, good[:3], 0o644))
	must(t, os.Chtimes(filepath.Join(w.source, "README"), clock, clock))
	w.publish(t, nil)
	clean(t, w.check(t))

	manifest := filepath.Join(w.repo(), cvmfs.ManifestFile)
	data, err := os.ReadFile(manifest)
	must(t, err)
	must(t, os.WriteFile(manifest, append(data[:len(data)-1], data[len(data)-1]^1), 0o644))
	if report := w.check(t); len(report.Problems) != 1 || !strings.Contains(report.Problems[0].Text, "signature") {
		t.Errorf("broken signature: Problems = %v", report.Problems)
	}
}
