package mount_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

// What is absurd in a catalogue is EIO for who asks for it, at once, and nothing
// to anybody else.
func TestHostileCatalogue(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)
	for name, h := range cvmfstest.HostileCatalogues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opt := options(t, repo, "file://"+repo.Dir)
			opt.Pin.RootHash = repo.Hostile(t, h)
			at, _ := mountWith(t, opt, mount.Options{})
			err := within(t, "using "+h.Path, func() error {
				if want[h.Path].Type != "file" {
					_, err := os.ReadDir(at + h.Path)
					return err
				}
				return readRight(at, want[h.Path])
			})
			if !errors.Is(err, unix.EIO) && (h.Err != nil || !errors.Is(err, unix.ENOTDIR)) {
				t.Errorf("using %q: %v, want %v", h.Path, err, unix.EIO)
			}
			if err := within(t, "another file", func() error { return readRight(at, want["/bin/tool"]) }); err != nil {
				t.Errorf("another file: %v", err)
			}
		})
	}
}
