package download_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/download"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
)

// content is a file that differs everywhere.
var content = func() []byte {
	var b bytes.Buffer
	for n := range 50_000 {
		fmt.Fprintf(&b, "line %d\n", n)
	}
	return b.Bytes()
}()

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// server counts requests and lets a test spoil them.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	ranges []string
	asked  atomic.Int32
	spoil  func(n int, w http.ResponseWriter, r *http.Request) bool // true: it has answered
	etag   string
	body   []byte
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{etag: `"one"`, body: content}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(s.asked.Add(1))
		s.mu.Lock()
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		s.mu.Unlock()
		if s.spoil != nil && s.spoil(n, w, r) {
			return
		}
		w.Header().Set("ETag", s.etag)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.body))
	}))
	t.Cleanup(s.Close)
	return s
}

// cut sends the first n bytes of the content and breaks the connection.
func (s *server) cut(w http.ResponseWriter, n int) bool {
	w.Header().Set("ETag", s.etag)
	w.Header().Set("Content-Length", fmt.Sprint(len(s.body)))
	_, _ = w.Write(s.body[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func client() *download.Client {
	return &download.Client{Tries: 3, Backoff: time.Millisecond, Stall: 5 * time.Second}
}

func check(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes (%v), want the %d of the server", path, len(got), err, len(want))
	}
	for _, left := range []string{".part", ".part.json"} {
		if _, err := os.Stat(path + left); err == nil {
			t.Errorf("%s%s is left behind", path, left)
		}
	}
}

func TestFile(t *testing.T) {
	s := serve(t)
	path := filepath.Join(t.TempDir(), "image.iso")
	for _, fetched := range []bool{true, false} {
		got, err := client().File(t.Context(), download.Request{URL: s.URL + "/image.iso", Path: path, SHA256: strings.ToUpper(digest(content))})
		if want := (download.Result{Size: int64(len(content)), SHA256: digest(content), Fetched: fetched}); err != nil || got != want {
			t.Fatalf("File = %+v, %v, want %+v", got, err, want)
		}
	}
	check(t, path, content)
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestDamagedFileIsFetchedAgain(t *testing.T) {
	s := serve(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("not it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client().File(t.Context(), download.Request{URL: s.URL, Path: path, SHA256: digest(content)}); err != nil {
		t.Fatal(err)
	}
	check(t, path, content)
}

func TestResume(t *testing.T) {
	const first = 100_000
	for _, tc := range []struct {
		name   string
		sum    string
		change func(*server) // between the break and the next request
		ranges []string      // what was asked for
	}{
		{name: "the rest only", sum: digest(content), ranges: []string{"", "bytes=100000-"}},
		{name: "without a digest, by the ETag", ranges: []string{"", "bytes=100000-"}},
		{name: "another content", change: func(s *server) { s.etag, s.body = `"two"`, content[:200_000] }, ranges: []string{"", "bytes=100000-"}},
		{name: "a weak ETag and no digest", change: func(s *server) { s.etag = `W/"one"` }, ranges: []string{"", "bytes=100000-"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			s.spoil = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 1 {
					return s.cut(w, first)
				}
				if n == 2 && tc.change != nil {
					tc.change(s)
				}
				return false
			}
			path := filepath.Join(t.TempDir(), "f")
			got, err := client().File(t.Context(), download.Request{URL: s.URL, Path: path, SHA256: tc.sum})
			if err != nil {
				t.Fatal(err)
			}
			check(t, path, s.body)
			if got.SHA256 != digest(s.body) {
				t.Errorf("digest = %s, want that of the content now", got.SHA256)
			}
			if fmt.Sprint(s.ranges) != fmt.Sprint(tc.ranges) {
				t.Errorf("ranges asked for = %q, want %q", s.ranges, tc.ranges)
			}
		})
	}
}

// TestResumeByAnotherCommand leaves a part behind, as a killed process does.
func TestResumeByAnotherCommand(t *testing.T) {
	for _, tc := range []struct {
		name, part string
		requests   int32
	}{
		{"a good part", string(content[:1000]), 1},
		{"a foreign part", strings.Repeat("x", 1000), 2}, // found out by the digest, then from the beginning
		{"a part that is too long", string(content) + "x", 2},
		{"all of it", string(content), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path+".part", []byte(tc.part), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := client().File(t.Context(), download.Request{URL: s.URL, Path: path, SHA256: digest(content)}); err != nil {
				t.Fatal(err)
			}
			check(t, path, content)
			if n := s.asked.Load(); n != tc.requests {
				t.Errorf("%d requests, want %d", n, tc.requests)
			}
		})
	}
}

func TestRetries(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(s *server) func(int, http.ResponseWriter, *http.Request) bool
		class fail.Class // 0 is success
		asked int32
	}{
		{"busy, then well", status(http.StatusServiceUnavailable, 2), 0, 3},
		{"busy for ever", status(http.StatusServiceUnavailable, 1000), fail.Refused, 3},
		{"not there", status(http.StatusNotFound, 1000), fail.NotFound, 1},
		{"forbidden", status(http.StatusForbidden, 1000), fail.Refused, 1},
		{"breaks, then well", func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, _ *http.Request) bool { return n < 3 && s.cut(w, 10) }
		}, 0, 3},
		{"breaks for ever at one place", func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(_ int, w http.ResponseWriter, _ *http.Request) bool { return s.cut(w, 10) }
		}, fail.Refused, 3},
		{"a web page", func(*server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				_, _ = w.Write([]byte("<html>log in</html>"))
				return true
			}
		}, fail.Refused, 1},
		{"redirects in a circle", func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(_ int, w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, s.URL+"/again", http.StatusFound)
				return true
			}
		}, fail.Refused, 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			s.spoil = tc.spoil(s)
			path := filepath.Join(t.TempDir(), "f")
			_, err := client().File(t.Context(), download.Request{URL: s.URL + "/f.iso", Path: path, SHA256: digest(content)})
			if tc.class == 0 {
				if err != nil {
					t.Fatal(err)
				}
				check(t, path, content)
			} else {
				if !fail.Is(err, tc.class) {
					t.Errorf("File = %v (class %d), want class %d", err, fail.ClassOf(err), tc.class)
				}
				if _, err := os.Stat(path); err == nil {
					t.Error("there is a file")
				}
			}
			if n := s.asked.Load(); n != tc.asked {
				t.Errorf("%d requests, want %d", n, tc.asked)
			}
		})
	}
}

