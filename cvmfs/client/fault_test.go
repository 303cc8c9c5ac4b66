package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/internal/tier"
)

// rogue is a server that can be told to misbehave.
type rogue struct {
	*httptest.Server
	url   string
	files atomic.Pointer[http.Handler]

	mu       sync.Mutex // guards the following
	rule     func(path string, n int) fault
	requests map[string]int // by path
	fresh    map[string]int // those that asked not to be answered from a cache
}

// fault answers instead of the files; nil lets them answer.
type fault func(w http.ResponseWriter, r *http.Request, files http.Handler)

func newRogue(t testing.TB, repo string) *rogue {
	t.Helper()
	s := &rogue{requests: map[string]int{}, fresh: map[string]int{}}
	s.serve(repo)
	s.Server = httptest.NewServer(http.StripPrefix("/cvmfs/"+small, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		n := s.requests[r.URL.Path]
		s.requests[r.URL.Path]++
		if r.Header.Get("Cache-Control") == "no-cache" {
			s.fresh[r.URL.Path]++
		}
		var f fault
		if s.rule != nil {
			f = s.rule(r.URL.Path, n)
		}
		s.mu.Unlock()
		files := *s.files.Load()
		if f == nil {
			files.ServeHTTP(w, r)
			return
		}
		f(w, r, files)
	})))
	t.Cleanup(s.Close)
	s.url = s.URL + "/cvmfs/" + small
	return s
}

func (s *rogue) serve(repo string) {
	h := http.FileServer(http.Dir(repo))
	s.files.Store(&h)
}

// set tells the server how to behave; path "" of a rule means all objects.
func (s *rogue) set(rule func(path string, n int) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rule = rule
	clear(s.requests)
	clear(s.fresh)
}

func (s *rogue) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

func (s *rogue) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.requests {
		n += c
	}
	return n
}

// body is what the files would answer.
func body(r *http.Request, files http.Handler) []byte {
	rec := httptest.NewRecorder()
	files.ServeHTTP(rec, r)
	return rec.Body.Bytes()
}

var (
	hangs fault = func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Second):
		}
	}
	crawls fault = func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := body(r, files)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		for i := range data {
			if _, err := w.Write(data[i : i+1]); err != nil || r.Context().Err() != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}
	cuts fault = func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := body(r, files)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		panic(http.ErrAbortHandler)
	}
	shortens fault = func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := body(r, files)
		_, _ = w.Write(data[:len(data)-1])
	}
	lengthens fault = func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		_, _ = w.Write(append(body(r, files), 'x'))
	}
	garbles fault = func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := body(r, files)
		data[len(data)/2] ^= 1
		_, _ = w.Write(data)
	}
	empties fault = func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Length", "0")
	}
	captures fault = func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>please log in</html>")
	}
	zips fault = func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(append([]byte{0x1f, 0x8b}, body(r, files)...))
	}
	redirects fault = func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	}
)

func status(code int) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.Error(w, "no", code) }
}

func isObject(path string) bool { return strings.HasPrefix(path, "/data/") }

