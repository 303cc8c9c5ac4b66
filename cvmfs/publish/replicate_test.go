package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/cvmfs/serve"
)

// stratum serves a storage directory and can be told to misbehave.
type stratum struct {
	*httptest.Server
	mu    sync.Mutex // guards the following
	asked map[string]int
	judge func(file string, nth int) int // status to answer with instead; 0 is none
	total int
}

func newStratum(t testing.TB, storage string) *stratum {
	t.Helper()
	s := &stratum{asked: make(map[string]int)}
	inner := serve.New(serve.Options{Storage: []string{storage}})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/cvmfs/"), "/")
		s.mu.Lock()
		s.asked[file]++
		s.total++
		status := 0
		if s.judge != nil {
			status = s.judge(file, s.total)
		}
		s.mu.Unlock()
		if status != 0 {
			http.Error(w, "as told", status)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *stratum) set(judge func(file string, nth int) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge, s.asked, s.total = judge, make(map[string]int), 0
}

func (s *stratum) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// replica is a copy of a world's repository.
type replica struct {
	world
	options publish.ReplicateOptions
}

func (w *world) replica(t testing.TB, source string) *replica {
	t.Helper()
	public, err := cvmfs.ParsePublicKeys(readFile(t, filepath.Join(w.keys, name+".pub")))
	must(t, err)
	r := &replica{world: world{storage: t.TempDir(), keys: w.keys, now: w.now}}
	r.options = publish.ReplicateOptions{Source: source, Storage: r.storage, Name: name, MasterKeys: public, Now: func() time.Time { return w.now }}
	return r
}

func (r *replica) copy(t testing.TB) *publish.Replicated {
	t.Helper()
	result, err := publish.Replicate(t.Context(), r.options)
	must(t, err)
	return result
}

// mirror copies a repository from wherever it is into a directory.
func mirror(t testing.TB, w *world) cvmfstest.Repo {
	t.Helper()
	root, query, asked := strings.Cut(w.storage, "?")
	source := root + "/" + name
	if asked {
		source += "?" + query
	}
	r := w.replica(t, source)
	r.copy(t)
	return cvmfstest.Repo{Dir: r.repo()}
}

func TestReplicate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	w.publish(t, func(o *publish.Options) { o.Tag = "v1" })
	s := newStratum(t, w.storage)
	r := w.replica(t, s.URL+"/cvmfs/"+name)
	first := r.copy(t)
	if first.Revision != 1 || first.Objects < 20 || first.Catalogs < 4 || first.Tags != 3 {
		t.Errorf("Replicate = %+v", first)
	}
	clean(t, r.check(t))
	for _, file := range []string{cvmfs.ManifestFile, cvmfs.WhitelistFile, cvmfs.ReflogFile} {
		if a, b := readFile(t, filepath.Join(w.repo(), file)), readFile(t, filepath.Join(r.repo(), file)); string(a) != string(b) {
			t.Errorf("%s of the replica is another", file)
		}
	}
	if got, want := string(readFile(t, filepath.Join(r.repo(), ".cvmfs_last_snapshot"))), w.now.Format(time.UnixDate)+"\n"; got != want {
		t.Errorf(".cvmfs_last_snapshot = %q, want %q", got, want)
	}
	var status map[string]string
	must(t, json.Unmarshal(readFile(t, filepath.Join(r.repo(), ".cvmfs_status.json")), &status))
	if status["last_snapshot"] != w.now.Format(time.UnixDate) {
		t.Errorf(".cvmfs_status.json = %v", status)
	}
	for _, file := range []string{".cvmfs_is_snapshotting", ".cvmfs_master_replica"} {
		if _, err := os.Lstat(filepath.Join(r.repo(), file)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the replica has a %s: %v", file, err)
		}
	}

	// Nothing new: only the signed files are asked for.
	s.set(nil)
	if again := r.copy(t); !again.Unchanged || again.Objects != 0 || s.requests() > 5 {
		t.Errorf("second time = %+v with %d requests, want unchanged with at most 5", again, s.requests())
	}

	// A small change: what is here is not asked for.
	before, _, _ := r.tree(t, first.RootHash)
	w.write(t, "soft/1.0/bin/new", "something new")
	w.publish(t, nil)
	s.set(nil)
	second := r.copy(t)
	if second.Revision != 2 || second.Catalogs != 3 || second.Objects > 8 {
		t.Errorf("after a change = %+v, want three catalogues and a handful of objects", second)
	}
	clean(t, r.check(t))
	after, _, _ := r.tree(t, second.RootHash)
	if _, there := after["/soft/1.0/bin/new"]; !there || len(after) != len(before)+1 {
		t.Errorf("the replica has %d entries, had %d", len(after), len(before))
	}

	// A client reads it.
	public := r.options.MasterKeys
	copied := newStratum(t, r.storage)
	c, err := client.Open(t.Context(), client.Options{Name: name, Servers: []string{copied.URL + "/cvmfs/" + name}, MasterKeys: public, CacheDir: t.TempDir(), Now: w.clock})
	must(t, err)
	defer c.Close()
	if data, err := fs.ReadFile(c.FS(), "soft/1.0/bin/new"); err != nil || string(data) != "something new" {
		t.Errorf("client reads %q, %v", data, err)
	}
	// A replica is no source of further ones unless somebody says so.
	further := w.replica(t, copied.URL+"/cvmfs/"+name)
	if _, err := publish.Replicate(t.Context(), further.options); !errors.Is(err, publish.ErrNoReplica) {
		t.Errorf("Replicate of a replica = %v, want ErrNoReplica", err)
	}
	further.options.Unmarked = true
	further.copy(t)
	clean(t, further.check(t))
}

