package machine_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

// TestDiskFull makes a machine on disks of every small size, so that each step
// is once the one for which there is no room.
func TestDiskFull(t *testing.T) {
	tier.Root(t)
	made := 0
	for kib := 8; kib <= 512 && made < 3; kib += 8 {
		w := newWorld(t, drivertest.Guest{})
		if err := os.MkdirAll(string(w.Home), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", string(w.Home), "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
			t.Fatal(err)
		}
		home := string(w.Home)
		func() {
			defer func() {
				if err := unix.Unmount(home, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}()
			_, err := w.Create(t.Context(), orderOf("m", w.iso))
			if err == nil {
				made++
				if err := w.Destroy(t.Context(), "m", true); err != nil {
					t.Errorf("%d KiB: Destroy: %v", kib, err)
				}
				return
			}
			if !strings.Contains(strings.Join(fail.Hints(err), " "), "space") {
				t.Errorf("%d KiB: Create = %v, hints %q; want a hint about space", kib, err, fail.Hints(err))
			}
			if all, err := w.List(t.Context()); len(all) != 0 || err != nil {
				t.Errorf("%d KiB: List = %v, %v; want nothing", kib, all, err)
			}
			if entries, err := os.ReadDir(home + "/machines"); err == nil && len(entries) != 0 {
				t.Errorf("%d KiB: left behind: %v", kib, entries)
			}
		}()
	}
	if made == 0 {
		t.Error("no disk was large enough")
	}
}
