package client_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/tier"
)

func TestDamagedCache(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	want := cvmfstest.Expect(t, 3)
	for name, test := range map[string]struct {
		unclean bool
		damage  func(path string, data []byte) []byte
	}{
		"emptied":            {false, func(string, []byte) []byte { return nil }},
		"truncated":          {false, func(_ string, d []byte) []byte { return d[:len(d)/2] }},
		"bit flip and crash": {true, func(_ string, d []byte) []byte { return append(bytes.Clone(d[:len(d)-1]), d[len(d)-1]^1) }},
	} {
		t.Run(name, func(t *testing.T) {
			server := cvmfstest.NewRogue(t, repo)
			opt := options(t, server.Base)
			r, err := client.Open(t.Context(), opt)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, tree(t, r, ""), want)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			for _, f := range cached(t, opt.CacheDir) {
				data, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				if len(data) == 0 {
					continue
				}
				// Written in place, as a bad disk does, so that attributes stay.
				if err := os.WriteFile(f, test.damage(f, data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if test.unclean {
				if err := os.WriteFile(filepath.Join(opt.CacheDir, "running."+small), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			server.Set(nil)
			compare(t, tree(t, open(t, opt), ""), want)
			if server.Total() < 150 {
				t.Errorf("%d requests, want every damaged object again", server.Total())
			}
		})
	}
}

// T32: an empty certificate in the cache is no certificate.
func TestEmptyCertificate(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	data, err := os.ReadFile(filepath.Join(repo, ".cvmfspublished"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := cvmfs.ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	opt := options(t, "file://"+repo)
	name := filepath.Join(opt.CacheDir, strings.TrimPrefix(m.Certificate.ObjectPath(cvmfs.SuffixNone), "data/"))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, opt)
	if fi, err := os.Stat(name); err != nil || fi.Size() == 0 {
		t.Errorf("the empty certificate stays: %v", err)
	}
}

// A certificate that rotted in the cache is fetched again.
func TestRottenCertificate(t *testing.T) {
	repo := cvmfstest.Small(t)
	opt := options(t, "file://"+repo.Dir)
	r, err := client.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(opt.CacheDir, strings.TrimPrefix(repo.Head(t).Certificate.ObjectPath(cvmfs.SuffixNone), "data/"))
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(name, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := open(t, opt); r.Offline() {
		t.Error("offline because of a damaged certificate in the cache")
	}
	if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, good) {
		t.Errorf("the damaged certificate stays: %v", err)
	}
}

func TestQuota(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, "file://"+repo)
	opt.Quota = 600 << 10
	r := open(t, opt)
	want := cvmfstest.Expect(t, 3)
	if err := r.Pin(t.Context(), "/README"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		compare(t, tree(t, r, ""), want)
	}
	r.DetachCatalogs()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if used, _ := r.CacheUsage(); used <= opt.Quota {
			break
		}
		if time.Now().After(deadline) {
			used, _ := r.CacheUsage()
			t.Fatalf("%d bytes in a cache of %d", used, opt.Quota)
		}
		time.Sleep(10 * time.Millisecond)
	}
	var onDisk int64
	for _, f := range cached(t, opt.CacheDir) {
		fi, err := os.Stat(f)
		if err != nil {
			continue
		}
		onDisk += (fi.Size() + 4095) / 4096 * 4096
	}
	if onDisk > opt.Quota+64<<10 || onDisk == 0 {
		t.Errorf("%d bytes on disk, quota %d", onDisk, opt.Quota)
	}
	// What is pinned outlives every eviction.
	_ = r.EvictCache(t.Context(), 0) // the root catalogue stays in any case
	e, err := r.Lookup(t.Context(), "/README")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(opt.CacheDir, strings.TrimPrefix(e.Hash.ObjectPath(cvmfs.SuffixNone), "data/"))); err != nil {
		t.Errorf("the pinned file was evicted: %v", err)
	}
	compare(t, tree(t, r, ""), want)
}

func TestCacheVanishes(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, "file://"+repo)
	r := open(t, opt)
	want := cvmfstest.Expect(t, 3)
	compare(t, tree(t, r, ""), want)
	r.DetachCatalogs()
	// Its content: made anew.
	list, err := os.ReadDir(opt.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		cvmfstest.RemoveAll(t, filepath.Join(opt.CacheDir, e.Name()))
	}
	compare(t, tree(t, r, ""), want)
	// Itself: memory has to do.
	r.DetachCatalogs()
	cvmfstest.RemoveAll(t, opt.CacheDir)
	compare(t, tree(t, r, ""), want)
}

func TestTwoClientsOneCache(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, serve(t, repo))
	opt.Quota = 500 << 10 // so that they evict from each other
	opt.MaxCatalogs = 3
	want := cvmfstest.Expect(t, 3)
	var wg sync.WaitGroup
	for range 2 {
		r := open(t, opt)
		for range 2 {
			wg.Go(func() {
				for range 2 {
					compare(t, tree(t, r, ""), want)
				}
			})
		}
	}
	wg.Wait()
}

func TestStopWriting(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, "file://"+repo)
	r := open(t, opt)
	r.StopWriting()
	before := len(cached(t, opt.CacheDir))
	compare(t, tree(t, r, ""), cvmfstest.Expect(t, 3))
	if after := len(cached(t, opt.CacheDir)); after != before {
		t.Errorf("%d objects were written", after-before)
	}
	if _, err := os.Stat(filepath.Join(opt.CacheDir, "running."+small)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cache is not marked clean: %v", err)
	}
}

// A disk much smaller than what is read.
func TestDiskFull(t *testing.T) {
	tier.Root(t)
	repo := unpack(t, "repo.tar.gz")
	for _, size := range []string{"400k", "1300k"} {
		t.Run(size, func(t *testing.T) {
			disk := t.TempDir()
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "nr_inodes=2000,size="+size); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(disk, 0); err != nil {
					t.Error(err)
				}
			})
			opt := options(t, serve(t, repo))
			opt.CacheDir = disk
			var said strings.Builder
			opt.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))
			r, err := client.Open(t.Context(), opt)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				compare(t, tree(t, r, ""), cvmfstest.Expect(t, 3))
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if n := strings.Count(said.String(), "\n"); n > 3 { // and not one of each object
				t.Errorf("%d warnings:\n%s", n, said.String())
			}
		})
	}
}
