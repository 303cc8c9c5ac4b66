package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// tinyDisk mounts a disk of that size until the test ends.
func tinyDisk(t *testing.T, size string, flags uintptr) string {
	t.Helper()
	tier.Root(t)
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", flags, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return at
}

// refuses checks class, place and hint of an error.
func refuses(t *testing.T, err error, class fail.Class, place string) {
	t.Helper()
	if !fail.Is(err, class) || !strings.Contains(err.Error(), place) || len(fail.Hints(err)) == 0 {
		t.Errorf("error %v of class %d with hints %q, want class %d, %q and a hint", err, fail.ClassOf(err), fail.Hints(err), class, place)
	}
}

// A cache that cannot be is said with its place; so is one that another kind of
// client has for itself.
func TestRepoCommandsWithoutCache(t *testing.T) {
	repo, key := smallRepo(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cache := range []string{file, filepath.Join(file, "below"), "/proc/nothing"} {
		_, err := repoCommand(t, newRepoLs, repo, "--key", key, "--cache", cache)
		refuses(t, err, fail.HostLacks, cache)
	}
	taken := filepath.Join(dir, "taken")
	mustRepo(t, newRepoLs, repo, "--key", key, "--cache", taken)
	lock, err := os.Open(filepath.Join(taken, "lock."+cvmfstest.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	_, err = repoCommand(t, newRepoLs, repo, "--key", key, "--cache", taken)
	refuses(t, err, fail.Conflict, taken)
}

// A disk of the cache that is full, or cannot be written to, is no matter as long
// as memory has room; what is larger than that is refused with the remedy.
func TestRepoCommandsOnFullCache(t *testing.T) {
	repo := cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)["/big/chunked"]
	key := filepath.Join(repo.Keys, cvmfstest.Name+".pub")
	tiny := tinyDisk(t, "64k", 0)
	for what, cache := range map[string]string{"full": tiny, "read-only": tinyDisk(t, "1m", unix.MS_RDONLY)} {
		out, err := repoCommand(t, newRepoCat, repo.Dir, "/big/chunked", "--key", key, "--cache", cache)
		if err != nil || int64(len(out)) != want.Size {
			t.Errorf("%s: %d bytes, %v", what, len(out), err)
		}
	}
	// Whole objects of more than the 64 MiB that are kept in memory.
	big := cvmfstest.Hostile{
		Change: "UPDATE catalog SET size=100000000, hash=x'%s', flags=4 WHERE name='README'",
		Object: func(t testing.TB, r cvmfstest.Repo) cvmfs.Hash {
			return r.Store(t, cvmfs.SHA1, make([]byte, 100_000_000), cvmfs.SuffixNone)
		},
	}
	args := []string{repo.Dir, "/README", "--root-hash", repo.Hostile(t, big).String(), "--cache"}
	out, err := repoCommand(t, newRepoCat, append(args, tiny)...)
	if out != "" {
		t.Errorf("%d bytes of output", len(out))
	}
	refuses(t, err, fail.HostLacks, "")
	if out := mustRepo(t, newRepoCat, append(args, t.TempDir())...); len(out) != 100_000_000 {
		t.Errorf("with room: %d bytes", len(out))
	}
}

// A destination that takes no copy is named, and nothing of it stays there.
func TestRepoGetOnFullDisk(t *testing.T) {
	repo, key := smallRepo(t)
	for at, class := range map[string]fail.Class{
		tinyDisk(t, "64k", 0): fail.HostLacks, tinyDisk(t, "1m", unix.MS_RDONLY): fail.HostLacks, filepath.Join(t.TempDir(), "nowhere"): fail.NotFound,
	} {
		copied := filepath.Join(at, "copy")
		_, err := repoCommand(t, newRepoGet, repo, "/big", copied, "--key", key, "--cache", t.TempDir())
		refuses(t, err, class, copied)
		if left, _ := os.ReadDir(at); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		_, err = repoCommand(t, newRepoCp, "-r", repo, "/big", copied, "--key", key, "--cache", t.TempDir())
		refuses(t, err, class, copied)
	}
}