func status(code, times int) func(*server) func(int, http.ResponseWriter, *http.Request) bool {
	return func(*server) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n <= times {
				w.WriteHeader(code)
			}
			return n <= times
		}
	}
}

func TestWrongContent(t *testing.T) {
	s := serve(t)
	path := filepath.Join(t.TempDir(), "f")
	_, err := client().File(t.Context(), download.Request{URL: s.URL, Path: path, SHA256: digest([]byte("else"))})
	if !fail.Is(err, fail.Unverified) {
		t.Errorf("File = %v, want Unverified", err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 || filepath.Ext(left[0]) != ".lock" {
		t.Errorf("left behind: %v", left)
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1: the same server would send the same", n)
	}
}

func TestTooLarge(t *testing.T) {
	s := serve(t)
	for name, spoil := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"announced": nil,
		"not announced": func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.(http.Flusher).Flush() // chunked
			_, _ = w.Write(content)
			return true
		},
	} {
		s.spoil = spoil
		_, err := client().File(t.Context(), download.Request{URL: s.URL, Path: filepath.Join(t.TempDir(), "f"), Max: 1000})
		if !fail.Is(err, fail.Refused) || !strings.Contains(err.Error(), "at most 1000") {
			t.Errorf("%s: File = %v, want a refusal", name, err)
		}
	}
}

func TestStall(t *testing.T) {
	s := serve(t)
	free := make(chan struct{})
	s.spoil = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "1000")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-free:
		}
		return true
	}
	defer close(free)
	c := client()
	c.Stall = 50 * time.Millisecond
	_, err := c.File(t.Context(), download.Request{URL: s.URL, Path: filepath.Join(t.TempDir(), "f")})
	if !fail.Is(err, fail.Refused) || !strings.Contains(err.Error(), "sent nothing for 50ms") {
		t.Errorf("File = %v, want that the server sent nothing", err)
	}
}

