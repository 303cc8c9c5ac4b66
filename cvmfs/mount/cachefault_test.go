package mount_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

// smallDisk mounts a disk of that size until the test ends.
func smallDisk(t testing.TB, size string) string {
	t.Helper()
	tier.Root(t)
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "nr_inodes=2000,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return at
}

// A disk of the cache that is full, from the start or before half is read: what
// is read is right, from memory.
func TestCacheDiskFull(t *testing.T) {
	repo := cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)
	for _, size := range []string{"400k", "1300k"} {
		t.Run(size, func(t *testing.T) {
			opt := options(t, repo, "file://"+repo.Dir)
			opt.CacheDir = smallDisk(t, size)
			at, _ := mountWith(t, opt, mount.Options{})
			for range 2 {
				cvmfstest.Compare(t, tree(t, at), want, unreadable)
			}
		})
	}
	t.Run("filled by others and freed", func(t *testing.T) {
		opt := options(t, repo, "file://"+repo.Dir)
		opt.CacheDir = smallDisk(t, "8m")
		at, _ := mountWith(t, opt, mount.Options{})
		filler := filepath.Join(opt.CacheDir, "filler")
		if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
		if err := readRight(at, want["/big/chunked"]); err != nil {
			t.Errorf("on a full disk: %v", err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		cvmfstest.Compare(t, tree(t, at), want, unreadable)
		if objects := objectsIn(t, opt.CacheDir); objects < 150 {
			t.Errorf("%d objects are cached now that there is room, want nearly all", objects)
		}
	})
}

func objectsIn(t testing.TB, cache string) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(cache, "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A cache that somebody deletes while it is in use: first all that is in it, then
// the directory too.
func TestCacheDeleted(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)
	opt := options(t, repo, "file://"+repo.Dir)
	at, r := mountWith(t, opt, mount.Options{})
	open, err := os.Open(at + "/big/chunked")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	cvmfstest.Compare(t, tree(t, at), want, unreadable)
	if objects := objectsIn(t, opt.CacheDir); objects < 150 {
		t.Errorf("%d objects are cached, want nearly all", objects)
	}
	entries, err := os.ReadDir(opt.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		cvmfstest.RemoveAll(t, filepath.Join(opt.CacheDir, e.Name()))
	}
	r.DetachCatalogs()
	dropPages(t)
	cvmfstest.Compare(t, tree(t, at), want, unreadable)
	cvmfstest.RemoveAll(t, opt.CacheDir)
	r.DetachCatalogs()
	dropPages(t)
	cvmfstest.Compare(t, tree(t, at), want, unreadable)
	if n, err := io.Copy(io.Discard, open); n != want["/big/chunked"].Size || err != nil {
		t.Errorf("a file that was open all the time: %d bytes, %v", n, err)
	}
}

// dropPages makes the kernel forget what it has read and looked up, so that it
// asks again.
func dropPages(t testing.TB) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200); err != nil {
		t.Logf("the kernel's caches stay, so that less is asked for: %v", err)
	}
}

// Two mounts share a cache that is too small for either.
func TestTwoMountsOneCache(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)
	opt := options(t, repo, "file://"+repo.Dir)
	opt.Quota, opt.MaxCatalogs = 500<<10, 3
	var readers sync.WaitGroup
	for range 2 {
		at, _ := mountWith(t, opt, mount.Options{})
		readers.Go(func() {
			for range 3 {
				cvmfstest.Compare(t, tree(t, at), want, unreadable)
			}
		})
	}
	readers.Wait()
}

// A mount that is killed while it stores what it reads leaves an error to those
// who read, a mountpoint that can be had again, and a cache with nothing wrong in
// it.
func TestKilledMount(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Repo{Dir: os.Getenv("MOUNT_KILLED_REPO"), Keys: os.Getenv("MOUNT_KILLED_KEYS")}
	if repo.Dir != "" {
		opt := options(t, repo, os.Getenv("MOUNT_KILLED_URL"))
		opt.CacheDir = os.Getenv("MOUNT_KILLED_CACHE")
		at := os.Getenv("MOUNT_KILLED_AT")
		r, err := client.Open(t.Context(), opt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mount.Mount(t.Context(), r, at, mount.Options{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("mounted")
		select {}
	}
	repo = cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)
	server := cvmfstest.NewRogue(t, repo.Dir)
	opt := options(t, repo, server.Base)
	at := t.TempDir()
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledMount$")
		cmd.Env = append(os.Environ(), "MOUNT_KILLED_REPO="+repo.Dir, "MOUNT_KILLED_KEYS="+repo.Keys, "MOUNT_KILLED_URL="+server.Base,
			"MOUNT_KILLED_CACHE="+opt.CacheDir, "MOUNT_KILLED_AT="+at)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		for said.Scan() && said.Text() != "mounted" {
			t.Log(said.Text())
		}
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for _, p := range slices.Sorted(maps.Keys(want)) {
					if want[p].Type != "file" {
						continue
					}
					if err := readRight(at, want[p]); err != nil && !diesWithTheMount(err) {
						t.Errorf("%q: %v", p, err)
					}
				}
			})
		}
		time.Sleep(time.Duration(3+13*round) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		within(t, "reading from a dead mount", func() error { readers.Wait(); return nil })
		_ = cmd.Wait() // killed, as was wanted
		if _, err := os.ReadDir(at); !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("the mountpoint of a dead mount: %v, want %v", err, unix.ENOTCONN)
		}
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	stored := objectsIn(t, opt.CacheDir)
	if stored == 0 || stored > 190 {
		t.Errorf("%d objects were stored, want some and not all", stored)
	}
	again, _ := mountWith(t, opt, mount.Options{})
	cvmfstest.Compare(t, tree(t, again), want, unreadable)
	if bad, err := os.ReadDir(filepath.Join(opt.CacheDir, "quarantaine")); err != nil || len(bad) > 0 {
		t.Errorf("objects that were not whole: %v, %v", bad, err)
	}
}

// diesWithTheMount tells what a reader may see of a mount that was killed.
func diesWithTheMount(err error) bool {
	for _, e := range []syscall.Errno{unix.ENOTCONN, unix.ECONNABORTED, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.Is(err, fs.ErrNotExist) // of the mountpoint below, a moment later
}
