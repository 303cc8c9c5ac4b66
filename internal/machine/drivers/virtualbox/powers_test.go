package virtualbox_test

import (
	"bytes"
	"errors"
	"image/png"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/tier"
)

// TestDiskImages makes two machines of one image, whose UUID a disk of the
// user's has as well.
func TestDiskImages(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	for _, format := range []string{"vdi", "vmdk", "vpc", "raw"} {
		f := newFake(t, fakevbox.Config{})
		id := uuid.NewString()
		users := filepath.Join(t.TempDir(), "users.vdi")
		f.must("making a disk", fakevbox.WriteDisk(users, id, 8))
		f.vbox("createvm", "--name", "users", "--ostype", "Linux26_64", "--basefolder", t.TempDir(), "--register")
		f.vbox("storagectl", "users", "--name", "SATA", "--add", "sata")
		f.vbox("storageattach", "users", "--storagectl", "SATA", "--port", "0", "--device", "0", "--type", "hdd", "--medium", users)
		ids := map[string]bool{id: true}
		for range 2 {
			i := f.create(func(s *machine.Spec) {
				s.Image.Format, s.DiskMiB = format, 100
				if format == "raw" {
					f.must("making an image", os.WriteFile(s.ImagePath(), make([]byte, 1<<20), 0o600))
					return
				}
				f.must("making an image", fakevbox.WriteDisk(s.ImagePath(), id, 8))
			})
			in := f.info(i.Spec.ID)
			if in["SATA-0-0"] != i.Spec.Path("disk.vdi") || in["boot1"] != "disk" || in["IDE-0-0"] != "none" {
				t.Errorf("%s: SATA 0:0 %q, boot1 %q", format, in["SATA-0-0"], in["boot1"])
			}
			own, size, err := fakevbox.ReadDisk(i.Spec.Path("disk.vdi"))
			if err != nil || ids[own] || size != 100 {
				t.Errorf("%s: the copy has UUID %q and %d MiB, %v; want one of its own and 100", format, own, size, err)
			}
			ids[own] = true
			if format != "raw" {
				if was, _, err := fakevbox.ReadDisk(i.Spec.ImagePath()); was != id || err != nil {
					t.Errorf("%s: the image was changed: %q, %v", format, was, err)
				}
			}
			f.must("Start", f.Start(t.Context(), i))
		}
	}
}

// TestForeignDisk sees that a disk the user put into the machine survives it.
func TestForeignDisk(t *testing.T) {
	t.Parallel()
	for _, snapshot := range []bool{false, true} {
		f := newFake(t, fakevbox.Config{})
		i := f.create(nil)
		foreign := filepath.Join(t.TempDir(), "foreign.vdi")
		f.vbox("createmedium", "disk", "--filename", foreign, "--size", "8", "--format", "VDI")
		f.vbox("storageattach", i.Spec.ID, "--storagectl", "SATA", "--port", "3", "--device", "0", "--type", "hdd", "--medium", foreign)
		if snapshot {
			f.must("Snapshot", f.Snapshot(t.Context(), i, "one"))
		}
		f.must("Start", f.Start(t.Context(), i))
		f.must("Destroy", f.Destroy(t.Context(), i))
		if _, err := os.Stat(foreign); err != nil {
			t.Errorf("with snapshot %v, the user's disk is gone: %v", snapshot, err)
		}
		f.nothing(i.Spec)
		for _, line := range fakevbox.Commands(f.dir) {
			if strings.Contains(line, "--delete") {
				t.Errorf("it said %q", line)
			}
		}
	}
}

// TestInaccessible meets a machine whose settings are on a disk that is away.
func TestInaccessible(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	i := f.create(nil)
	path := i.Spec.Path("vbox/m/m.vbox")
	f.must("taking the settings away", os.Rename(path, path+".away"))
	if state, err := f.State(t.Context(), i); err == nil || !strings.Contains(err.Error(), "inaccessible") {
		t.Errorf("State = %q, %v; want that it is inaccessible", state, err)
	}
	if err := f.Start(t.Context(), i); err == nil {
		t.Error("Start of an inaccessible machine = nil")
	}
	f.must("bringing them back", os.Rename(path+".away", path))
	f.state(i, machine.Stopped)
	f.must("taking the settings away", os.Remove(path))
	f.must("Destroy", f.Destroy(t.Context(), i))
	f.nothing(i.Spec)
}