func TestCancelKeepsThePart(t *testing.T) {
	s := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.spoil = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("ETag", s.etag)
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:50_000])
		w.(http.Flusher).Flush()
		time.Sleep(50 * time.Millisecond)
		cancel()
		<-r.Context().Done()
		return true
	}
	path := filepath.Join(t.TempDir(), "f")
	_, err := client().File(ctx, download.Request{URL: s.URL, Path: path})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("File = %v, want a cancellation", err)
	}
	s.spoil = nil
	if _, err := client().File(t.Context(), download.Request{URL: s.URL, Path: path}); err != nil {
		t.Fatal(err)
	}
	check(t, path, content)
	if last := s.ranges[len(s.ranges)-1]; last == "" {
		t.Error("the second download did not resume the first")
	}
}

// TestShared runs many downloads of one file at once.
func TestShared(t *testing.T) {
	s := serve(t)
	path := filepath.Join(t.TempDir(), "f")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := client().File(t.Context(), download.Request{URL: s.URL, Path: path, SHA256: digest(content)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	check(t, path, content)
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestLockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	l, err := atomicfile.TryLock(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var events events
	c := client()
	c.Progress = &events
	if _, err := c.File(ctx, download.Request{URL: "http://127.0.0.1:1/", Path: path}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("File = %v, want the deadline", err)
	}
	if len(events.all) != 1 || !strings.Contains(events.all[0].Phase, "waiting") {
		t.Errorf("events = %v, want one that says it waits", events.all)
	}
}

type events struct {
	mu  sync.Mutex
	all []progress.Event
}

func (e *events) Emit(one progress.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, one)
}

func TestProgress(t *testing.T) {
	s := serve(t)
	var events events
	c := client()
	c.Progress = &events
	if _, err := c.File(t.Context(), download.Request{URL: s.URL, Path: filepath.Join(t.TempDir(), "f"), Name: "image"}); err != nil {
		t.Fatal(err)
	}
	last := events.all[len(events.all)-1]
	if want := (progress.Event{ID: "image", Phase: "downloaded", Done: int64(len(content)), Total: int64(len(content)), Unit: progress.Bytes, Finished: true}); last != want {
		t.Errorf("last event = %+v, want %+v", last, want)
	}
}

func TestDiskFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full")
	}
	s := serve(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.Symlink("/dev/full", path+".part"); err != nil {
		t.Fatal(err)
	}
	_, err := client().File(t.Context(), download.Request{URL: s.URL, Path: path})
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EINVAL) { // a device cannot be cut to a size
		t.Fatalf("File = %v, want that the disk is full", err)
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1: another try does not help", n)
	}
}

func TestTLSIsVerified(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	_, err := client().File(t.Context(), download.Request{URL: s.URL, Path: filepath.Join(t.TempDir(), "f")})
	if !fail.Is(err, fail.Unverified) {
		t.Errorf("File = %v, want Unverified", err)
	}
}

func TestNoWayFromHTTPSToHTTP(t *testing.T) {
	plain := serve(t)
	s := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer s.Close()
	c := client()
	c.Transport = s.Client().Transport
	_, err := c.File(t.Context(), download.Request{URL: s.URL, Path: filepath.Join(t.TempDir(), "f")})
	if err == nil || !strings.Contains(err.Error(), "from https") || plain.asked.Load() != 0 {
		t.Errorf("File = %v after %d plain requests, want a refusal and none", err, plain.asked.Load())
	}
}

func TestFileURL(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.WriteFile(src, content, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "dst")
	for _, tc := range []struct {
		url, sum string
		class    fail.Class
	}{
		{"file://" + src, digest([]byte("else")), fail.Unverified},
		{"file://" + src + "x", "", fail.NotFound},
		{"file://there" + src, "", fail.Usage},
		{"file://" + dir, "", fail.Usage},
		{"ftp://there/file", "", fail.Usage},
		{"file://" + src, "no digest", fail.Usage},
	} {
		if _, err := client().File(t.Context(), download.Request{URL: tc.url, Path: path, SHA256: tc.sum}); !fail.Is(err, tc.class) {
			t.Errorf("File(%q) = %v, want class %d", tc.url, err, tc.class)
		}
	}
	if _, err := client().File(t.Context(), download.Request{URL: "file://" + src, Path: path, SHA256: digest(content)}); err != nil {
		t.Fatal(err)
	}
	check(t, path, content)
}

