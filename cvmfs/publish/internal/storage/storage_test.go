package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/atomicfile"
)

const name = "tree.example.org"

// service starts an S3 service with an empty bucket and returns a location in it.
func service(t *testing.T, around func(http.Handler) http.Handler) string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("shelf"); err != nil {
		t.Fatal(err)
	}
	handler := gofakes3.New(backend).Server()
	if around != nil {
		handler = around(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return "s3://shelf/some/prefix?endpoint=" + server.URL + "&region=us-east-1&lookup=path"
}

func open(t *testing.T, location string) Store {
	t.Helper()
	s, err := Open(location, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, s Store, name string) string {
	t.Helper()
	r, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func stage(t *testing.T, s Store) Stage {
	t.Helper()
	g, err := s.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func add(t *testing.T, g Stage, name, content string) {
	t.Helper()
	f, err := g.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(t.Context(), name, f.Name()); err != nil {
		t.Fatal(err)
	}
}

// TestStore holds every kind of storage to the same contract.
func TestStore(t *testing.T) {
	for kind, location := range map[string]string{"directory": t.TempDir(), "bucket": service(t, nil)} {
		t.Run(kind, func(t *testing.T) { suite(t, location) })
	}
}

func suite(t *testing.T, location string) {
	ctx := t.Context()
	s := open(t, location)
	for _, missing := range []string{".cvmfspublished", "data/ab/cdef"} {
		if _, err := s.Open(ctx, missing); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q) = %v, want ErrNotExist", missing, err)
		}
		if _, err := s.Stat(ctx, missing); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%q) = %v, want ErrNotExist", missing, err)
		}
	}
	lock, err := s.Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Held(); err != nil {
		t.Error(err)
	}
	if _, err := open(t, location).Lock(ctx); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("second Lock = %v, want ErrLocked", err)
	}

	g := stage(t, s)
	want := []string{}
	for i := range 40 {
		object := fmt.Sprintf("data/%02x/%038x", i, i)
		add(t, g, object, "content of "+object)
		want = append(want, object)
	}
	advanced := make(chan error)
	go func() { advanced <- g.Advance(ctx) }()
	add(t, g, "data/fe/meanwhile", "")
	if err := errors.Join(<-advanced, g.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
	add(t, g, "data/ff/later", "")
	if err := g.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	want = append(want, "data/fe/meanwhile", "data/ff/later")
	g.Discard()
	if _, err := os.Stat(g.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the staging area is still there: %v", err)
	}
	var got []string
	err = s.Objects(ctx, func(i Info) error {
		got = append(got, i.Name)
		if age := time.Since(i.Modified); age < -time.Minute || age > time.Hour {
			t.Errorf("%s was modified %v ago", i.Name, age)
		}
		return nil
	})
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Objects = %q, %v, want %q", got, err, want)
	}
	enough := errors.New("enough")
	if err := s.Objects(ctx, func(Info) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Objects with a visit that fails = %v", err)
	}
	if i, err := s.Stat(ctx, want[3]); err != nil || i.Size != int64(len("content of "+want[3])) {
		t.Errorf("Stat = %+v, %v", i, err)
	}
	if got := read(t, s, want[3]); got != "content of "+want[3] {
		t.Errorf("object = %q", got)
	}

	for _, content := range []string{"first", "second"} {
		if err := s.Replace(ctx, ".cvmfspublished", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, ".cvmfspublished"); got != content {
			t.Errorf("root file = %q, want %q", got, content)
		}
	}
	removed := 0
	if err := s.Remove(ctx, []string{want[0], "data/00/nothing", want[1]}, func(n int) { removed = n }); err != nil || removed != 3 {
		t.Errorf("Remove = %v, %d done", err, removed)
	}
	if _, err := s.Stat(ctx, want[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of what was removed = %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := open(t, location).Lock(ctx)
	if err != nil {
		t.Fatalf("Lock after Unlock: %v", err)
	}
	if err := again.Unlock(); err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Objects(ended, func(Info) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Objects after the end = %v", err)
	}
}

// Two publishers that both believe they may write: the second manifest loses.
func TestReplaceOfWhatChanged(t *testing.T) {
	location := service(t, nil)
	a, b := open(t, location), open(t, location)
	ctx := t.Context()
	if _, err := a.Open(ctx, ".cvmfspublished"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := b.Replace(ctx, ".cvmfspublished", []byte("b")); err != nil {
		t.Fatal(err)
	}
	if err := a.Replace(ctx, ".cvmfspublished", []byte("a")); !errors.Is(err, ErrChanged) {
		t.Errorf("Replace of what was not there = %v, want ErrChanged", err)
	}
	read(t, a, ".cvmfspublished")
	if err := b.Replace(ctx, ".cvmfspublished", []byte("bb")); err != nil {
		t.Fatal(err)
	}
	if err := a.Replace(ctx, ".cvmfspublished", []byte("aa")); !errors.Is(err, ErrChanged) {
		t.Errorf("Replace of what has changed = %v, want ErrChanged", err)
	}
	if got := read(t, a, ".cvmfspublished"); got != "bb" {
		t.Errorf("manifest = %q, want that of the first", got)
	}
	// The same content got there: it was this one, and its answer was lost.
	if err := b.Replace(ctx, ".cvmfspublished", []byte("cc")); err != nil {
		t.Fatal(err)
	}
	if err := a.Replace(ctx, ".cvmfspublished", []byte("cc")); err != nil {
		t.Errorf("Replace by what is there = %v", err)
	}
}

// A lock whose holder was killed ends; one whose holder lives does not, and a
// holder that lost it knows.
func TestLease(t *testing.T) {
	location := service(t, nil)
	ctx := t.Context()
	var clock atomic.Int64
	start := time.Now()
	at := func(s Store) *Bucket {
		b := s.(*Bucket)
		b.now = func() time.Time { return start.Add(time.Duration(clock.Load())) }
		return b
	}
	dead, err := at(open(t, location)).Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l := dead.(*bucketLock)
	l.end() // nobody renews it any more
	<-l.done
	clock.Store(int64(lease - time.Second))
	if _, err := at(open(t, location)).Lock(ctx); !errors.Is(err, atomicfile.ErrLocked) || !strings.Contains(err.Error(), "process") {
		t.Errorf("Lock before the lease ends = %v, want ErrLocked and by whom", err)
	}
	clock.Store(int64(lease + time.Second))
	if err := dead.Held(); !errors.Is(err, ErrChanged) {
		t.Errorf("Held after the lease = %v, want ErrChanged", err)
	}
	heir := at(open(t, location))
	heir.lease = 200 * time.Millisecond // renewed every 40
	alive, err := heir.Lock(ctx)
	if err != nil {
		t.Fatalf("Lock after the lease: %v", err)
	}
	if err := dead.Unlock(); err != nil { // must leave the heir's alone
		t.Error(err)
	}
	clock.Store(int64(lease + time.Second + 190*time.Millisecond))
	deadline := time.Now().Add(5 * time.Second)
	for clock.Store(clock.Load() + int64(time.Millisecond)); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		b := alive.(*bucketLock)
		b.mu.Lock()
		renewed := b.expires.After(start.Add(lease + time.Second + heir.lease))
		b.mu.Unlock()
		if renewed {
			break
		}
	}
	if err := alive.Held(); err != nil {
		t.Errorf("Held while it is renewed = %v", err)
	}
	if _, err := at(open(t, location)).Lock(ctx); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("Lock of what is renewed = %v, want ErrLocked", err)
	}
	if err := alive.Unlock(); err != nil {
		t.Error(err)
	}
}

