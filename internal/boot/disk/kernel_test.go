package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/tier"
)

// loopDisk is a real block device.
func loopDisk(t *testing.T, size int64) (*machine, Device) {
	t.Helper()
	tier.Root(t)
	m := newMachine(t)
	m.roots = Roots{}
	file := filepath.Join(t.TempDir(), "disk")
	m.must(os.WriteFile(file, nil, 0o600))
	m.must(os.Truncate(file, size))
	path := strings.TrimSpace(m.run("losetup", "--find", "--show", "--partscan", file))
	t.Cleanup(func() { m.run("losetup", "-d", path) })
	t.Cleanup(func() { m.run("sh", "-c", `partx -d "$0" || true`, path) }) // it may have none
	return m, Device{Name: filepath.Base(path), Path: path, Kind: Disk, Size: size, Sector: 512}
}

// TestLoopDevice does all of it with the real kernel: table, partition, node,
// file system, mount, growth.
func TestLoopDevice(t *testing.T) {
	m, d := loopDisk(t, diskSize)
	u, err := Prepare(t.Context(), Choice{Action: Partition, Disk: d}, Tools{}, nil)
	if err != nil || !u.Fresh || !strings.HasPrefix(u.Device, d.Path+"p") {
		t.Fatalf("Prepare = %+v, %v; want a partition of %s", u, err, d.Path)
	}
	dir := t.TempDir()
	m.must(unix.Mount(u.Device, dir, "ext4", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	if f, err := openExclusive(u.Device); err == nil {
		_ = f.Close()
		t.Error("a mounted device was opened as one that nothing uses")
	}
	if n, err := (Swap{Size: "4M"}).Make(dir); n != 4<<20 || err != nil {
		t.Errorf("Make swap = %d, %v", n, err)
	}
	growReal(t, m, d, u, dir)
	_ = unix.Unmount(dir, 0)
	if out := m.run("e2fsck", "-f", "-n", u.Device); !strings.Contains(out, "UROOT") {
		t.Errorf("e2fsck: %s", out)
	}
	part := Device{Name: filepath.Base(u.Device), Kind: Part, Parent: d.Name, Partition: 1, Start: mib, Path: u.Device}
	part.Size, err = deviceSize(u.Device)
	m.must(err)
	part.Content.UUID, part.Content.Label = u.UUID, label
	d.Size += 512 * mib
	again, err := Prepare(t.Context(), Choice{Action: Reuse, Disk: d, Device: part}, Tools{}, nil)
	if err != nil || again.Fresh || again.UUID != u.UUID {
		t.Errorf("Prepare again = %+v, %v; want %s", again, err, u.UUID)
	}
}

func growReal(t *testing.T, m *machine, d Device, u UROOT, dir string) {
	t.Helper()
	backing := strings.TrimSpace(m.run("losetup", "-n", "-O", "BACK-FILE", d.Path))
	m.must(os.Truncate(backing, d.Size+512*mib))
	m.run("losetup", "-c", d.Path)
	flag := filepath.Join(dir, ResizeFlag)
	m.must(errors.Join(os.Mkdir(filepath.Dir(flag), 0o700), os.WriteFile(flag, nil, 0o600)))
	grown, err := ResizeIfAsked(t.Context(), dir, u.Device, Tools{}, nil)
	if grown.From == 0 || grown.To != grown.From+512*mib {
		t.Fatalf("ResizeIfAsked = %+v, %v; want 512 MiB more than %d", grown, err, u.Size)
	}
	if err != nil && strings.Contains(err.Error(), "Permission denied to resize") {
		// Some containers give root everything but the right to resize what is
		// mounted. The partition grew, the rest has to do without the mount.
		m.must(unix.Unmount(dir, 0))
		_, err = Resize(t.Context(), u.Device, Tools{}, nil)
		m.must(err)
		m.must(unix.Mount(u.Device, dir, "ext4", 0, ""))
	} else if _, statErr := os.Stat(flag); err != nil || !errors.Is(statErr, os.ErrNotExist) {
		t.Errorf("ResizeIfAsked = %v; flag: %v, want none", err, statErr)
	}
	var st unix.Statfs_t
	m.must(unix.Statfs(dir, &st))
	if total := int64(st.Blocks) * st.Bsize; total < grown.To*9/10 {
		t.Errorf("the file system has %d bytes, want nearly %d", total, grown.To)
	}
}

// TestLoopOfPiece is the way out for a kernel without any partitions.
func TestLoopOfPiece(t *testing.T) {
	m, d := loopDisk(t, 64*mib)
	part := Device{Kind: Part, Parent: d.Name, Partition: 1, Start: 8 * mib, Size: 16 * mib, Sector: 512}
	path, err := linux{}.loop(d, part)
	m.must(err)
	t.Cleanup(func() { m.run("losetup", "-d", path) })
	if size, err := deviceSize(path); size != part.Size || err != nil {
		t.Errorf("the loop device has %d bytes, %v; want %d", size, err, part.Size)
	}
	m.write(path, 0, []byte("here"))
	m.run("blockdev", "--flushbufs", path)
	f, err := os.Open(d.Path)
	m.must(err)
	got := make([]byte, 4)
	_, err = f.ReadAt(got, 8*mib)
	if m.must(errors.Join(err, f.Close())); string(got) != "here" {
		t.Errorf("the disk holds %q at 8 MiB", got)
	}
}

func deviceSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	n, err := f.Seek(0, 2)
	return n, errors.Join(err, f.Close())
}

// TestScanHere looks at the machine the test runs on.
func TestScanHere(t *testing.T) {
	tier.Root(t)
	devices, err := Scan(t.Context(), Roots{})
	if err != nil || len(devices) == 0 {
		t.Fatalf("Scan = %d devices, %v", len(devices), err)
	}
	if c, err := Choose(devices, Preferences{UseBootHD: true, UseEphemeral: true}); err == nil {
		t.Errorf("Choose would take %s of this machine", c.Disk.Path)
	}
}