func TestDigest(t *testing.T) {
	sum := digest(content)
	page := "<!DOCTYPE html>" + strings.Repeat("x", 100)
	for _, tc := range []struct {
		name, kept, served string
		want               string
		asked              int32
	}{
		{"fetched", "", sum + "  image.iso\n", sum, 1},
		{"in capitals", "", strings.ToUpper(sum), sum, 1},
		{"kept", sum + "\n", "", sum, 0},
		{"kept, but damaged", sum[:63], sum, sum, 1},
		{"a page with another type", "", page, "", 1},
		{"too short", "", sum[:63], "", 1},
		{"no hex", "", strings.Repeat("z", 64), "", 1},
		{"longer than a digest", "", sum + "00", "", 1},
		{"kept page, served page", page, page, "", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			s.body = []byte(tc.served)
			path := filepath.Join(t.TempDir(), "f.sha256")
			if tc.kept != "" {
				if err := os.WriteFile(path, []byte(tc.kept), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := client().Digest(t.Context(), s.URL, path)
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("Digest = %q, %v, want %q", got, err, tc.want)
			}
			if n := s.asked.Load(); n != tc.asked {
				t.Errorf("%d requests, want %d", n, tc.asked)
			}
		})
	}
}

func TestTextIsBounded(t *testing.T) {
	s := serve(t)
	if _, err := client().Text(t.Context(), s.URL, 100); !fail.Is(err, fail.Refused) {
		t.Errorf("Text = %v, want a refusal", err)
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestBaseName(t *testing.T) {
	for url, want := range map[string]string{
		"http://h/a/b.iso": "b.iso", "http://h/b.iso?x=/1": "b.iso", "http://h/b.iso#f": "b.iso", "http://h/a/": "", "..": "", "/": "",
		`http://h/..\..\b.iso`: "",
	} {
		if got := download.BaseName(url); got != want {
			t.Errorf("BaseName(%q) = %q, want %q", url, got, want)
		}
	}
}

// TestNothingSecretIsTold has every failure name a URL without its password and
// its signature, which for clouds is in the query.
func TestNothingSecretIsTold(t *testing.T) {
	s := serve(t)
	s.body = []byte("x")
	secret := func(address string) string {
		return strings.Replace(address, "://", "://me:hunter2@", 1) + "/f.iso?sig=hunter3"
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler(secret(gone.URL), http.StatusFound))
	t.Cleanup(elsewhere.Close)
	missing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(missing.Close)
	for name, address := range map[string]string{
		"another digest": secret(s.URL), "nobody there": secret(gone.URL), "nobody there after a redirect": elsewhere.URL + "/f.iso", "not found": secret(missing.URL),
		"another scheme": "ftp://me:hunter2@h/f.iso?sig=hunter3", "no URL": "https://me:hunter2@h:port/f.iso?sig=hunter3",
		"a file elsewhere": "file://me:hunter2@h/f.iso",
	} {
		t.Run(name, func(t *testing.T) {
			c := client()
			var told, logged strings.Builder
			c.Progress, c.Log = progress.Lines(&told), slog.New(slog.NewTextHandler(&logged, nil))
			dir := t.TempDir()
			_, err := c.File(t.Context(), download.Request{URL: address, Path: filepath.Join(dir, "f.iso"), SHA256: digest(content)})
			if err == nil {
				t.Fatal("File succeeded")
			}
			_, text := c.Text(t.Context(), address, 0)
			if text == nil {
				t.Fatal("Text succeeded")
			}
			notes, _ := os.ReadFile(filepath.Join(dir, "f.iso.part.json"))
			all := err.Error() + "\n" + text.Error() + "\n" + told.String() + logged.String() + string(notes)
			if strings.Contains(all, "hunter") {
				t.Errorf("a secret is told:\n%s", all)
			}
		})
	}
}
