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
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/tier"
)

// Each fault, of the objects, of the manifest, and of the whitelist: another
// server saves the day, and without one there is an error in bounded time and
// nothing wrong in the cache.
func TestFaultyServer(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	want := cvmfstest.Expect(t, 3)
	for name, f := range cvmfstest.Faults {
		for _, target := range []string{"objects", "manifest", "whitelist"} {
			t.Run(name+"/"+target, func(t *testing.T) {
				t.Parallel()
				hit := func(path string, _ int) cvmfstest.Fault {
					switch {
					case target == "objects" && cvmfstest.IsObject(path), target == "manifest" && path == "/.cvmfspublished", target == "whitelist" && path == "/.cvmfswhitelist":
						return f
					}
					return nil
				}
				bad, good := cvmfstest.NewRogue(t, repo), cvmfstest.NewRogue(t, repo)
				bad.Set(hit)
				opt := options(t, bad.Base)
				opt.Timeout = 300 * time.Millisecond
				start := time.Now()
				if r, err := client.Open(t.Context(), opt); err == nil {
					_ = r.Close()
					t.Fatal("Open succeeded with nothing but a faulty server")
				} else if !errors.Is(err, cvmfs.ErrSignature) && !client.IsTransfer(err) {
					t.Errorf("Open: error %v, want one that blames the server", err)
				} else if !strings.Contains(err.Error(), bad.Base) {
					t.Errorf("Open: error %v does not name the server", err)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("giving up took %v", took)
				}
				opt.Servers = append(opt.Servers, good.Base)
				r := open(t, opt)
				if got, err := describePath(t.Context(), r, "/big/chunked"); err != nil || got.SHA256 != want["/big/chunked"].SHA256 {
					t.Errorf("with a good server: %s, %v", got.SHA256, err)
				}
			})
		}
	}
}

func describePath(ctx context.Context, r *client.Repository, path string) (cvmfstest.Listed, error) {
	e, err := r.Lookup(ctx, path)
	if err != nil {
		return cvmfstest.Listed{}, err
	}
	return describe(ctx, r, path, e)
}

