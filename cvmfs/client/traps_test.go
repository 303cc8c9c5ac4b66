package client_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

// TestTraps lists where clients of this format have gone wrong before, by the
// numbers that comments elsewhere give them. Rows without a check name the test
// that has it. Other packages have: T2, T4, T5, T8, T19 and T22 package catalog
// (TestHashPath, TestTransitionPoints, TestTolerated, TestXattrBlob), T9 package
// cvmfs (TestVerifyOriginal), T17 package transfer (TestChain), T23 and T24 package
// mount (TestShowsRevisionExactly, TestPublishedIsMounted, TestLargeDirectory),
// and what publishers do wrong, T7, T28 to T30 and T35 among it, package publish.
func TestTraps(t *testing.T) {
	for _, trap := range []struct {
		name      string
		check     func(t *testing.T)
		elsewhere func(t *testing.T)
	}{
		{"T1 suffixes are part of the name, not of the hash", trapSuffixes, nil},
		{"T3 transition points, T6 chunks without a bulk hash, T14 empty files, T18 devices, T20 hidden entries, T21 variables in links", nil, TestReadsRevisionsExactly},
		{"T10 a manifest with another algorithm than its whitelist", trapAlgorithms, nil},
		{"T11 a whitelist holds to the second", trapExpiry, nil},
		{"T12 an offline start needs neither manifest nor whitelist", nil, TestOfflineStart},
		{"T13 the cache has plain content under names without suffixes", trapCacheNames, nil},
		{"T15 truncated, zipped and empty answers, captive portals", nil, TestFaultyServer},
		{"T16 an object missing on one server", nil, TestReplicaLag},
		{"T25 a clock before the whitelist was issued", trapEarlyClock, nil},
		{"T26 two repositories in one cache", trapSharedCache, nil},
		{"T27 one waiter that gives up", nil, TestOneDownloadForMany},
		{"T31 a forged manifest", nil, TestForgedManifest},
		{"T32 an empty certificate in the cache", nil, TestEmptyCertificate},
		{"T33 snapshots below a mountpoint of their own", nil, TestSnapshotsAreReplanted},
		{"T34 a tag that stands for something else now", trapMovedTag, nil},
		{"a key that is not the repository's", trapWrongKey, nil},
		{"a proxy with an old manifest", trapStaleManifest, nil},
		{"redirects in a circle", trapRedirectLoop, nil},
	} {
		if (trap.check == nil) == (trap.elsewhere == nil) {
			t.Errorf("%s: want either a check or the test that has it", trap.name)
		}
		if trap.check != nil {
			t.Run(strings.Fields(trap.name)[0]+"_"+strings.Fields(trap.name)[1], trap.check)
		}
	}
}

func trapSuffixes(t *testing.T) {
	s := cvmfstest.NewRogue(t, unpack(t, "repo.tar.gz"))
	r := open(t, options(t, s.Base))
	if got, err := describePath(t.Context(), r, "/big/chunked"); err != nil || got.SHA256 != cvmfstest.Expect(t, 3)["/big/chunked"].SHA256 {
		t.Errorf("/big/chunked: %s, %v", got.SHA256, err)
	}
	kinds := map[byte]int{}
	s.Requests(func(path string, _, _ int) {
		if cvmfstest.IsObject(path) {
			kinds[path[len(path)-1]]++
		}
	})
	if kinds['P'] < 2 || kinds['C'] == 0 || kinds['X'] != 1 {
		t.Errorf("requests by the last letter of the name: %v", kinds)
	}
}

