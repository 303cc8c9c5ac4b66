package publish_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/tier"
)

// shelf is an S3 service in this process, with one bucket.
type shelf struct {
	*httptest.Server
	mu   sync.Mutex // guards the following
	keys []string   // of what was put, in order
	stop int        // after so many puts, locks aside, the service answers no more; 0 is never
	die  func()     // called then
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	backend := s3mem.New()
	must(t, backend.CreateBucket("shelf"))
	s := &shelf{}
	inner := gofakes3.New(backend).Server()
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && !strings.HasSuffix(r.URL.Path, ".mica.lock") {
			s.mu.Lock()
			dead := s.stop > 0 && len(s.keys) >= s.stop
			if !dead {
				s.keys = append(s.keys, strings.TrimPrefix(r.URL.Path, "/shelf/repos/"+name+"/"))
			} else if s.die != nil {
				s.die()
			}
			s.mu.Unlock()
			if dead {
				_, _ = io.Copy(io.Discard, r.Body) // so that the server sees the other side go
				<-r.Context().Done()
				return
			}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *shelf) location() string {
	return "s3://shelf/repos?endpoint=" + s.URL + "&region=us-east-1&lookup=path"
}

func (s *shelf) put() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys)
}

func (s *shelf) after(n int, die func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.stop, s.die = nil, n, die
}

// A repository in a bucket goes through its whole life: made, published twice,
// tagged, read by a client straight from the service, checked, cleared, signed.
func TestBucket(t *testing.T) {
	s := newShelf(t)
	w := emptyWorld(t)
	w.storage = s.location()
	w.create(t)
	w.tricky(t)
	first := w.publish(t, func(o *publish.Options) { o.Tag = "v1"; o.NoGenericTag = true })
	keys := s.put()
	if last := keys[len(keys)-1]; last != cvmfs.ReflogFile {
		t.Errorf("put last is %q, want the reflog under its name", last)
	}
	manifest := slices.Index(keys, cvmfs.ManifestFile)
	if at := slices.IndexFunc(keys[len(keys)-3:], func(k string) bool { return k == cvmfs.ManifestFile }); at < 0 {
		t.Errorf("the manifest was put as number %d of %d, want it after everything it refers to", manifest, len(keys))
	}
	clean(t, w.check(t))
	w.live(t, first, s.URL+"/shelf/repos/"+name)
}

// live takes a repository in a bucket, published once, through the rest of its
// life. server is where clients find it.
func (w *world) live(t *testing.T, first *publish.Result, server string) {
	t.Helper()
	w.write(t, "names/more", "a file that goes again")
	w.publish(t, func(o *publish.Options) { o.NoGenericTag = true })
	must(t, os.Remove(filepath.Join(w.source, "names/more")))
	last := w.publish(t, func(o *publish.Options) { o.NoGenericTag = true })
	if last.Read != 0 || last.Removed != 1 {
		t.Errorf("third publication = %+v, want nothing read and one file removed", last)
	}
	w.write(t, "names/again", "something new")
	w.publish(t, func(o *publish.Options) { o.NoGenericTag = true })
	must(t, publish.EditTags(t.Context(), publish.TagOptions{Storage: w.storage, Name: name, Keys: w.keys, Set: "v2", Now: w.clock}))
	clean(t, w.check(t))
	var changes []string
	info, err := publish.ReadInfo(t.Context(), w.storage, name, nil, w.clock)
	must(t, err)
	must(t, publish.Diff(t.Context(), w.storage, name, first.RootHash, info.Manifest.RootHash, func(c publish.Change) error {
		changes = append(changes, c.Kind+" "+c.Path)
		return nil
	}))
	if want := "added /names/again"; !slices.Contains(changes, want) {
		t.Errorf("Diff = %q, want %q among them", changes, want)
	}

	collected, err := publish.Collect(t.Context(), publish.CollectOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: w.clock})
	if err != nil || collected.Removed < 2 {
		t.Errorf("Collect = %+v, %v, want the file that went and its catalogue removed", collected, err)
	}
	clean(t, w.check(t))
	_, err = publish.Resign(t.Context(), publish.ResignOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: w.clock})
	must(t, err)
	clean(t, w.check(t))

	public, err := cvmfs.ParsePublicKeys(readFile(t, filepath.Join(w.keys, name+".pub")))
	must(t, err)
	r, err := client.Open(t.Context(), client.Options{
		Name: name, Servers: []string{server}, MasterKeys: public, CacheDir: t.TempDir(), Now: w.clock,
	})
	must(t, err)
	defer r.Close()
	for path, want := range map[string]string{"soft/1.0/bin/tool": "tool", "names/again": "something new", "empty": ""} {
		if got, err := fs.ReadFile(r.FS(), path); err != nil || string(got) != want {
			t.Errorf("client reads %q = %q, %v, want %q", path, got, err, want)
		}
	}
}

