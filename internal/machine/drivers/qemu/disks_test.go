package qemu_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

// userDisk makes a disk image that is not Mica's.
func userDisk(t *testing.T, format string) machine.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), `a disk, "mine"`)
	if out, err := exec.CommandContext(t.Context(), tier.Tool(t, "qemu-img"), "create", "-f", format, path, "8M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return machine.Disk{Path: path, Format: format}
}

// order is a machine that boots the counting guest.
func order(t *testing.T, disks ...machine.Disk) machine.Spec {
	t.Helper()
	s := machine.Spec{
		Name: "m", ID: "5f3c9a52-1111-4222-8333-444455556666", MemoryMiB: 64, CPUs: 1, DiskMiB: 1024, Accel: "tcg", Dir: t.TempDir(), Disks: disks,
	}
	if err := os.WriteFile(s.ImagePath(), drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMoreDisks has the real QEMU show its devices: the data disk first, the
// others in order, on the bus as the guest will find them.
func TestMoreDisks(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	d := qemu.New(machine.Env{})
	mine := []machine.Disk{userDisk(t, "qcow2"), userDisk(t, "raw"), userDisk(t, "vmdk"), userDisk(t, "vdi"), userDisk(t, "vpc")}
	i := create(t, d, order(t, append([]machine.Disk{{MiB: 2048}}, mine...)...))
	must(t, "Start", d.Start(t.Context(), i))
	says(t, d, i, "hello", "#0002")
	var slots []int
	for _, device := range qemu.VirtioDisks(t.Context(), t, i) {
		slots = append(slots, device.Slot)
		want := "mica-disk"
		if n := len(slots) - 1; n > 0 {
			want += string(rune('0' + n))
		}
		if device.Serial != want {
			t.Errorf("disk number %d on the bus has serial number %q, want %q", len(slots), device.Serial, want)
		}
	}
	if len(slots) != len(i.Spec.Disks)+1 || !slices.IsSorted(slots) {
		t.Errorf("the disks are in slots %v, want %d in ascending ones", slots, len(i.Spec.Disks)+1)
	}
	if err := d.(machine.Saver).Save(t.Context(), i); !fail.Is(err, fail.Conflict) || !strings.Contains(err.Error(), "vmdk") || len(fail.Hints(err)) == 0 {
		t.Errorf("Save with disks that QEMU does not let go = %v, hints %q; want class Conflict and a hint", err, fail.Hints(err))
	}
	if got := state(t, d, i); got != machine.Running {
		t.Errorf("State = %q, want running", got)
	}
	must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))
	must(t, "Destroy", d.Destroy(t.Context(), i))
	if left, err := os.ReadDir(i.Spec.Dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, disk := range mine {
		if out, err := exec.CommandContext(t.Context(), "qemu-img", "info", "-f", disk.Format, disk.Path).CombinedOutput(); err != nil {
			t.Errorf("the user's %s disk: %v: %s", disk.Format, err, out)
		}
	}
}

// TestSaveWithDisks saves and goes on with the real QEMU, whose disks nobody
// touches meanwhile.
func TestSaveWithDisks(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	d := qemu.New(machine.Env{})
	i := create(t, d, order(t, machine.Disk{MiB: 10}, userDisk(t, "qcow2"), userDisk(t, "raw")))
	must(t, "Start", d.Start(t.Context(), i))
	says(t, d, i, "#0002")
	for range 2 {
		must(t, "Save", d.(machine.Saver).Save(t.Context(), i))
		must(t, "Start from saved", d.Start(t.Context(), i))
	}
	if log := says(t, d, i); strings.Count(log, "hello") != 1 {
		t.Errorf("the guest began anew: %q", log)
	}
}

// TestOnlyTheDataDiskBoots sees that another disk that looks bootable is not
// booted from, even if nothing else can be.
func TestOnlyTheDataDiskBoots(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	d := qemu.New(machine.Env{})
	disk := userDisk(t, "raw")
	f, err := os.OpenFile(disk.Path, os.O_WRONLY, 0)
	must(t, "opening", err)
	_, err = f.WriteAt(drivertest.DataSector(), 0)
	must(t, "writing", err)
	must(t, "closing", f.Close())
	s := order(t, disk)
	s.Display = machine.DisplayVNC // the BIOS tells the screen that it found nothing
	must(t, "emptying the image", os.WriteFile(s.ImagePath(), make([]byte, 1<<20), 0o600))
	i := create(t, d, s)
	must(t, "Start", d.Start(t.Context(), i))
	for until := time.Now().Add(patience); !strings.Contains(qemu.Screen(t.Context(), t, i), "No bootable device"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the screen shows %q", qemu.Screen(t.Context(), t, i))
		}
	}
	if log := says(t, d, i); len(log) != 0 {
		t.Errorf("the guest says %q: the wrong disk was booted", log)
	}
}