// Each fault, of the objects, of the manifest, and of the whitelist: another
// server saves the day, and without one there is an error in bounded time and
// nothing wrong in the cache.
func TestFaultyServer(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	want := expected(t, 3)
	faults := map[string]fault{
		"hangs": hangs, "crawls": crawls, "cuts": cuts, "shortens": shortens, "lengthens": lengthens, "garbles": garbles,
		"empties": empties, "captures": captures, "zips": zips, "redirects": redirects, "404": status(404), "500": status(500),
		"503": status(503), "403": status(403), "429": status(429),
	}
	for name, f := range faults {
		for _, target := range []string{"objects", "manifest", "whitelist"} {
			t.Run(name+"/"+target, func(t *testing.T) {
				t.Parallel()
				hit := func(path string, _ int) fault {
					switch {
					case target == "objects" && isObject(path), target == "manifest" && path == "/.cvmfspublished", target == "whitelist" && path == "/.cvmfswhitelist":
						return f
					}
					return nil
				}
				bad, good := newRogue(t, repo), newRogue(t, repo)
				bad.set(hit)
				opt := options(t, bad.url)
				opt.Timeout = 300 * time.Millisecond
				start := time.Now()
				if r, err := client.Open(t.Context(), opt); err == nil {
					_ = r.Close()
					t.Fatal("Open succeeded with nothing but a faulty server")
				} else if !errors.Is(err, cvmfs.ErrSignature) && !client.IsTransfer(err) {
					t.Errorf("Open: error %v, want one that blames the server", err)
				} else if !strings.Contains(err.Error(), bad.url) {
					t.Errorf("Open: error %v does not name the server", err)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("giving up took %v", took)
				}
				opt.Servers = append(opt.Servers, good.url)
				r := open(t, opt)
				if got, err := describePath(t.Context(), r, "/big/chunked"); err != nil || got.SHA256 != want["/big/chunked"].SHA256 {
					t.Errorf("with a good server: %s, %v", got.SHA256, err)
				}
			})
		}
	}
}

func describePath(ctx context.Context, r *client.Repository, path string) (line, error) {
	e, err := r.Lookup(ctx, path)
	if err != nil {
		return line{}, err
	}
	return describe(ctx, r, path, e)
}

func TestTransientFaults(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	want := expected(t, 3)
	for name, f := range map[string]fault{"cuts": cuts, "garbles": garbles, "shortens": shortens, "captures": captures} {
		t.Run(name, func(t *testing.T) {
			s := newRogue(t, repo)
			s.set(func(_ string, n int) fault {
				if n == 0 {
					return f
				}
				return nil
			})
			r := open(t, options(t, s.url))
			compare(t, tree(t, r, ""), want)
			if name == "garbles" {
				s.mu.Lock()
				defer s.mu.Unlock()
				if len(s.fresh) == 0 {
					t.Error("wrong bytes were asked for again without avoiding caches")
				}
			}
		})
	}
}

func TestDeadServer(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	opt := options(t, dead)
	if _, err := client.Open(t.Context(), opt); !client.IsTransfer(err) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Open: error %v", err)
	}
	opt.Servers = []string{dead, "http://nonesuch.invalid/x", serve(t, repo)}
	open(t, opt)
	// A dead proxy, then none.
	opt = options(t, serve(t, repo))
	opt.Proxies = dead + ";DIRECT"
	r := open(t, opt)
	if _, active := r.Proxies(); active != "DIRECT" {
		t.Errorf("active proxy %q, want DIRECT", active)
	}
}