// Untagged revisions come along if asked for, as far as there are any.
func TestReplicateHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var roots []cvmfs.Hash
	for i := range 5 {
		w.write(t, "file", strings.Repeat("x", i+1))
		roots = append(roots, w.publish(t, func(o *publish.Options) { o.NoGenericTag = true }).RootHash)
	}
	r := w.replica(t, w.repo())
	has := func(h cvmfs.Hash) bool {
		_, err := os.Lstat(filepath.Join(r.repo(), h.ObjectPath(cvmfs.SuffixCatalog)))
		return err == nil
	}
	var got []bool
	for _, depth := range []int{0, 2, 100} {
		r.options.History = depth
		r.copy(t)
		clean(t, r.check(t))
		for _, h := range roots {
			got = append(got, has(h))
		}
	}
	want := []bool{
		false, false, false, true, true, // trunk and trunk-previous
		false, false, true, true, true,
		true, true, true, true, true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("revisions of the replica (-want +got):\n%s", diff)
	}
}

// The original's repository, with its chunks, hard links and two hash algorithms.
func TestReplicateOriginal(t *testing.T) {
	t.Parallel()
	small := cvmfstest.Small(t)
	public, err := cvmfs.ParsePublicKeys(small.Key(t, "pub"))
	must(t, err)
	for _, repo := range []cvmfstest.Repo{small, cvmfstest.Snapshots(t)} {
		manifest, err := cvmfs.ParseManifest(repo.Read(t, cvmfs.ManifestFile))
		must(t, err)
		storage := t.TempDir()
		o := publish.ReplicateOptions{
			Source: "file://" + repo.Dir, Storage: storage, Name: cvmfstest.Name, MasterKeys: public, Unmarked: true, History: 10,
			Now: func() time.Time { return manifest.Published.Add(time.Hour) },
		}
		result, err := publish.Replicate(t.Context(), o)
		must(t, err)
		if result.RootHash != manifest.RootHash || result.Objects == 0 {
			t.Errorf("Replicate = %+v", result)
		}
		report, err := publish.Check(t.Context(), publish.CheckOptions{Storage: storage, Name: cvmfstest.Name, MasterKeys: public, Data: true, Now: o.Now})
		must(t, err)
		clean(t, report)
	}
}