// virtualSize asks qemu-img how large a disk is, and whether it is readable for
// others.
func virtualSize(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tier.Tool(t, "qemu-img"), "info", "--output=json", "-f", "qcow2", path).Output()
	must(t, "qemu-img info", err)
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	must(t, "reading", json.Unmarshal(out, &info))
	if mode, err := os.Stat(path); err != nil || mode.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, %v; want 600", path, mode.Mode(), err)
	}
	return info.Size
}

// mark writes into the unused end of an image's first cluster, as a stand-in for
// what a guest would write.
func mark(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, "opening", err)
	_, err = f.WriteAt([]byte(text), 60<<10)
	must(t, "writing", err)
	must(t, "closing", f.Close())
}

func marked(t *testing.T, path string) string {
	t.Helper()
	data := make([]byte, 3)
	f, err := os.Open(path)
	must(t, "opening", err)
	defer f.Close()
	_, err = f.ReadAt(data, 60<<10)
	must(t, "reading", err)
	return string(data)
}

// TestDisksOfMica follows disks through snapshots, a clone and the end.
func TestDisksOfMica(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	tier.Tool(t, "qemu-img")
	i := create(t, d, order(t, machine.Disk{MiB: 10}, machine.Disk{MiB: 3 << 20}))
	for n, want := range []int64{10 << 20, 3 << 40} {
		if got := virtualSize(t, i.Spec.Path([]string{"disk1.qcow2", "disk2.qcow2"}[n])); got != want {
			t.Errorf("disk %d has %d bytes, want %d", n+1, got, want)
		}
	}
	p := d.(machine.Snapshotter)
	for _, live := range []bool{false, true} {
		mark(t, i.Spec.Path("disk2.qcow2"), "old")
		if live {
			must(t, "Start", d.Start(t.Context(), i))
		}
		must(t, "Snapshot", p.Snapshot(t.Context(), i, "s"))
		must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))
		mark(t, i.Spec.Path("disk2.qcow2"), "new")
		must(t, "Revert", p.Revert(t.Context(), i, "s"))
		if got := marked(t, i.Spec.Path("disk2.qcow2")); got != "old" {
			t.Errorf("after Revert the disk has %q, want the old content", got)
		}
		must(t, "DropSnapshot", p.DropSnapshot(t.Context(), i, "s"))
		must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))
	}
	s := order(t, i.Spec.Disks...)
	s.ID = "5f3c9a52-1111-4222-8333-444455556667"
	clone, err := d.(machine.Cloner).Clone(t.Context(), i, s)
	must(t, "Clone", err)
	if got := marked(t, s.Path("disk2.qcow2")); got != "old" {
		t.Errorf("the clone's disk has %q", got)
	}
	clone.Spec.Dir = s.Dir
	must(t, "Start of the clone", d.Start(t.Context(), clone))
	must(t, "Destroy", d.Destroy(t.Context(), clone))
	if left, err := os.ReadDir(s.Dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestRevertCutShort finishes a revert that was killed after each of its steps.
func TestRevertCutShort(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	tier.Tool(t, "qemu-img")
	moves := [][2]string{{"disk.part", "disk.raw"}, {"disk1.part", "disk1.qcow2"}}
	for done := range len(moves) + 1 {
		s := order(t, machine.Disk{MiB: 10})
		s.DiskMiB = 64
		i := create(t, d, s)
		for n, move := range moves {
			data, err := os.ReadFile(i.Spec.Path(move[1]))
			must(t, "reading", err)
			must(t, "writing", os.WriteFile(i.Spec.Path(move[0]), data[:min(len(data), 1<<20)], 0o600))
			mark(t, i.Spec.Path(move[0]), "new")
			if n < done {
				must(t, "renaming", os.Rename(i.Spec.Path(move[0]), i.Spec.Path(move[1])))
			}
		}
		must(t, "writing", os.WriteFile(i.Spec.Path("revert.json"), []byte(`{"time":"2026-01-02T03:04:05Z","memory":false}`), 0o600))
		must(t, "Start", d.Start(t.Context(), i))
		must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))
		for _, move := range moves {
			if got := marked(t, i.Spec.Path(move[1])); got != "new" {
				t.Errorf("killed after %d steps: %s has %q, want the copy", done, move[1], got)
			}
			if _, err := os.Stat(i.Spec.Path(move[0])); err == nil {
				t.Errorf("killed after %d steps: %s is still there", done, move[0])
			}
		}
	}
}

