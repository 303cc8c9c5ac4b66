package client_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/slice"
)

// readAll reads every regular file, and returns what each has.
func readAll(t *testing.T, r *client.Repository) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(r.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(r.FS(), path)
		all[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// recorded reads the whole repository and returns its profile and content.
func recorded(t *testing.T, url string) (*profile.Profile, map[string]string) {
	t.Helper()
	o := options(t, url)
	o.Record = 1000
	r := open(t, o)
	all := readAll(t, r)
	return r.Recorded(), all
}

func TestRecord(t *testing.T) {
	server := cvmfstest.NewRogue(t, unpack(t, "repo.tar.gz"))
	p, all := recorded(t, server.Base)
	if p.Repository != small || p.Objects[0].Hash != p.Root || p.Objects[0].Suffix != cvmfs.SuffixCatalog || len(all) < 10 {
		t.Errorf("profile of %q, root %s, first object %+v, %d files", p.Repository, p.Root, p.Objects[0], len(all))
	}
	seen := map[cvmfs.Hash]bool{}
	for _, o := range p.Objects {
		if seen[o.Hash] {
			t.Errorf("object %s is there twice", o.Hash)
		}
		seen[o.Hash] = true
		if server.Count("/"+o.Path()) != 1 {
			t.Errorf("%s was asked for %d times", o.Path(), server.Count("/"+o.Path()))
		}
	}

	// What comes from the cache is recorded like what was downloaded.
	o := options(t, server.Base)
	o.Record = 1000
	cold, err := client.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, cold)
	if err := cold.Close(); err != nil {
		t.Fatal(err)
	}
	warm := open(t, o)
	readAll(t, warm)
	// Catalogues may come sooner or later, as they are looked into ahead.
	if diff := cmp.Diff(p.Objects, warm.Recorded().Objects, cmpopts.SortSlices(func(a, b profile.Object) bool { return a.Path() < b.Path() })); diff != "" {
		t.Errorf("recorded with a full cache (-cold +warm):\n%s", diff)
	}

	o = options(t, server.Base)
	o.Record = 3
	few := open(t, o)
	readAll(t, few)
	if diff := cmp.Diff(p.Objects[:3], few.Recorded().Objects); diff != "" {
		t.Errorf("the first three (-want +got):\n%s", diff)
	}
	if none := open(t, options(t, server.Base)).Recorded(); len(none.Objects) != 0 {
		t.Errorf("%d objects recorded, none asked for", len(none.Objects))
	}
}

func TestPrefetch(t *testing.T) {
	server := cvmfstest.NewRogue(t, unpack(t, "repo.tar.gz"))
	p, all := recorded(t, server.Base)
	p.Objects = append(p.Objects, profile.Object{Hash: cvmfs.SHA1.Sum([]byte("gone")), Size: 4})
	r := open(t, options(t, server.Base))
	var most, now atomic.Int32
	server.Set(func(string, int) cvmfstest.Fault {
		return func(w http.ResponseWriter, req *http.Request, files http.Handler) {
			for n, old := now.Add(1), most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			time.Sleep(5 * time.Millisecond)
			now.Add(-1)
			files.ServeHTTP(w, req)
		}
	})
	n, err := r.Prefetch(t.Context(), p, 6)
	if want := len(p.Objects) - 2; err != nil || n != want { // not the root, which is there, nor what is gone
		t.Errorf("Prefetch = %d, %v; want %d", n, err, want)
	}
	if most.Load() < 2 || most.Load() > 6 {
		t.Errorf("%d requests at a time at most, want 2 to 6", most.Load())
	}
	before := r.Stats()
	if diff := cmp.Diff(all, readAll(t, r)); diff != "" {
		t.Errorf("content (-want +got):\n%s", diff)
	}
	if after := r.Stats(); after.Objects > before.Objects+1 || after.Ahead > int64(n)+1 {
		t.Errorf("%d objects more were downloaded, %d ahead; want none but one that io/fs has no name for, %d", after.Objects-before.Objects, after.Ahead, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := open(t, options(t, server.Base)).Prefetch(ctx, p, 6); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("Prefetch of a caller that gave up = %d, %v", n, err)
	}
}

// TestPrefetchLeavesRoom sees that no profile fills the cache.
func TestPrefetchLeavesRoom(t *testing.T) {
	server := cvmfstest.NewRogue(t, unpack(t, "repo.tar.gz"))
	p, _ := recorded(t, server.Base)
	o := options(t, server.Base)
	o.Quota = 2 * (p.Objects[1].Size + 1)
	for i := range p.Objects {
		p.Objects[i].Size = max(p.Objects[i].Size, 0)
	}
	if n, err := open(t, o).Prefetch(t.Context(), p, 1); err != nil || n > 3 {
		t.Errorf("Prefetch = %d, %v; want half a cache's worth", n, err)
	}
}

func TestProfileBesideTheManifest(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	server := cvmfstest.NewRogue(t, repo)
	p, _ := recorded(t, server.Base)
	key, err := cvmfs.ParsePrivateKey(mustRead(t, filepath.Join(filepath.Dir(repo), "keys", small+".key")))
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	put := func(p *profile.Profile, key *rsa.PrivateKey, change func([]byte)) {
		data, err := cvmfs.SignText(p.Text(), cvmfs.SHA1, key)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(data)
		}
		if err := os.WriteFile(filepath.Join(repo, profile.Name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, options(t, server.Base))
	if _, err := r.Profile(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Profile = %v where there is none, want fs.ErrNotExist", err)
	}
	put(p, key, nil)
	got, err := r.Profile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, got); diff != "" {
		t.Errorf("Profile (-want +got):\n%s", diff)
	}
	put(p, other, nil)
	if _, err := r.Profile(t.Context()); !errors.Is(err, cvmfs.ErrSignature) {
		t.Errorf("Profile signed by another = %v, want ErrSignature", err)
	}
	put(p, key, func(data []byte) { data[60] ^= 1 })
	if _, err := r.Profile(t.Context()); !errors.Is(err, cvmfs.ErrMalformed) {
		t.Errorf("Profile with a changed byte = %v, want ErrMalformed", err)
	}
	foreign := *p
	foreign.Repository = "other.example"
	put(&foreign, key, nil)
	if _, err := r.Profile(t.Context()); !errors.Is(err, cvmfs.ErrWrongName) {
		t.Errorf("Profile of another repository = %v, want ErrWrongName", err)
	}
	o := options(t, server.Base)
	o.MasterKeys, o.Pin.RootHash = nil, p.Root
	if _, err := open(t, o).Profile(t.Context()); !errors.Is(err, cvmfs.ErrUntrusted) {
		t.Errorf("Profile without a manifest = %v, want ErrUntrusted", err)
	}
}

// cut makes a slice of everything that the profile names.
func cut(t *testing.T, r *client.Repository, p *profile.Profile) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteSlice(t.Context(), &out, p, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// nowhere is the address of no server.
const nowhere = "http://127.0.0.1:1/cvmfs/" + small

func TestSliceWithoutServer(t *testing.T) {
	server := cvmfstest.NewRogue(t, unpack(t, "repo.tar.gz"))
	p, all := recorded(t, server.Base)
	data := cut(t, open(t, options(t, server.Base)), p)
	openSlice := func(data []byte) *slice.Slice {
		s, err := slice.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	o := options(t, nowhere)
	o.Slices = []*slice.Slice{openSlice(data)}
	r := open(t, o)
	if diff := cmp.Diff(all, readAll(t, r)); diff != "" {
		t.Errorf("content (-want +got):\n%s", diff)
	}
	if s := r.Stats(); s.Objects != 0 || s.Sliced != int64(len(p.Objects)+1) {
		t.Errorf("%d objects downloaded and %d from the slice, want 0 and %d", s.Objects, s.Sliced, len(p.Objects)+1)
	}
	if r.Offline() || r.Revision() != 3 {
		t.Errorf("offline %v, revision %d; want a first-class revision 3", r.Offline(), r.Revision())
	}

	// A machine that was told a tag finds it in the slice, too.
	o = options(t, nowhere)
	o.Pin.Tag, o.Slices = "rev3", []*slice.Slice{openSlice(data)}
	if r := open(t, o); r.RootHash() != p.Root || r.Stats().Objects != 0 {
		t.Errorf("tag rev3 of the slice is %s after %d downloads, want %s", r.RootHash(), r.Stats().Objects, p.Root)
	}

	// A key that did not sign it: the slice is not believed, and there is no other way.
	o = options(t, nowhere)
	o.Slices = []*slice.Slice{openSlice(data)}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	o.MasterKeys = []*rsa.PublicKey{&key.PublicKey}
	if r, err := client.Open(t.Context(), o); err == nil {
		_ = r.Close()
		t.Error("a slice was believed that another key signed")
	}

	// Wrong bytes in it: those come from a server.
	at := bytes.Index(data, []byte(p.Objects[1].Path())) + 512
	broken := bytes.Clone(data)
	broken[at+4] ^= 0xff
	o = options(t, server.Base)
	o.Slices = []*slice.Slice{openSlice(broken)}
	r = open(t, o)
	if diff := cmp.Diff(all, readAll(t, r)); diff != "" {
		t.Errorf("content from a broken slice and a server (-want +got):\n%s", diff)
	}
	// A file that io/fs has no name for may have been fetched ahead.
	if s := r.Stats(); s.Objects < 1 || s.Objects > 2 {
		t.Errorf("%d objects downloaded, want the broken one", s.Objects)
	}
}

// TestSliceOfAnOldRevision sees that a slice does not take a cache back.
func TestSliceOfAnOldRevision(t *testing.T) {
	server := cvmfstest.NewRogue(t, unpack(t, "repo.tar.gz"))
	p, _ := recorded(t, server.Base)
	data := cut(t, open(t, options(t, server.Base)), p)
	s, err := slice.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	newer := cvmfstest.NewRogue(t, unpack(t, "repo-snapshots.tar.gz"))
	o := options(t, newer.Base)
	seen, err := client.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := seen.Close(); err != nil {
		t.Fatal(err)
	}
	o.Slices = []*slice.Slice{s}
	if r := open(t, o); r.Revision() != 4 {
		t.Errorf("revision %d after 4 was seen", r.Revision())
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