// TestDamagedRecord destroys a machine of which only the folder is known.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	i := f.create(nil)
	f.must("Start", f.Start(t.Context(), i))
	f.must("Destroy", f.Destroy(t.Context(), machine.Instance{Spec: machine.Spec{Name: "m", Dir: i.Spec.Dir}}))
	f.nothing(i.Spec)
}

func TestSnapshots(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	f := newFake(t, fakevbox.Config{Race: 2})
	i := f.create(nil)
	f.must("Snapshot", f.Snapshot(t.Context(), i, "off"))
	f.must("Start", f.Start(t.Context(), i))
	f.must("Snapshot", f.Snapshot(t.Context(), i, "on"))
	f.state(i, machine.Running)
	if err := f.Snapshot(t.Context(), i, "on"); !fail.Is(err, fail.Conflict) {
		t.Errorf("Snapshot of a name that is there = %v, want class Conflict", err)
	}
	if err := f.Snapshot(t.Context(), i, "--live"); !fail.Is(err, fail.Usage) {
		t.Errorf("Snapshot(--live) = %v, want class Usage", err)
	}
	if err := f.Revert(t.Context(), i, "off"); !fail.Is(err, fail.Conflict) {
		t.Errorf("Revert of a running machine = %v, want class Conflict", err)
	}
	names := func() (got []string) {
		all, err := f.Snapshots(t.Context(), i)
		f.must("Snapshots", err)
		for _, s := range all {
			got = append(got, s.Name+map[bool]string{true: " with memory"}[s.Memory])
		}
		return got
	}
	if diff := cmp.Diff([]string{"off", "on with memory"}, names()); diff != "" {
		t.Errorf("Snapshots (-want +got):\n%s", diff)
	}
	f.must("Stop", f.Stop(t.Context(), i, machine.PowerOff))
	f.must("Revert", f.Revert(t.Context(), i, "on"))
	f.state(i, machine.Saved)
	f.must("Start", f.Start(t.Context(), i))
	f.must("Stop", f.Stop(t.Context(), i, machine.PowerOff))
	f.must("Revert", f.Revert(t.Context(), i, "off"))
	f.state(i, machine.Stopped)
	f.must("DropSnapshot", f.DropSnapshot(t.Context(), i, "off"))
	if in := f.vbox("snapshot", i.Spec.ID, "list"); !strings.Contains(in, "mica-dropped-") { // "on" follows it
		t.Errorf("snapshots are %s: what makes this a test has gone", in)
	}
	for _, err := range []error{f.DropSnapshot(t.Context(), i, "off"), f.Revert(t.Context(), i, "off")} {
		if !fail.Is(err, fail.NotFound) {
			t.Errorf("of a snapshot that is gone: %v, want class NotFound", err)
		}
	}
	if diff := cmp.Diff([]string{"on with memory"}, names()); diff != "" {
		t.Errorf("Snapshots (-want +got):\n%s", diff)
	}
	f.must("Revert", f.Revert(t.Context(), i, "on"))
	if in := f.vbox("snapshot", i.Spec.ID, "list"); strings.Contains(in, "mica-dropped-") {
		t.Errorf("snapshots are %s: the dropped one could have been deleted", in)
	}
	f.must("Start", f.Start(t.Context(), i)) // its disk is a difference now
}

func TestScreenshot(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	i := f.create(nil)
	var picture bytes.Buffer
	if err := f.Screenshot(t.Context(), i, &picture); !fail.Is(err, fail.Conflict) {
		t.Errorf("Screenshot of a stopped machine = %v, want class Conflict", err)
	}
	f.must("Start", f.Start(t.Context(), i))
	f.must("Screenshot", f.Screenshot(t.Context(), i, &picture))
	if _, err := png.Decode(&picture); err != nil {
		t.Error(err)
	}
	if _, err := f.View(t.Context(), i); !fail.Is(err, fail.NotFound) {
		t.Errorf("View of a machine without display = %v, want class NotFound", err)
	}
	_, err := f.Create(t.Context(), f.order(func(s *machine.Spec) { s.Display = "vnc" }))
	if !fail.Is(err, fail.HostLacks) {
		t.Errorf("Create with a display that VirtualBox has not = %v, want class HostLacks", err)
	}
}

// ports are free ones of this computer.
func ports(t *testing.T, n int) []int {
	t.Helper()
	var all []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		all = append(all, l.Addr().(*net.TCPAddr).Port)
	}
	return all
}