func TestTransientFaults(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	want := cvmfstest.Expect(t, 3)
	for _, name := range []string{"cuts", "garbles", "shortens", "captures"} {
		f := cvmfstest.Faults[name]
		t.Run(name, func(t *testing.T) {
			s := cvmfstest.NewRogue(t, repo)
			s.Set(func(_ string, n int) cvmfstest.Fault {
				if n == 0 {
					return f
				}
				return nil
			})
			r := open(t, options(t, s.Base))
			compare(t, tree(t, r, ""), want)
			if name == "garbles" {
				fresh := 0
				s.Requests(func(_ string, _, n int) { fresh += n })
				if fresh == 0 {
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
	if _, active, _ := r.Link().Proxies(); active != "DIRECT" {
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
	compare(t, tree(t, r, ""), cvmfstest.Expect(t, 3))
	if seen.Load() < 180 {
		t.Errorf("%d requests through the proxy, want all", seen.Load())
	}
	// A proxy's own error sends the client to the next one, not to another server.
	refuse.Store(true)
	opt = options(t, origin)
	opt.Proxies = proxy.URL + ";DIRECT"
	r = open(t, opt)
	if _, active, _ := r.Link().Proxies(); active != "DIRECT" {
		t.Errorf("active proxy %q, want DIRECT", active)
	}
}

// An object missing on one server only: the next one has it, and the first stays
// the preferred one.
func TestReplicaLag(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	lagging, full := cvmfstest.NewRogue(t, repo), cvmfstest.NewRogue(t, repo)
	r := open(t, options(t, lagging.Base, full.Base))
	lagging.Set(func(path string, _ int) cvmfstest.Fault {
		if cvmfstest.IsObject(path) {
			return cvmfstest.Status(404)
		}
		return nil
	})
	if _, err := describePath(t.Context(), r, "/README"); err != nil {
		t.Error(err)
	}
	if _, active := r.Link().Servers(); active != 0 {
		t.Errorf("active server %d, want 0", active)
	}
	if lagging.Total() != 1 || full.Total() == 0 {
		t.Errorf("%d requests to the lagging server, %d to the other", lagging.Total(), full.Total())
	}
}

func TestTrust(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	server := cvmfstest.NewRogue(t, repo)
	for name, test := range map[string]struct {
		change func(*client.Options)
		want   error
	}{
		"expired": {func(o *client.Options) {
			o.Now = func() time.Time { return time.Date(2047, 1, 1, 0, 0, 0, 0, time.UTC) }
		}, cvmfs.ErrExpired},
		"wrong name": {func(o *client.Options) { o.Name = "other.peer.example" }, cvmfs.ErrWrongName},
		"no keys":    {func(o *client.Options) { o.MasterKeys = nil }, cvmfs.ErrUntrusted},
		"blocked":    {func(o *client.Options) { o.Blocked = []cvmfs.Hash{certificateOf(t)} }, cvmfs.ErrUntrusted},
		"too old":    {func(o *client.Options) { o.MinRevision = 4 }, cvmfs.ErrUntrusted},
	} {
		opt := options(t, server.Base)
		test.change(&opt)
		if _, err := client.Open(t.Context(), opt); !errors.Is(err, test.want) {
			t.Errorf("%s: Open: error %v, want %v", name, err, test.want)
		}
		if objects := cached(t, opt.CacheDir); len(objects) > 0 {
			t.Errorf("%s: the cache has %v", name, objects)
		}
	}
}

// certificateOf is the fingerprint that the whitelist of the repository has.
func certificateOf(t testing.TB) cvmfs.Hash {
	t.Helper()
	w, err := cvmfs.ParseWhitelist(archive(t, "repo.tar.gz")["/"+small+"/.cvmfswhitelist"])
	if err != nil {
		t.Fatal(err)
	}
	return w.Fingerprints[0]
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
			bad, good := cvmfstest.NewRogue(t, repo), cvmfstest.NewRogue(t, repo)
			opt := options(t, bad.Base)
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
			bad.Set(func(path string, _ int) cvmfstest.Fault {
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
			opt.Servers = []string{bad.Base, good.Base}
			if r := open(t, opt); r.Offline() || r.Revision() != 3 {
				t.Errorf("offline %v at revision %d with a good server", r.Offline(), r.Revision())
			}
			if good.Count("/.cvmfspublished") == 0 {
				t.Error("the other server was not asked")
			}
		})
	}
}

func TestRollback(t *testing.T) {
	old, newer := unpack(t, "repo.tar.gz"), unpack(t, "repo-snapshots.tar.gz")
	server := cvmfstest.NewRogue(t, newer)
	opt := options(t, server.Base)
	if r := open(t, opt); r.Revision() != 4 {
		t.Fatalf("revision %d, want 4", r.Revision())
	}
	server.Serve(old)
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
	server := cvmfstest.NewRogue(t, old)
	r := open(t, options(t, server.Base))
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
	server.Serve(newer)
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
	server := cvmfstest.NewRogue(t, repo)
	opt := options(t, server.Base)
	want := cvmfstest.Expect(t, 3)
	for _, pin := range []client.Pin{{}, {Tag: "rev3"}, {RootHash: mustHash(t, smallRoots[3])}} {
		opt.Pin = pin
		compare(t, tree(t, open(t, opt), ""), want)
	}
	server.Set(func(string, int) cvmfstest.Fault { return cvmfstest.Status(503) })
	for _, pin := range []client.Pin{{}, {Tag: "rev3"}, {RootHash: mustHash(t, smallRoots[3])}} {
		opt.Pin = pin
		r := open(t, opt)
		if r.Revision() != 3 || r.Offline() != pin.RootHash.IsZero() {
			t.Errorf("%+v: revision %d, offline %v", pin, r.Revision(), r.Offline())
		}
		compare(t, tree(t, r, ""), want)
	}
	// A root hash asks for nothing at all.
	server.Set(nil)
	opt.Pin = client.Pin{RootHash: mustHash(t, smallRoots[3])}
	open(t, opt)
	if n := server.Total(); n != 0 {
		t.Errorf("%d requests for a cached root hash, want none", n)
	}
	// The same manifest as before needs no new whitelist.
	opt.Pin = client.Pin{}
	open(t, opt)
	if server.Count("/.cvmfswhitelist") != 0 || server.Count("/.cvmfspublished") != 1 {
		t.Errorf("%d manifests, %d whitelists fetched", server.Count("/.cvmfspublished"), server.Count("/.cvmfswhitelist"))
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
