package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/tier"
)

// chaosOptions are those of both the clients that are killed and the one that
// looks at what they left.
func chaosOptions(t testing.TB, cache, url string) client.Options {
	t.Helper()
	opt := options(t, url)
	opt.CacheDir, opt.Quota, opt.MaxCatalogs, opt.Timeout = cache, 500<<10, 3, 100*time.Millisecond
	opt.Network.BackoffMax = time.Millisecond
	return opt
}

// Two processes share a cache, read through a server that misbehaves at random,
// lose objects of the cache now and then, and are killed at random. Whatever they
// managed to read is right, and what is left is a sound cache.
//
// MICA_TEST_ROUNDS makes it longer, MICA_TEST_SEED repeats its choices, if not the
// moments they fall on.
func TestChaos(t *testing.T) {
	if url := os.Getenv("CLIENT_CHAOS_URL"); url != "" {
		readForEver(t, url)
	}
	tier.Full(t)
	seed := tier.Seed(t)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
	repo := cvmfstest.Small(t)
	server := cvmfstest.NewRogue(t, repo.Dir)
	names := slices.Sorted(maps.Keys(cvmfstest.Faults))
	var mu sync.Mutex // guards random
	pick := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	server.Set(func(string, int) cvmfstest.Fault {
		if pick(100) >= 25 {
			return nil
		}
		return cvmfstest.Faults[names[pick(len(names))]]
	})
	cache := filepath.Join(t.TempDir(), "cache")
	var out [2]bytes.Buffer
	var child [2]*exec.Cmd
	end := func(i int) {
		if child[i] != nil {
			_ = child[i].Process.Kill() // SIGKILL; it may have ended by itself, which its output tells
			_ = child[i].Wait()
		}
	}
	defer end(0)
	defer end(1)
	for range tier.Rounds(t, 12) {
		i := pick(2)
		end(i)
		// Without a context: it would be killed by two.
		child[i] = exec.Command(os.Args[0], "-test.run=^TestChaos$")
		child[i].Env = append(os.Environ(), "CLIENT_CHAOS_URL="+server.Base, "CLIENT_CHAOS_CACHE="+cache, "CLIENT_CHAOS_SEED="+strconv.Itoa(pick(1<<30)))
		child[i].Stdout, child[i].Stderr = &out[i], &out[i]
		if err := child[i].Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(100+pick(500)) * time.Millisecond)
		if objects := cached(t, cache); len(objects) > 0 {
			_ = os.Remove(objects[pick(len(objects))]) // it may be gone already
		}
	}
	end(0)
	end(1)
	right := 0
	for i := range out {
		for line := range strings.Lines(out[i].String()) {
			if strings.TrimSpace(line) == "right" {
				right++
			} else {
				t.Errorf("a client: %s", line)
			}
		}
	}
	t.Logf("%d answers were right, %d requests", right, server.Total())
	if right == 0 {
		t.Error("nothing was read")
	}
	server.Set(nil)
	soundCache(t, repo, chaosOptions(t, cache, server.Base))
}

// readForEver is one of the clients: it says "right" for each entry that it could
// read, and what is wrong with one that it should not have been able to.
func readForEver(t *testing.T, url string) {
	seed, err := strconv.ParseUint(os.Getenv("CLIENT_CHAOS_SEED"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // to be repeated
	want := cvmfstest.Expect(t, 3)
	paths := slices.Sorted(maps.Keys(want))
	opt := chaosOptions(t, os.Getenv("CLIENT_CHAOS_CACHE"), url)
	opt.Log = nil
	for {
		r, err := client.Open(context.Background(), opt)
		if err != nil {
			continue
		}
		for range 1 + random.IntN(60) {
			p := paths[random.IntN(len(paths))]
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(3000))*time.Millisecond) // some give up
			got, err := describePath(ctx, r, p)
			cancel()
			got.Path = p
			switch {
			case err == nil && cmp.Equal(got, want[p]):
				fmt.Println("right")
			case err == nil:
				fmt.Printf("%q: %s\n", p, strings.ReplaceAll(cmp.Diff(want[p], got), "\n", " "))
			case errors.Is(err, fs.ErrNotExist):
				fmt.Printf("%q: %v\n", p, err)
			}
			if random.IntN(10) == 0 {
				r.DetachCatalogs()
			}
		}
		if err := r.Close(); err != nil {
			fmt.Println("closing:", err)
		}
	}
}

// soundCache compares every object of a cache with the one of the repository, has
// a client read all through it, and looks for what should not be there.
func soundCache(t *testing.T, repo cvmfstest.Repo, opt client.Options) {
	t.Helper()
	objects := 0
	for _, file := range cached(t, opt.CacheDir) {
		h, err := cvmfs.ParseHash(filepath.Base(filepath.Dir(file)) + filepath.Base(file))
		if err != nil {
			t.Errorf("among the objects: %v", err)
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !isContentOf(repo, h, data) {
			t.Errorf("object %s has wrong content", h)
		}
		objects++
	}
	opt.Now = func() time.Time { return time.Now().Add(time.Minute) } // what killed writers left is old enough
	r, err := client.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	cvmfstest.Compare(t, tree(t, r, ""), cvmfstest.Expect(t, 3), nil)
	r.DetachCatalogs()
	var used, onDisk int64
	for range 100 { // what is stored while it is counted, ahead of readers, may count twice until the next time
		if err := r.EvictCache(t.Context(), opt.Quota); err != nil { // counts anew
			t.Error(err)
		}
		used, _ = r.CacheUsage()
		onDisk = 0
		for _, file := range cached(t, opt.CacheDir) {
			if info, err := os.Stat(file); err == nil {
				onDisk += (info.Size() + 4095) / 4096 * 4096
			}
		}
		if used == onDisk {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if used != onDisk {
		t.Errorf("the cache says that it has %d bytes, on disk are %d", used, onDisk)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{".", "txn", "quarantaine"} {
		entries, err := os.ReadDir(filepath.Join(opt.CacheDir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			kind, _, _ := strings.Cut(e.Name(), ".")
			known := len(kind) == 2 || slices.Contains([]string{"txn", "quarantaine", "lock", "manifest", "whitelist", "cvmfschecksum", "epoch", "usage", "lock_evict"}, kind)
			if dir != "." || !known {
				t.Errorf("left in the cache: %s/%s", dir, e.Name())
			}
		}
	}
	if objects == 0 {
		t.Error("the cache had no objects")
	}
}

// isContentOf reports whether data is the plain form of any object of that hash.
func isContentOf(repo cvmfstest.Repo, h cvmfs.Hash, data []byte) bool {
	for _, suffix := range []cvmfs.Suffix{cvmfs.SuffixNone, cvmfs.SuffixPartial, cvmfs.SuffixCatalog, cvmfs.SuffixCertificate, cvmfs.SuffixHistory} {
		stored, err := os.ReadFile(filepath.Join(repo.Dir, h.ObjectPath(suffix)))
		if err != nil {
			continue
		}
		for _, c := range []cvmfs.Compression{cvmfs.Zlib, cvmfs.Plain} {
			var plain bytes.Buffer
			if _, err := cvmfs.CopyVerified(&plain, bytes.NewReader(stored), h, c, 1<<30); err == nil && bytes.Equal(plain.Bytes(), data) {
				return true
			}
		}
	}
	return false
}