func answers(port int) bool {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func TestForwards(t *testing.T) {
	tier.Full(t)
	p := ports(t, 5)
	f := newFake(t, fakevbox.Config{LosePorts: []int{p[4]}})
	i := f.create(func(s *machine.Spec) { s.Forwards = []machine.Forward{{Host: p[0], Guest: 22}} })
	f.vbox("modifyvm", i.Spec.ID, "--natpf1", "users,tcp,127.0.0.1,"+strconv.Itoa(p[3])+",,99")
	rules := func(want ...string) {
		t.Helper()
		in := f.info(i.Spec.ID)
		var got []string
		for n := 0; in["Forwarding("+strconv.Itoa(n)+")"] != ""; n++ {
			got = append(got, in["Forwarding("+strconv.Itoa(n)+")"])
		}
		want = append(want, "users,tcp,127.0.0.1,"+strconv.Itoa(p[3])+",,99")
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rules (-want +got):\n%s", diff)
		}
	}
	ssh := func(port int) string { return "guestapi,tcp,127.0.0.1," + strconv.Itoa(port) + ",,22" }
	web := "mica-" + strconv.Itoa(p[2]) + "-80,tcp,127.0.0.1," + strconv.Itoa(p[2]) + ",,80"
	f.must("SetForwards off", f.SetForwards(t.Context(), i, []machine.Forward{{Host: p[1], Guest: 22}}))
	rules(ssh(p[1]))
	i.Spec.Forwards = []machine.Forward{{Host: p[1], Guest: 22}}
	f.must("Start", f.Start(t.Context(), i))
	both := []machine.Forward{{Host: p[0], Guest: 22}, {Host: p[2], Guest: 80}}
	f.must("SetForwards live", f.SetForwards(t.Context(), i, both))
	rules(ssh(p[0]), web)
	if !answers(p[0]) || !answers(p[2]) || answers(p[1]) {
		t.Error("other ports answer than were asked for")
	}
	if err := f.SetForwards(t.Context(), i, []machine.Forward{{Host: p[1], Guest: 80}, {Host: p[4], Guest: 22}}); err == nil {
		t.Error("SetForwards to a port that VirtualBox cannot have = nil")
	}
	rules(ssh(p[0]), web)
	if !answers(p[0]) || !answers(p[2]) || answers(p[1]) {
		t.Error("the ports of before do not answer")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.must("listening", err)
	defer l.Close()
	var taken *machine.PortTaken
	if err := f.SetForwards(t.Context(), i, []machine.Forward{{Host: l.Addr().(*net.TCPAddr).Port, Guest: 22}}); !errors.As(err, &taken) {
		t.Errorf("SetForwards to a port that is held = %v, want PortTaken", err)
	}
	rules(ssh(p[0]), web)

	// A machine that goes on takes the ports of its record, also where
	// VirtualBox refuses them to saved machines.
	for _, frozen := range []bool{false, true} {
		i.Spec.Forwards = both
		f.must("SetForwards", f.SetForwards(t.Context(), i, both))
		f.must("Save", f.Save(t.Context(), i))
		f.configure(fakevbox.Config{FrozenNAT: frozen})
		i.Spec.Forwards = []machine.Forward{{Host: p[1], Guest: 22}}
		f.must("SetForwards of a saved machine", f.SetForwards(t.Context(), i, i.Spec.Forwards))
		f.must("Start", f.Start(t.Context(), i))
		rules(ssh(p[1]))
		if !answers(p[1]) || answers(p[0]) {
			t.Errorf("frozen %v: the ports of before answer", frozen)
		}
	}
}

func TestHostOnly(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	for range 2 {
		i := f.create(func(s *machine.Spec) { s.Network = "hostonly" })
		if in := f.info(i.Spec.ID); in["nic1"] != "nat" || in["nic2"] != "hostonly" || in["hostonlyadapter2"] != "vboxnet0" || in["nictype2"] != "virtio" {
			t.Errorf("cards %q, %q to %q (%s)", in["nic1"], in["nic2"], in["hostonlyadapter2"], in["nictype2"])
		}
	}
	made := 0
	for _, line := range fakevbox.Commands(f.dir) {
		if strings.HasPrefix(line, "hostonlyif create") || strings.HasPrefix(line, "dhcpserver add") {
			made++
		}
	}
	if made != 2 {
		t.Errorf("%d networks and servers were made for two machines, want one of each", made)
	}
}

// TestMends sees that a start puts right what was changed behind its back, and
// makes no second disk.
func TestMends(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	share := t.TempDir()
	i := f.create(nil)
	f.vbox("modifyvm", i.Spec.ID, "--memory", "1024", "--boot1", "disk")
	f.vbox("storageattach", i.Spec.ID, "--storagectl", "IDE", "--port", "0", "--device", "0", "--medium", "none")
	i.Spec.CPUs, i.Spec.ExecutionCap = 2, 30
	i.Spec.Shares = []machine.Share{{Name: "s", Path: share}}
	for range 2 {
		f.must("Start", f.Start(t.Context(), i))
		f.must("Stop", f.Stop(t.Context(), i, machine.PowerOff))
	}
	in := f.info(i.Spec.ID)
	want := map[string]string{
		"memory": "64", "boot1": "dvd", "IDE-0-0": i.Spec.Path("image.iso"), "cpus": "2", "cpuexecutioncap": "30",
		"SharedFolderNameMachineMapping1": "s", "SATA-0-0": i.Spec.Path("disk.vdi"), "SATA-2-0": "none",
	}
	got := map[string]string{}
	for key := range want {
		got[key] = in[key]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}
	disks := 0
	for _, line := range fakevbox.Commands(f.dir) {
		if strings.HasPrefix(line, "createmedium") {
			disks++
		}
	}
	if disks != 1 {
		t.Errorf("%d disks were made, want one", disks)
	}
	f.must("taking the disk away", os.Rename(i.Spec.Path("disk.vdi"), i.Spec.Path("disk.away")))
	if err := f.Start(t.Context(), i); !fail.Is(err, fail.NotFound) {
		t.Errorf("Start without its disk = %v, want class NotFound", err)
	}
	f.must("bringing it back", os.Rename(i.Spec.Path("disk.away"), i.Spec.Path("disk.vdi")))
}

func TestAdditions(t *testing.T) {
	t.Parallel()
	iso := filepath.Join(t.TempDir(), "VBoxGuestAdditions.iso")
	if err := os.WriteFile(iso, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, fakevbox.Config{Additions: iso})
	known := fakevbox.Known(f.dir)
	i := f.create(func(s *machine.Spec) { s.Options = map[string]string{"additions": "on"} })
	if in := f.info(i.Spec.ID); in["SATA-2-0"] != iso {
		t.Errorf("SATA 2:0 = %q, want the additions", in["SATA-2-0"])
	}
	f.must("Destroy", f.Destroy(t.Context(), i))
	if _, err := os.Stat(iso); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(known, fakevbox.Known(f.dir)); diff != "" {
		t.Errorf("VirtualBox's machines and media (-before +after):\n%s", diff)
	}
	f.configure(fakevbox.Config{})
	s := f.order(func(s *machine.Spec) { s.Options = map[string]string{"additions": "on"} })
	if _, err := f.Create(t.Context(), s); !fail.Is(err, fail.HostLacks) {
		t.Errorf("Create = %v, want class HostLacks", err)
	}
	f.nothing(s)
}

// TestMoved renames a machine whose folder has been moved, after commands that
// were killed on the way.
func TestMoved(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	for _, way := range []string{"whole", "not in the list", "file written"} {
		t.Run(way, func(t *testing.T) {
			f := newFake(t, fakevbox.Config{})
			i := f.create(nil)
			f.must("Snapshot", f.Snapshot(t.Context(), i, "one"))
			to := i.Spec
			to.Name, to.Dir, to.CPUs = "other", filepath.Join(t.TempDir(), "moved, with more"), 2
			f.must("moving the folder", os.Rename(i.Spec.Dir, to.Dir))
			i.Spec.Dir = to.Dir
			if way != "whole" {
				f.vbox("unregistervm", i.Spec.ID)
			}
			f.state(i, machine.Stopped)
			for range 2 {
				var err error
				i, err = f.Change(t.Context(), i, to)
				f.must("Change", err)
				if way == "file written" {
					f.vbox("unregistervm", i.Spec.ID)
					f.state(i, machine.Stopped)
				}
			}
			f.must("Start", f.Start(t.Context(), i))
			in := f.info(i.Spec.ID)
			want := map[string]string{
				"name": "other", "cpus": "2", "CfgFile": filepath.Join(to.Dir, "vbox/other/other.vbox"),
				"IDE-0-0": filepath.Join(to.Dir, "image.iso"), "uartmode1": "file," + filepath.Join(to.Dir, "serial.log"),
			}
			got := map[string]string{}
			for key := range want {
				got[key] = in[key]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the machine (-want +got):\n%s", diff)
			}
			if media := f.vbox("list", "hdds") + f.vbox("list", "dvds"); strings.Contains(media, "/002/disk.vdi") {
				t.Errorf("media where the folder was:\n%s", media)
			}
			f.must("Destroy", f.Destroy(t.Context(), i))
			f.nothing(i.Spec)
		})
	}
}