// A service that fails now and then is asked again.
func TestRetry(t *testing.T) {
	var requests atomic.Int64
	location := service(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1)%3 == 0 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	s := open(t, location)
	g := stage(t, s)
	defer g.Discard()
	for i := range 6 {
		add(t, g, fmt.Sprintf("data/00/%d", i), strings.Repeat("x", 100*i))
	}
	if err := g.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if got := read(t, s, fmt.Sprintf("data/00/%d", i)); len(got) != 100*i {
			t.Errorf("object %d has %d bytes", i, len(got))
		}
	}
}

// What readers are told of a file is what package serve tells them.
func TestHeadersAndKeys(t *testing.T) {
	var keys []string
	location := service(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				keys = append(keys, r.URL.Path+" "+r.Header.Get("Cache-Control")+" "+r.Header.Get("Content-Type"))
			}
			h.ServeHTTP(w, r)
		})
	})
	s := open(t, location)
	g := stage(t, s)
	defer g.Discard()
	add(t, g, "data/ab/cdC", "x")
	if err := g.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Replace(t.Context(), ".cvmfspublished", []byte("x")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/shelf/some/prefix/" + name + "/data/ab/cdC max-age=259200, immutable application/octet-stream",
		"/shelf/some/prefix/" + name + "/.cvmfspublished max-age=61 application/x-cvmfs",
	}
	if !slices.Equal(keys, want) {
		t.Errorf("put %q, want %q", keys, want)
	}
}