func readFile(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	return data
}

// Damage in a bucket is found, and publishing again repairs it.
func TestBucketDamage(t *testing.T) {
	s := newShelf(t)
	w := emptyWorld(t)
	w.storage = s.location()
	w.create(t)
	w.write(t, "file", strings.Repeat("x", 5000))
	w.publish(t, nil)
	entries, _, _ := reader{t, mirror(t, w)}.tree(w.head(t).RootHash)
	key := "/shelf/repos/" + name + "/" + entries["/file"].Hash.ObjectPath(0)
	do := func(method, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+key, strings.NewReader(body))
		must(t, err)
		answer, err := http.DefaultClient.Do(r)
		must(t, err)
		answer.Body.Close()
	}
	for _, damage := range []struct{ method, body, want string }{
		{http.MethodDelete, "", "missing"},
		{http.MethodPut, "other bytes", "corrupt"},
	} {
		do(damage.method, damage.body)
		report := w.check(t)
		if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].Text, damage.want) {
			t.Errorf("after %s: problems = %v, want one that says %q", damage.method, report.Problems, damage.want)
		}
		w.publish(t, func(o *publish.Options) { o.Checksum = true })
		clean(t, w.check(t))
	}
}

// While one publishes to a bucket, another is told so; and wherever the service
// or the publisher dies, readers have the revision before.
func TestBucketDies(t *testing.T) {
	s := newShelf(t)
	w := emptyWorld(t)
	w.storage = s.location()
	w.create(t)
	for i := range 20 {
		w.write(t, fmt.Sprintf("d%d/file", i), strings.Repeat("x", i))
	}
	w.publish(t, nil)
	before := w.head(t)
	for round, puts := range []int{1, 2, 10, 20} {
		for i := range 20 { // what got there in the round before is of no use
			w.write(t, fmt.Sprintf("d%d/file", i), strings.Repeat(fmt.Sprint(round), 100+i))
		}
		ctx, cancel := contextWithCancel(t)
		var locked atomic.Pointer[error]
		s.after(puts, func() {
			go func() {
				_, err := publish.Publish(t.Context(), w.options())
				locked.Store(&err)
				cancel()
			}()
			s.die = nil
		})
		_, err := publish.Publish(ctx, w.options())
		if err == nil {
			t.Fatalf("published with a service that died after %d puts", puts)
		}
		s.after(0, nil)
		if second := locked.Load(); second == nil || !errors.Is(*second, atomicfile.ErrLocked) {
			t.Errorf("a second publisher after %d puts: %v, want ErrLocked", puts, second)
		}
		if now := w.head(t); *now != *before {
			t.Errorf("after %d puts the manifest is of revision %d", puts, now.Revision)
		}
		clean(t, w.check(t))
	}
	w.publish(t, nil)
	if now := w.head(t); now.Revision != before.Revision+1 {
		t.Errorf("revision = %d, want %d", now.Revision, before.Revision+1)
	}
	clean(t, w.check(t))
}

// A publisher killed in the middle of its uploads leaves the revision before.
// Its lock holds others off until the lease ends.
func TestBucketKilled(t *testing.T) {
	tier.Full(t)
	s := newShelf(t)
	w := emptyWorld(t)
	w.storage = s.location()
	w.create(t)
	w.write(t, "old", "old")
	w.publish(t, nil)
	before := w.head(t)
	for i := range 50 {
		w.write(t, fmt.Sprintf("new/%d", i), strings.Repeat("z", 100+i))
	}
	self, err := os.Executable()
	must(t, err)
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestKilledChild$")
	child.Env = append(os.Environ(), childVariable+"="+filepath.Dir(w.source), childStorage+"="+w.storage)
	s.after(20, func() { _ = child.Process.Kill() })
	must(t, child.Start())
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("child = %v, want it killed", err)
	}
	s.after(0, nil)
	if now := w.head(t); *now != *before {
		t.Errorf("the manifest is of revision %d", now.Revision)
	}
	clean(t, w.check(t))
	if _, err := publish.Publish(t.Context(), w.options()); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("publishing right after: %v, want ErrLocked", err)
	}
	// The lease is of the real clock, so that the test ends it by hand.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.URL+"/shelf/repos/"+name+"/.mica.lock", nil)
	must(t, err)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	answer.Body.Close()
	w.now = w.now.Add(time.Hour)
	result, err := publish.Publish(t.Context(), w.options())
	must(t, err)
	if result.Objects >= 50 {
		t.Errorf("%d objects were put again, want only those the killed one had not", result.Objects)
	}
	clean(t, w.check(t))
}
