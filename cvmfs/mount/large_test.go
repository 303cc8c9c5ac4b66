package mount_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

// T24: a directory of very many entries is listed whole, in order, and each name
// once, in time that grows with their number and not with its square, which would
// be hours.
func TestLargeDirectory(t *testing.T) {
	tier.Root(t)
	const entries = 200_000
	repo := cvmfstest.Small(t)
	root, err := cvmfs.ParseHash(cvmfstest.RootHashes[3])
	if err != nil {
		t.Fatal(err)
	}
	opt := options(t, repo, "file://"+repo.Dir)
	// The keys are none of the paths': a listing does not look at them.
	opt.Pin.RootHash = repo.Change(t, root, fmt.Sprintf(`
		WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d)
		INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2, hardlinks, size, mode, mtime, flags, name, symlink, uid, gid)
		SELECT i, -i, d.md5path_1, d.md5path_2, 1, 0, 33188, 0, 4, printf('f%%07d', i), '', 0, 0 FROM n, catalog AS d WHERE d.name = 'empty' AND d.flags = 1 AND d.parent_1 = (SELECT md5path_1 FROM catalog WHERE parent_1 = 0 AND parent_2 = 0)`, entries-1))
	at, _ := mountWith(t, opt, mount.Options{})
	dir, err := os.Open(at + "/empty")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	const all = entries + 3 // there were some
	if len(names) != all || !slices.IsSorted(names) || len(slices.Compact(names)) != all {
		t.Fatalf("%d names from %q, want %d in order", len(names), names[:min(len(names), 3)], all)
	}
	// Once more from the middle, as telldir(3) and seekdir(3) let programs do.
	buf := make([]byte, 4096)
	if _, err := unix.Seek(int(dir.Fd()), entries/2+2, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.ReadDirent(int(dir.Fd()), buf)
	if err != nil {
		t.Fatal(err)
	}
	_, _, rest := unix.ParseDirent(buf[:n], -1, nil)
	if want := names[entries/2]; len(rest) == 0 || rest[0] != want {
		t.Errorf("from the middle: %q, want %q first", rest[:min(len(rest), 2)], want)
	}
}