func TestLocations(t *testing.T) {
	for _, bad := range []string{
		"s3://", "s3:///prefix", "s3://b?endpoint=ftp://x", "s3://b?endpoint=http://u:p@x", "s3://b?endpoint=http://x/path", "s3://b?lookup=x",
		"s3://b?endpoint=a&endpoint=b", "s3://b?what=1", "s3://b#f", "http://host/dir", "s3://b?%zz",
	} {
		if s, err := Open(bad, name); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Open(%q) = %v, %v, want ErrUnsupported", bad, s, err)
		}
	}
	for _, secret := range []string{"s3://key:geheim@b/p", "s3://key:geheim@b:x y/p"} {
		if s, err := Open(secret, name); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("Open(%q) = %v, %v, want an error without the secret", secret, s, err)
		}
	}
	if _, err := Open(t.TempDir(), "a/b"); err == nil {
		t.Error("Open took a name with a slash")
	}
	for location, want := range map[string][2]string{
		"s3://b/p/sw.example.org?endpoint=http://h:1": {"s3://b/p?endpoint=http://h:1", "sw.example.org"},
		"s3://b/sw.example.org/":                      {"s3://b", "sw.example.org"},
		"/srv/cvmfs/sw.example.org":                   {"/srv/cvmfs", "sw.example.org"},
	} {
		storage, repository, err := Split(location)
		if err != nil || [2]string{storage, repository} != want {
			t.Errorf("Split(%q) = %q, %q, %v, want %q", location, storage, repository, err, want)
		}
	}
	for _, bad := range []string{"s3://b", "s3://", "/"} {
		if storage, repository, err := Split(bad); err == nil {
			t.Errorf("Split(%q) = %q, %q", bad, storage, repository)
		}
	}
}

func TestCredentialsFile(t *testing.T) {
	for _, key := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(key, "")
	}
	t.Setenv("HOME", t.TempDir())
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id=a\naws_secret_access_key=b\n[other]\naws_access_key_id=c\naws_secret_access_key=d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := func(location string) (string, error) {
		b, err := parseBucket(location)
		if err != nil {
			return "", err
		}
		c, err := b.credentials()
		if err != nil {
			return "", err
		}
		v, err := c.GetWithContext(nil)
		return v.AccessKeyID, err
	}
	for location, want := range map[string]string{
		"s3://b":                     "",
		"s3://b?credentials=" + file: "a",
		"s3://b?profile=other&credentials=" + file: "c",
	} {
		if got, err := key(location); got != want || err != nil {
			t.Errorf("key of %q = %q, %v, want %q", location, got, err, want)
		}
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := key("s3://b?credentials=" + file); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("credentials others may read: %v, want ErrPermission", err)
	}
	if _, err := key("s3://b?credentials=/nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("credentials that are missing: %v", err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	if _, err := key("s3://b"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("credentials others may read: %v, want ErrPermission", err)
	}
}

// Whatever the umask of a publisher, a web server can read the objects; and those
// that Advance was given have their names before the Commit.
func TestObjectsForAll(t *testing.T) {
	for _, umask := range []int{0o022, 0o077} {
		defer unix.Umask(unix.Umask(umask))
		dir := t.TempDir()
		s := open(t, dir)
		g := stage(t, s)
		add(t, g, "data/ab/early", "content")
		if err := g.Advance(t.Context()); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(filepath.Join(dir, name, "data/ab/early")); err != nil || fi.Mode().Perm() != 0o644 {
			t.Errorf("umask %03o: after Advance: %v, %v", umask, fi, err)
		}
		g.Discard()
		if got := read(t, s, "data/ab/early"); got != "content" {
			t.Errorf("umask %03o: object = %q", umask, got)
		}
	}
}