func trapAlgorithms(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	manifest, err := os.ReadFile(filepath.Join(repo, ".cvmfspublished"))
	if err != nil {
		t.Fatal(err)
	}
	whitelist, err := os.ReadFile(filepath.Join(repo, ".cvmfswhitelist"))
	if err != nil {
		t.Fatal(err)
	}
	hashLine := func(data []byte) string {
		_, rest, _ := bytes.Cut(data, []byte("--\n"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		return string(line)
	}
	if m, w := hashLine(manifest), hashLine(whitelist); !strings.HasSuffix(m, "-shake128") || strings.Contains(w, "-") {
		t.Fatalf("hash lines %q and %q: the repository does not show this", m, w)
	}
	open(t, options(t, "file://"+repo))
}

func trapExpiry(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	whitelist, err := os.ReadFile(filepath.Join(repo, ".cvmfswhitelist"))
	if err != nil {
		t.Fatal(err)
	}
	expiry, err := time.Parse("E20060102150405", strings.Split(string(whitelist), "\n")[1])
	if err != nil {
		t.Fatal(err)
	}
	opt := options(t, "file://"+repo)
	for offset, good := range map[time.Duration]bool{-time.Second: true, time.Second: false} {
		opt.CacheDir = filepath.Join(t.TempDir(), "cache")
		opt.Now = func() time.Time { return expiry.Add(offset) }
		r, err := client.Open(t.Context(), opt)
		if err == nil {
			_ = r.Close()
		}
		if (err == nil) != good || !good && !errors.Is(err, cvmfs.ErrExpired) {
			t.Errorf("%v from its expiry: %v", offset, err)
		}
	}
}

func trapCacheNames(t *testing.T) {
	opt := options(t, "file://"+unpack(t, "repo.tar.gz"))
	r := open(t, opt)
	if _, err := describePath(t.Context(), r, "/README"); err != nil {
		t.Fatal(err)
	}
	databases := 0
	for _, f := range cached(t, opt.CacheDir) {
		name := filepath.Base(filepath.Dir(f)) + filepath.Base(f)
		if _, err := cvmfs.ParseHash(name); err != nil {
			t.Errorf("the cache has a file %s: %v", name, err)
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(data, []byte("SQLite format 3\x00")) {
			databases++
		}
	}
	if databases == 0 {
		t.Error("the cache has no catalogue in plain form")
	}
}

func trapEarlyClock(t *testing.T) {
	opt := options(t, "file://"+unpack(t, "repo.tar.gz"))
	opt.Now = func() time.Time { return time.Unix(0, 0) }
	open(t, opt)
}

// The state of two repositories lies side by side, and one's does not serve the
// other.
func trapSharedCache(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, "file://"+repo)
	first := open(t, opt)
	opt.Name = "other.peer.example"
	if r, err := client.Open(t.Context(), opt); err == nil {
		_ = r.Close()
		t.Error("another repository was opened with this one's files")
	} else if !errors.Is(err, cvmfs.ErrWrongName) {
		t.Errorf("Open: %v, want %v", err, cvmfs.ErrWrongName)
	}
	opt.Pin = client.Pin{RootHash: first.RootHash()}
	opt.Servers = []string{"http://127.0.0.1:1"}
	if r := open(t, opt); r.Revision() != 3 {
		t.Errorf("revision %d from a catalogue that both know", r.Revision())
	}
}

// What the cache remembers of tags is for a start without a network only.
func trapMovedTag(t *testing.T) {
	server := cvmfstest.NewRogue(t, unpack(t, "repo.tar.gz"))
	opt := options(t, server.Base)
	opt.Pin = client.Pin{Tag: "trunk"}
	if r := open(t, opt); r.Revision() != 3 {
		t.Fatalf("revision %d, want 3", r.Revision())
	}
	// As if the tag had stood for revision 2 the last time.
	remembered := filepath.Join(opt.CacheDir, "tags."+small)
	if err := os.WriteFile(remembered, []byte(smallRoots[2]+" 2 trunk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := open(t, opt); r.Revision() != 3 || r.Offline() {
		t.Errorf("revision %d, offline %v, want what the tag stands for now", r.Revision(), r.Offline())
	}
	// A tag that was removed is gone, although the cache knows it.
	opt.Pin = client.Pin{Tag: "v1.0/final"}
	open(t, opt)
	server.Serve(unpack(t, "repo-snapshots.tar.gz"))
	if r, err := client.Open(t.Context(), opt); err == nil {
		_ = r.Close()
		t.Errorf("a removed tag shows revision %d", r.Revision())
	} else if !errors.Is(err, client.ErrNoTag) {
		t.Errorf("a removed tag: %v, want %v", err, client.ErrNoTag)
	}
}

// A whitelist that another key signed is no better than none, wherever it comes
// from, and no object is fetched for it.
func trapWrongKey(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	first, second := cvmfstest.NewRogue(t, repo), cvmfstest.NewRogue(t, repo)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	opt := options(t, first.Base, second.Base)
	opt.MasterKeys = []*rsa.PublicKey{&key.PublicKey}
	if r, err := client.Open(t.Context(), opt); err == nil {
		_ = r.Close()
		t.Fatal("Open succeeded with a key that is not the repository's")
	} else if !errors.Is(err, cvmfs.ErrSignature) {
		t.Errorf("Open: %v, want %v", err, cvmfs.ErrSignature)
	}
	if objects := cached(t, opt.CacheDir); len(objects) > 0 {
		t.Errorf("the cache has %v", objects)
	}
	// Among others the right one will do.
	opt.MasterKeys = append(opt.MasterKeys, masterKeys(t)...)
	open(t, opt)
}

// A cache on the way that keeps an old manifest is gone past.
func trapStaleManifest(t *testing.T) {
	old, newer := unpack(t, "repo.tar.gz"), unpack(t, "repo-snapshots.tar.gz")
	stale, err := os.ReadFile(filepath.Join(old, ".cvmfspublished"))
	if err != nil {
		t.Fatal(err)
	}
	server := cvmfstest.NewRogue(t, newer)
	opt := options(t, server.Base)
	r := open(t, opt)
	if r.Revision() != 4 {
		t.Fatalf("revision %d, want 4", r.Revision())
	}
	server.Set(func(path string, _ int) cvmfstest.Fault {
		if path != "/.cvmfspublished" {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request, files http.Handler) {
			if r.Header.Get("Cache-Control") == "no-cache" {
				files.ServeHTTP(w, r)
				return
			}
			_, _ = w.Write(stale)
		}
	})
	if _, err := r.Refresh(t.Context()); err != nil || r.Revision() != 4 || r.Offline() {
		t.Errorf("Refresh: %v, revision %d, offline %v", err, r.Revision(), r.Offline())
	}
	if n := server.Count("/.cvmfspublished"); n != 2 {
		t.Errorf("the manifest was asked for %d times, want once more past caches", n)
	}
}

func trapRedirectLoop(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	bad, good := cvmfstest.NewRogue(t, repo), cvmfstest.NewRogue(t, repo)
	bad.Set(func(string, int) cvmfstest.Fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, bad.Base+r.URL.Path, http.StatusFound)
		}
	})
	opt := options(t, bad.Base)
	opt.Network.FollowRedirects = true
	if r, err := client.Open(t.Context(), opt); err == nil {
		_ = r.Close()
		t.Fatal("Open succeeded")
	} else if !client.IsTransfer(err) || !strings.Contains(err.Error(), "redirects") {
		t.Errorf("Open: %v", err)
	}
	if n := bad.Count("/.cvmfspublished"); n != 5 {
		t.Errorf("%d requests, want the first and four redirects", n)
	}
	opt.Servers = append(opt.Servers, good.Base)
	if r := open(t, opt); r.Revision() != 3 {
		t.Errorf("revision %d with a good server", r.Revision())
	}
}