// Wherever the source breaks down, the replica keeps the revision it has, whole;
// and the next attempt goes on from there.
func TestReplicateInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "old", "old")
	w.publish(t, nil)
	s := newStratum(t, w.storage)
	r := w.replica(t, s.URL+"/cvmfs/"+name)
	r.options.Workers = 2
	r.copy(t)
	before := r.head(t)
	w.tricky(t)
	w.publish(t, nil)
	for _, n := range []int{3, 6, 12, 25} {
		ctx, cancel := context.WithCancel(t.Context())
		s.set(func(_ string, nth int) int {
			if nth >= n {
				cancel()
			}
			return 0
		})
		if _, err := publish.Replicate(ctx, r.options); err == nil {
			t.Fatalf("cancelled after %d requests, it went on to the end", n)
		}
		cancel()
		if now := r.head(t); *now != *before {
			t.Errorf("after %d requests the replica is of revision %d", n, now.Revision)
		}
		clean(t, r.check(t))
	}
	// A server that fails now and then is asked again.
	s.set(func(_ string, nth int) int {
		if nth%7 == 0 {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	r.copy(t)
	clean(t, r.check(t))
	if left, err := filepath.Glob(filepath.Join(r.repo(), "data/txn/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// A source that lacks something, or has it damaged, is told by name, all of it;
// the replica stays what it was. Once the source is mended the rest follows.
func TestReplicateIncomplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	w.publish(t, nil)
	entries, _, _ := w.tree(t, w.head(t).RootHash)
	gone := entries["/soft/1.0/bin/tool"].Hash.ObjectPath(0)
	bad := entries["/README"].Hash.ObjectPath(0)
	saved := map[string][]byte{gone: readFile(t, filepath.Join(w.repo(), gone)), bad: readFile(t, filepath.Join(w.repo(), bad))}
	must(t, os.Remove(filepath.Join(w.repo(), gone)))
	must(t, os.WriteFile(filepath.Join(w.repo(), bad), []byte("garbage"), 0o644))
	s := newStratum(t, w.storage)
	r := w.replica(t, s.URL+"/cvmfs/"+name)
	_, err := publish.Replicate(t.Context(), r.options)
	if !errors.Is(err, publish.ErrIncomplete) {
		t.Fatalf("Replicate = %v, want ErrIncomplete", err)
	}
	for _, want := range []string{gone + `, of "/soft/1.0/", is missing`, bad + `, of "/", is damaged`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Replicate = %v, want %q in it", err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(r.repo(), cvmfs.ManifestFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the replica has a manifest: %v", err)
	}
	for path, data := range saved {
		must(t, os.WriteFile(filepath.Join(w.repo(), path), data, 0o644))
	}
	s.set(nil)
	r.copy(t)
	clean(t, r.check(t))
	if n := s.asked[entries["/hard/a"].Hash.ObjectPath(0)]; n != 0 {
		t.Errorf("an object that had come was asked for again, %d times", n)
	}

	// What a replica itself lost comes back when it is looked for.
	must(t, os.Remove(filepath.Join(r.repo(), gone)))
	if r.copy(t); len(r.check(t).Problems) != 1 {
		t.Errorf("problems = %v, want the lost object", r.check(t).Problems)
	}
	r.options.Recheck = true
	r.copy(t)
	clean(t, r.check(t))
}

func TestReplicateRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "file", "x")
	w.publish(t, nil)
	s := newStratum(t, w.storage)
	old := filepath.Join(t.TempDir(), name) // the source as it was
	must(t, os.CopyFS(old, os.DirFS(w.repo())))
	w.write(t, "file", "xx")
	w.publish(t, nil)
	source := s.URL + "/cvmfs/" + name
	r := w.replica(t, source)
	r.copy(t)
	head := r.head(t)
	other, err := publish.CreateKeys(t.TempDir(), name, clock)
	must(t, err)
	for what, test := range map[string]struct {
		change func(o *publish.ReplicateOptions)
		judge  func(string, int) int
		want   error
	}{
		"expired":     {func(o *publish.ReplicateOptions) { o.Now = func() time.Time { return clock.AddDate(0, 3, 0) } }, nil, cvmfs.ErrExpired},
		"other key":   {func(o *publish.ReplicateOptions) { o.MasterKeys[0] = other.Public }, nil, cvmfs.ErrSignature},
		"older":       {func(o *publish.ReplicateOptions) { o.Source = old }, nil, publish.ErrRollback},
		"other name":  {func(o *publish.ReplicateOptions) { o.Name = "other.example.org" }, nil, publish.ErrOther},
		"no source":   {func(o *publish.ReplicateOptions) { o.Source = t.TempDir() + "/" + name; o.Unmarked = true }, nil, publish.ErrNoRepository},
		"no mark":     {nil, func(file string, _ int) int { return map[bool]int{true: 404}[file == ".cvmfs_master_replica"] }, publish.ErrNoReplica},
		"no manifest": {nil, func(file string, _ int) int { return map[bool]int{true: 404}[file == cvmfs.ManifestFile] }, publish.ErrNoRepository},
		"bad URL":     {func(o *publish.ReplicateOptions) { o.Source = "http://host/" + name + "?x=1" }, nil, errors.ErrUnsupported},
	} {
		s.set(test.judge)
		o := r.options
		o.MasterKeys = append(o.MasterKeys[:0:0], o.MasterKeys...)
		if test.change != nil {
			test.change(&o)
		}
		if _, err := publish.Replicate(t.Context(), o); !errors.Is(err, test.want) {
			t.Errorf("%s: Replicate = %v, want %v", what, err, test.want)
		}
	}
	s.set(nil)
	if now := r.head(t); *now != *head {
		t.Errorf("the replica is of revision %d now, was of %d", now.Revision, head.Revision)
	}
	clean(t, r.check(t))
}

// A replica in a bucket.
func TestReplicateToBucket(t *testing.T) {
	s := newShelf(t)
	w := newWorld(t)
	for i := range 5 {
		w.write(t, fmt.Sprintf("d%d/.cvmfscatalog", i), "")
		w.write(t, fmt.Sprintf("d%d/f", i), strings.Repeat("x", i))
	}
	w.publish(t, nil)
	r := w.replica(t, w.repo())
	r.storage, r.options.Storage = s.location(), s.location()
	r.copy(t)
	clean(t, r.check(t))
	if keys := s.put(); indexOf(keys, cvmfs.ManifestFile) <= indexOf(keys, r.head(t).RootHash.ObjectPath(cvmfs.SuffixCatalog)) {
		t.Errorf("put %q, want the manifest after the root catalogue", keys)
	}
}

func indexOf(list []string, want string) int {
	for i, s := range list {
		if s == want {
			return i
		}
	}
	return -1
}
