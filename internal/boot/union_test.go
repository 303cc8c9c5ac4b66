package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/tier"
)

// inNamespace runs the calling test once more in a mount namespace of its own
// and returns true in there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	tier.Root(t)
	if os.Getenv("MICA_BOOT_CHILD") == t.Name() {
		return true
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "MICA_BOOT_CHILD="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return false
}

// TestOverlay mounts the union with the options of a boot and checks what they
// promise: writes go up, nothing below changes, a copied file carries no redirect
// or metadata-only mark that would tie it to this lower side.
func TestOverlay(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	base := t.TempDir()
	if err := unix.Mount("t", base, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(base, unix.MNT_DETACH) })
	put(t, base, "lower: a,b/etc/file", "below")
	put(t, base, "lower: a,b/dir/inner", "below")
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(base, "root")
	if err := overlay(filepath.Join(base, "lower: a,b"), filepath.Join(base, "upper"), filepath.Join(base, "work"), root); err != nil {
		t.Fatal(err)
	}
	if !isMountPoint(root) {
		t.Error("isMountPoint does not see the union")
	}
	put(t, root, "etc/file", "above")
	if got := read(t, base, "lower: a,b/etc/file"); got != "below" {
		t.Errorf("the lower side was written: %q", got)
	}
	if err := os.Chmod(filepath.Join(root, "dir/inner"), 0o644); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(base, "upper/dir/inner")); err != nil || fi.Size() != int64(len("below")) {
		t.Errorf("a changed mode copied up %v, %v; want the whole file", fi, err)
	}
	if err := os.Rename(filepath.Join(root, "dir"), filepath.Join(root, "moved")); err == nil {
		if n, err := unix.Lgetxattr(filepath.Join(base, "upper/moved"), "trusted.overlay.redirect", nil); err == nil {
			t.Errorf("a renamed folder has a redirect of %d bytes", n)
		}
	} else if !strings.Contains(err.Error(), "cross-device") {
		t.Errorf("rename of a lower folder: %v, want EXDEV", err)
	}
}

// TestUnionAndStores runs the stage itself and the bindings of adapt.
func TestUnionAndStores(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	// The stage works with the fixed names of the initramfs: give it a root of
	// its own.
	base := t.TempDir()
	if err := unix.Mount("t", base, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"root", "root.rw", "root.ro", "proc", "tmp"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("/proc", filepath.Join(base, "proc"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chroot(base); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chdir("/"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{readOnly, readWrite} {
		if err := unix.Mount("side", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	put(t, readOnly, "cvm4/usr/bin/podman", "")
	put(t, readOnly, "other/x", "")
	for _, d := range []string{"persistent", "ovlwork"} {
		if err := os.Mkdir(filepath.Join(readWrite, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &state{rec: &Record{}, mounted: true}
	s.set.Path = "cvm5"
	if err := mountUnion(t.Context(), s, &report{}); err == nil || !strings.Contains(remedy(err), "cvm4, other") {
		t.Errorf("a wrong path: %v (%s), want a remedy that lists what is there", err, remedy(err))
	}
	s.set.Path = "cvm4"
	for range 2 { // the second is a retry of the stage
		if err := mountUnion(t.Context(), s, &report{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, targetRoot, "mnt/.ro/other/x"); got != "" {
		t.Errorf("mnt/.ro = %q", got)
	}
	if s.rw() != filepath.Join(targetRoot, "mnt/.rw") {
		t.Errorf("UROOT is at %q", s.rw())
	}
	for range 2 {
		if err := bindStores(targetRoot, s.rw()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, targetRoot, "var/lib/containers/x", "on UROOT")
	if got := read(t, s.rw(), "containers/x"); got != "on UROOT" {
		t.Errorf("containers/x = %q", got)
	}
	if _, err := os.Stat(filepath.Join(targetRoot, "var/lib/docker")); err == nil {
		t.Error("a system without docker got its store")
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), " /root/cvmfs "); n != 1 {
		t.Errorf("/cvmfs is mounted %d times, want once", n)
	}
}
