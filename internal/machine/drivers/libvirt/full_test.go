package libvirt_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
)

// TestBesideFullPool uploads a boot image into a pool that has no room for it.
func TestBesideFullPool(t *testing.T) {
	beside(t, "pool")
	small := filepath.Join("/var/lib/libvirt", "small") // QEMU's user can look into it
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", small, "tmpfs", 0, "size=4m,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	l := dial(t)
	made, err := l.StoragePoolCreateXML("<pool type='dir'><name>small</name><target><path>"+small+"</path></target></pool>", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.StoragePoolDestroy(made); err != nil {
			t.Error(err)
		}
	})
	d := libvirt.Real()
	for _, mib := range []int64{5, 256} { // what the daemon takes before it knows, and what it cuts off in the middle
		s := order(t, func(s *machine.Spec) { s.Options = map[string]string{"pool": "small"} })
		if err := os.WriteFile(s.ImagePath(), bytes.Repeat([]byte("boot image"), int(mib<<20/10)), 0o600); err != nil {
			t.Fatal(err)
		}
		before := traces(t, s.Dir)
		began := time.Now()
		_, err := d.Create(t.Context(), s)
		t.Logf("Create of %d MiB ended after %s: %v", mib, time.Since(began), err)
		if err != nil && !strings.Contains(err.Error(), "uploading") {
			t.Errorf("Create of %d MiB went on after the upload", mib)
		}
		hints := strings.Join(fail.Hints(err), " ")
		if !fail.Is(err, fail.Failed) || !strings.Contains(err.Error(), `storage pool "small" is full`) || !strings.Contains(hints, "pool-info small") {
			t.Errorf("Create of %d MiB in a pool of 4 = %v, hints %q; want that it is full, and what to do", mib, err, hints)
		}
		left, _ := filepath.Glob(filepath.Join(small, "*"))
		if diff := cmp.Diff(before, slices.Concat(traces(t, s.Dir), left)); diff != "" {
			t.Errorf("traces (-before +after):\n%s", diff)
		}
	}
	// The same connection, and the same pool where there is room, still work.
	g := &guest{T: t, d: d}
	i, err := d.Create(t.Context(), order(t, func(s *machine.Spec) { s.Options = map[string]string{"pool": "small"} }))
	g.must("Create of an image that fits", err)
	g.Instance = i
	g.state(machine.Stopped)
	g.must("Destroy", d.Destroy(t.Context(), i))
}