// TestUsersDisk sees what becomes of a disk that is not Mica's.
func TestUsersDisk(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	disk := userDisk(t, "qcow2")
	i := create(t, d, order(t, machine.Disk{MiB: 1}, disk))
	other := order(t, disk)
	other.ID = "5f3c9a52-1111-4222-8333-444455556667"
	j := create(t, d, other)

	must(t, "Start", d.Start(t.Context(), i))
	err := d.Start(t.Context(), j)
	if !fail.Is(err, fail.Conflict) || !strings.Contains(err.Error(), disk.Path) || len(fail.Hints(err)) == 0 {
		t.Errorf("Start of a second machine = %v, hints %q; want class Conflict, the disk and a hint", err, fail.Hints(err))
	}
	if got := state(t, d, j); got != machine.Stopped {
		t.Errorf("State = %q, want stopped", got)
	}

	// A saved machine lets go of its disks. One that was written to since is no
	// longer what the memory remembers.
	must(t, "Save", d.(machine.Saver).Save(t.Context(), i))
	must(t, "Start from saved", d.Start(t.Context(), i))
	must(t, "Save", d.(machine.Saver).Save(t.Context(), i))
	mark(t, disk.Path, "new")
	err = d.Start(t.Context(), i)
	if !fail.Is(err, fail.Conflict) || !strings.Contains(err.Error(), disk.Path) || !strings.Contains(strings.Join(fail.Hints(err), " "), "--power-off m") {
		t.Errorf("Start with a disk that has changed = %v, hints %q; want class Conflict, the disk and the way out", err, fail.Hints(err))
	}
	if got := state(t, d, i); got != machine.Saved {
		t.Errorf("State = %q, want saved", got)
	}
	must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))
	must(t, "Start after the memory was dropped", d.Start(t.Context(), i))
	must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))

	// Clone gets the Spec without the user's disks.
	s := order(t, machine.Disk{MiB: 1})
	s.ID = "5f3c9a52-1111-4222-8333-444455556668"
	mark(t, i.Spec.Path("disk1.qcow2"), "mca")
	clone, err := d.(machine.Cloner).Clone(t.Context(), i, s)
	must(t, "Clone", err)
	if got := marked(t, s.Path("disk1.qcow2")); got != "mca" {
		t.Errorf("the clone's disk has %q", got)
	}
	must(t, "Destroy of the clone", d.Destroy(t.Context(), clone))

	for _, one := range []machine.Instance{i, j} {
		must(t, "Destroy", d.Destroy(t.Context(), one))
	}
	if got := marked(t, disk.Path); got != "new" {
		t.Errorf("the user's disk has %q, want it untouched", got)
	}
}