func TestProxy(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	origin := serve(t, repo)
	var seen atomic.Int32
	var refuse atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if refuse.Load() {
			w.Header().Set("X-Squid-Error", "ERR_CANNOT_FORWARD 0")
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		resp, err := http.Get(r.URL.String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	t.Cleanup(proxy.Close)
	opt := options(t, origin)
	opt.Proxies = strings.TrimPrefix(proxy.URL, "http://")
	r := open(t, opt)
	compare(t, tree(t, r, ""), expected(t, 3))
	if seen.Load() < 180 {
		t.Errorf("%d requests through the proxy, want all", seen.Load())
	}
	// A proxy's own error sends the client to the next one, not to another server.
	refuse.Store(true)
	opt = options(t, origin)
	opt.Proxies = proxy.URL + ";DIRECT"
	r = open(t, opt)
	if _, active := r.Proxies(); active != "DIRECT" {
		t.Errorf("active proxy %q, want DIRECT", active)
	}
}

// An object missing on one server only: the next one has it, and the first stays
// the preferred one.
func TestReplicaLag(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	lagging, full := newRogue(t, repo), newRogue(t, repo)
	r := open(t, options(t, lagging.url, full.url))
	lagging.set(func(path string, _ int) fault {
		if isObject(path) {
			return status(404)
		}
		return nil
	})
	if _, err := describePath(t.Context(), r, "/README"); err != nil {
		t.Error(err)
	}
	if _, active := r.Servers(); active != 0 {
		t.Errorf("active server %d, want 0", active)
	}
	if lagging.total() != 1 || full.total() == 0 {
		t.Errorf("%d requests to the lagging server, %d to the other", lagging.total(), full.total())
	}
}

func TestTrust(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	server := newRogue(t, repo)
	for name, test := range map[string]struct {
		change func(*client.Options)
		want   error
	}{
		"expired": {func(o *client.Options) {
			o.Now = func() time.Time { return time.Date(2047, 1, 1, 0, 0, 0, 0, time.UTC) }
		}, cvmfs.ErrExpired},
		"wrong name": {func(o *client.Options) { o.Name = "other.peer.example" }, cvmfs.ErrWrongName},
		"no keys":    {func(o *client.Options) { o.MasterKeys = nil }, cvmfs.ErrUntrusted},
	} {
		opt := options(t, server.url)
		test.change(&opt)
		if _, err := client.Open(t.Context(), opt); !errors.Is(err, test.want) {
			t.Errorf("%s: Open: error %v, want %v", name, err, test.want)
		}
		if objects := cached(t, opt.CacheDir); len(objects) > 0 {
			t.Errorf("%s: the cache has %v", name, objects)
		}
	}
}

// cached lists the objects in a cache.
func cached(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// forge changes the text of a manifest and gives it a hash line that fits. With
// an empty signature it keeps the old one, which does not.
func forge(t testing.TB, manifest []byte, change func(text string) string) []byte {
	t.Helper()
	text, rest, ok := bytes.Cut(manifest, []byte("--\n"))
	if !ok {
		t.Fatal("no manifest")
	}
	_, signature, _ := bytes.Cut(rest, []byte("\n"))
	changed := change(string(text))
	return fmt.Appendf(nil, "%s--\n%s\n%s", changed, cvmfs.SHAKE128.Sum([]byte(changed)), signature)
}

// T31: a forged manifest with the same root catalogue changes nothing.
func TestForgedManifest(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	genuine, err := os.ReadFile(filepath.Join(repo, ".cvmfspublished"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"later revision": func(s string) string { return strings.Replace(s, "\nS3\n", "\nS99\n", 1) },
		"later time":     func(s string) string { return strings.Replace(s, "\nT", "\nT9", 1) },
		"another certificate": func(s string) string {
			return strings.Replace(s, "\nX", "\nX0000000000000000000000000000000000000000-shake128\nM", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			forged := forge(t, genuine, change)
			if bytes.Contains(forged, []byte("\nS3\n")) && name == "later revision" {
				t.Fatal("nothing was forged")
			}
			bad, good := newRogue(t, repo), newRogue(t, repo)
			opt := options(t, bad.url)
			r := open(t, opt)
			state := func() string {
				var all []string
				for _, f := range append(cached(t, opt.CacheDir), filepath.Join(opt.CacheDir, "cvmfschecksum."+small), filepath.Join(opt.CacheDir, "manifest."+small)) {
					data, err := os.ReadFile(f)
					if err != nil {
						t.Error(err)
					}
					all = append(all, f, cvmfs.SHA1.Sum(data).String())
				}
				return strings.Join(all, "\n")
			}
			before := state()
			bad.set(func(path string, _ int) fault {
				if path != "/.cvmfspublished" {
					return nil
				}
				return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write(forged) }
			})
			if changed, err := r.Refresh(t.Context()); changed || err == nil {
				t.Errorf("Refresh = %v, %v, want an error", changed, err)
			}
			if !r.Offline() || r.Revision() != 3 {
				t.Errorf("offline %v at revision %d, want the old revision", r.Offline(), r.Revision())
			}
			if after := state(); after != before {
				t.Errorf("the cache changed:\n%s\nwas\n%s", after, before)
			}
			opt.Servers = []string{bad.url, good.url}
			if r := open(t, opt); r.Offline() || r.Revision() != 3 {
				t.Errorf("offline %v at revision %d with a good server", r.Offline(), r.Revision())
			}
			if good.count("/.cvmfspublished") == 0 {
				t.Error("the other server was not asked")
			}
		})
	}
}

func TestRollback(t *testing.T) {
	old, newer := unpack(t, "repo.tar.gz"), unpack(t, "repo-snapshots.tar.gz")
	server := newRogue(t, newer)
	opt := options(t, server.url)
	if r := open(t, opt); r.Revision() != 4 {
		t.Fatalf("revision %d, want 4", r.Revision())
	}
	server.serve(old)
	r := open(t, opt)
	if r.Revision() != 4 || !r.Offline() {
		t.Errorf("revision %d, offline %v after a roll-back, want the newer one", r.Revision(), r.Offline())
	}
	if _, err := r.Refresh(t.Context()); !errors.Is(err, client.ErrOutdated) {
		t.Errorf("Refresh: error %v, want %v", err, client.ErrOutdated)
	}
}

func TestRefresh(t *testing.T) {
	old, newer := unpack(t, "repo.tar.gz"), unpack(t, "repo-snapshots.tar.gz")
	server := newRogue(t, old)
	r := open(t, options(t, server.url))
	f, err := r.Open(t.Context(), "/big/chunked")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if changed, err := r.Refresh(t.Context()); changed || err != nil {
		t.Errorf("Refresh = %v, %v with nothing new", changed, err)
	}
	if _, err := r.Lookup(t.Context(), "/.cvmfs"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lookup(/.cvmfs): %v", err)
	}
	server.serve(newer)
	if changed, err := r.Refresh(t.Context()); !changed || err != nil {
		t.Fatalf("Refresh = %v, %v with a new revision", changed, err)
	}
	if r.Revision() != 4 {
		t.Errorf("revision %d, want 4", r.Revision())
	}
	if _, err := r.Lookup(t.Context(), "/.cvmfs"); err != nil {
		t.Errorf("Lookup(/.cvmfs) of the new revision: %v", err)
	}
	if n, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, 1<<40)); err != nil || n != f.Size() {
		t.Errorf("reading a file opened before: %d bytes, %v", n, err)
	}
}

func TestOfflineStart(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	server := newRogue(t, repo)
	opt := options(t, server.url)
	want := expected(t, 3)
	for _, pin := range []client.Pin{{}, {Tag: "rev3"}, {RootHash: mustHash(t, smallRoots[3])}} {
		opt.Pin = pin
		compare(t, tree(t, open(t, opt), ""), want)
	}
	server.set(func(string, int) fault { return status(503) })
	for _, pin := range []client.Pin{{}, {Tag: "rev3"}, {RootHash: mustHash(t, smallRoots[3])}} {
		opt.Pin = pin
		r := open(t, opt)
		if r.Revision() != 3 || r.Offline() != pin.RootHash.IsZero() {
			t.Errorf("%+v: revision %d, offline %v", pin, r.Revision(), r.Offline())
		}
		compare(t, tree(t, r, ""), want)
	}
	// A root hash asks for nothing at all.
	server.set(nil)
	opt.Pin = client.Pin{RootHash: mustHash(t, smallRoots[3])}
	open(t, opt)
	if n := server.total(); n != 0 {
		t.Errorf("%d requests for a cached root hash, want none", n)
	}
	// The same manifest as before needs no new whitelist.
	opt.Pin = client.Pin{}
	open(t, opt)
	if server.count("/.cvmfswhitelist") != 0 || server.count("/.cvmfspublished") != 1 {
		t.Errorf("%d manifests, %d whitelists fetched", server.count("/.cvmfspublished"), server.count("/.cvmfswhitelist"))
	}
}

func mustHash(t testing.TB, text string) cvmfs.Hash {
	t.Helper()
	h, err := cvmfs.ParseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
