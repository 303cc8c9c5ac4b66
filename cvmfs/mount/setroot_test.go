package mount_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

// Another root shows another revision, and the next look for the newest one that.
func TestSetRoot(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	opt := options(t, repo, "file://"+repo.Dir)
	opt.Pin.Tag = "rev1"
	old, err := client.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Close() }()
	root, r := mountWith(t, options(t, repo, "file://"+repo.Dir), mount.Options{KernelTimeout: time.Millisecond})
	shows := func(newest bool) {
		t.Helper()
		time.Sleep(20 * time.Millisecond) // the kernel may believe for so long what it was told
		_, err := os.Stat(root + "/v3/bigraw")
		if newest && err != nil || !newest && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file of revision 3 is shown: %v", err)
		}
		if got, want := attribute(root, "user.root_hash"), r.RootHash().String(); got != want {
			t.Errorf("root hash %s, want %s", got, want)
		}
	}
	shows(true)
	if err := r.SetRoot(t.Context(), old.RootHash()); err != nil {
		t.Fatal(err)
	}
	shows(false)
	if changed, err := r.Refresh(t.Context()); !changed || err != nil {
		t.Errorf("Refresh: %v, %v", changed, err)
	}
	shows(true)
	if err := old.SetRoot(t.Context(), r.RootHash()); !errors.Is(err, client.ErrPinned) {
		t.Errorf("of a fixed revision: %v", err)
	}
}