// TestUsersDiskRefused sees that images which name other files, and such as are
// not there, are used neither at first nor later.
func TestUsersDiskRefused(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	disk := userDisk(t, "qcow2")
	i := create(t, d, order(t, disk))
	aside := disk.Path + ".aside"
	must(t, "renaming", os.Rename(disk.Path, aside))
	if err := d.Start(t.Context(), i); !fail.Is(err, fail.NotFound) || len(fail.Hints(err)) == 0 {
		t.Errorf("Start without the disk = %v, hints %q; want class NotFound and a hint", err, fail.Hints(err))
	}
	// The same name, but another image behind it.
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", disk.Path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := d.Start(t.Context(), i); !fail.Is(err, fail.Unverified) {
		t.Errorf("Start with an image based on another = %v, want class Unverified", err)
	}
	if _, err := d.Create(t.Context(), order(t, disk)); !fail.Is(err, fail.Unverified) {
		t.Errorf("Create with an image based on another = %v, want class Unverified", err)
	}
	must(t, "removing", os.Remove(disk.Path))
	must(t, "renaming", os.Rename(aside, disk.Path))
	must(t, "Start", d.Start(t.Context(), i))
}

// TestSmallDataDisk sees that no other disk can become the guest's own.
func TestSmallDataDisk(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	for _, tc := range []struct {
		data, more int64
		want       bool
	}{{1024, 2048, true}, {512, 2048, false}, {512, 512, true}} {
		s := order(t, machine.Disk{MiB: tc.more})
		s.DiskMiB = tc.data
		if err := d.(machine.Checker).Check(t.Context(), s); (err == nil) != tc.want || err != nil && !fail.Is(err, fail.Usage) {
			t.Errorf("Check of a data disk of %d MiB beside one of %d = %v, want it allowed: %v", tc.data, tc.more, err, tc.want)
		}
	}
}

// TestKilledCreate clears what a command left that was killed while it made a
// machine: of that only the Spec is known.
func TestKilledCreate(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	s := order(t, machine.Disk{MiB: 10}, machine.Disk{Path: filepath.Join(t.TempDir(), "mine"), Format: "raw"}, machine.Disk{MiB: 10})
	s.Firmware = machine.UEFI
	must(t, "writing", os.WriteFile(s.Disks[1].Path, []byte("the user's"), 0o600))
	left := []string{"config.iso", "firmware.json", "vars.fd", "disk1.qcow2", "disk3.qcow2", "disk.raw"}
	for made := range len(left) {
		for _, name := range left[:made+1] {
			must(t, "writing", os.WriteFile(s.Path(name), []byte("half"), 0o600))
		}
		i := machine.Instance{Spec: s}
		if want, got := made == len(left)-1, state(t, d, i); (got != machine.Absent) != want {
			t.Errorf("with %v: State = %q", left[:made+1], got)
		}
		must(t, "Destroy", d.Destroy(t.Context(), i))
		if rest, err := os.ReadDir(s.Dir); err != nil || len(rest) != 1 {
			t.Errorf("with %v: left: %v, %v", left[:made+1], rest, err)
		}
	}
	if data, err := os.ReadFile(s.Disks[1].Path); err != nil || string(data) != "the user's" {
		t.Errorf("the user's disk holds %q, %v", data, err)
	}
}

// TestReadOnlyDiskIsShared runs two machines with the same disk.
func TestReadOnlyDiskIsShared(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	d := qemu.New(machine.Env{})
	shared := userDisk(t, "raw")
	shared.ReadOnly = true
	for range 2 {
		i := create(t, d, order(t, shared))
		must(t, "Start", d.Start(t.Context(), i))
		says(t, d, i, "hello")
	}
}
