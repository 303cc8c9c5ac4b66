package virtualbox_test

import (
	"bytes"
	"fmt"
	"image/png"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/run"
)

// chosen skips the test unless MICA_TEST has the word.
func chosen(t *testing.T, word string) {
	t.Helper()
	if !slices.Contains(strings.Split(os.Getenv("MICA_TEST"), ","), word) {
		t.Skipf("runs with MICA_TEST=%s", word)
	}
}

// TestRealMore is what a real VirtualBox is tried with now and then: 'make
// test-vbox'.
func TestRealMore(t *testing.T) {
	chosen(t, "vbox")
	r := enter(t)
	t.Run("disk images", r.diskImages)
	t.Run("foreign disk", r.foreignDisk)
	t.Run("inaccessible", r.inaccessible)
	t.Run("appliance", r.appliance)
	t.Run("killed", r.killed)
	t.Run("powers", r.powers)
	t.Run("conformance", func(t *testing.T) {
		drivertest.Run(t, drivertest.Case{
			New:      func(*testing.T) machine.Driver { return adapted{r.driver(nil)} },
			Patience: 90 * time.Second, AtOnce: 2,
		})
	})
	r.nothing(t)
}

// diskImages boots nothing: it sees that each format becomes the machine's own
// disk, twice from one image.
func (r *real) diskImages(t *testing.T) {
	d := r.driver(nil)
	dir := t.TempDir()
	raw := filepath.Join(dir, "image.raw")
	sector := append(drivertest.DataSector(), make([]byte, 1<<20)...)
	if err := os.WriteFile(raw, sector[:1<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	for format, name := range map[string]string{"vdi": "VDI", "vmdk": "VMDK", "vpc": "VHD", "raw": ""} {
		t.Run(format, func(t *testing.T) {
			image := raw
			if name != "" {
				image = filepath.Join(dir, "image."+format)
				r.vbox("convertfromraw", raw, image, "--format", name)
			}
			data, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				i := r.make(t, d, func(s *machine.Spec) {
					s.Image.Format = format
					if err := os.WriteFile(s.ImagePath(), data, 0o400); err != nil {
						t.Fatal(err)
					}
				})
				in := virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
				if in["SATA-0-0"] != i.Spec.Path("disk.vdi") || in["boot1"] != "disk" || in["IDE-0-0"] != "none" {
					t.Errorf("SATA 0:0 %q, boot1 %q, IDE 0:0 %q; want the copy", in["SATA-0-0"], in["boot1"], in["IDE-0-0"])
				}
				if disk := r.vbox("showmediuminfo", "disk", i.Spec.Path("disk.vdi")); !strings.Contains(disk, "Capacity:       64 MBytes") {
					t.Errorf("the disk did not grow: %s", disk)
				}
				if after, err := os.ReadFile(i.Spec.ImagePath()); err != nil || !bytes.Equal(after, data) {
					t.Errorf("the image was changed (%v)", err)
				}
			}
		})
	}
}

// appliance makes two machines of one that VirtualBox itself has exported: its
// disk has a UUID inside that VirtualBox may know already.
func (r *real) appliance(t *testing.T) {
	d := r.driver(nil)
	i := r.make(t, d, func(s *machine.Spec) { s.CPUs, s.MemoryMiB = 2, 96 })
	path := filepath.Join(t.TempDir(), "box.ova")
	r.vbox("export", i.Spec.ID, "--output", path)
	a, err := ova.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	f := fleetIn(t.TempDir(), r.program, nil)
	for _, name := range []string{"one", "two"} {
		o := orderOf(name, "", t.TempDir())
		if err := o.Appliance(a, path); err != nil {
			t.Fatal(err)
		}
		o.Sizes(a, func(string) bool { return false })
		if _, err := f.Create(t.Context(), o); err != nil {
			t.Fatalf("importing %s: %v (hints %q)", name, err, fail.Hints(err))
		}
		m, err := f.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if s := m.Record.Instance.Spec; s.CPUs != 2 || s.MemoryMiB != 96 || s.DiskMiB != 64 || s.Image.Format != "vmdk" || m.State != machine.Stopped {
			t.Errorf("the machine is %s, and %+v; want the appliance's sizes", m.State, s)
		}
	}
	if _, err := f.Start(t.Context(), "two"); err != nil {
		t.Errorf("Start: %v", err)
	}
	for _, name := range []string{"one", "two"} {
		if err := f.Destroy(t.Context(), name, true); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
}

// killed kills some commands on the way; TestKilled does so at every step.
func (r *real) killed(t *testing.T) {
	known := func() []string {
		var all []string
		for _, kind := range []string{"vms", "hdds", "dvds"} {
			for line := range strings.Lines(r.vbox("list", kind)) {
				if kind == "vms" || strings.HasPrefix(line, "Location:") {
					all = append(all, kind+" "+strings.TrimSpace(line))
				}
			}
		}
		slices.Sort(all)
		return all
	}
	for _, one := range []struct {
		verb string
		at   int
	}{
		{"create", 3}, {"create", -7}, {"create", 13}, {"import", -9}, {"start", -4}, {"wake", -2}, {"power off", -3}, {"destroy", -3}, {"destroy", 6},
	} {
		t.Run(fmt.Sprintf("%s at %d", one.verb, one.at), func(t *testing.T) {
			w := killing{r.program, bootable(t, one.verb), run.Host{}, r.vbox, known}
			if !killed(t, w, one.verb, one.at) {
				t.Errorf("%s ended before it was killed", one.verb)
			}
		})
	}
}

// foreignDisk sees that disks of the user survive the machine they are in,
// snapshots or not.
func (r *real) foreignDisk(t *testing.T) {
	d := r.driver(nil)
	for _, snapshot := range []bool{false, true} {
		foreign := filepath.Join(t.TempDir(), "foreign.vdi")
		r.vbox("createmedium", "disk", "--filename", foreign, "--size", "8", "--format", "VDI")
		i := r.make(t, d, nil)
		r.vbox("storageattach", i.Spec.ID, "--storagectl", "SATA", "--port", "3", "--device", "0", "--type", "hdd", "--medium", foreign)
		if snapshot {
			if err := d.Snapshot(t.Context(), i, "one"); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Destroy(t.Context(), i); err != nil {
			t.Errorf("Destroy: %v", err)
		}
		if _, err := os.Stat(foreign); err != nil {
			t.Errorf("with snapshot %v, the user's disk is gone: %v", snapshot, err)
		}
		r.vbox("closemedium", "disk", foreign)
	}
}

// inaccessible sees that a machine whose settings are gone is named, and can be
// destroyed.
func (r *real) inaccessible(t *testing.T) {
	d := r.driver(nil)
	i := r.make(t, d, nil)
	if err := os.Remove(i.Spec.Path("vbox/real/real.vbox")); err != nil {
		t.Fatal(err)
	}
	// The service reads the file again when it is asked the next time.
	time.Sleep(6 * time.Second)
	state, err := d.State(t.Context(), i)
	t.Logf("State = %q, %v", state, err)
	if err := d.Destroy(t.Context(), i); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if state, err := d.State(t.Context(), i); state != machine.Absent || err != nil {
		t.Errorf("State = %q, %v; want absent", state, err)
	}
}

// powers tries what the suite does not.
func (r *real) powers(t *testing.T) {
	d := r.driver(nil)
	step := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v (hints %q)", name, err, fail.Hints(err))
		}
	}
	took := func(name string, do func() error) {
		t.Helper()
		began := time.Now()
		step(name, do())
		t.Logf("%s took %.1f s", name, time.Since(began).Seconds())
	}
	var i machine.Instance
	took("create", func() error { i = r.make(t, d, func(s *machine.Spec) { s.Display = "vnc" }); return nil })
	took("start", func() error { return d.Start(t.Context(), i) })
	took("describe", func() error {
		facts, err := d.Describe(t.Context(), i)
		if facts["virtualbox_state"] != "running" || facts["session"] == "" {
			t.Errorf("Describe = %v", facts)
		}
		return err
	})
	took("screenshot", func() error {
		var picture bytes.Buffer
		if err := d.Screenshot(t.Context(), i, &picture); err != nil {
			return err
		}
		_, err := png.Decode(&picture)
		return err
	})
	view, err := d.View(t.Context(), i)
	t.Logf("View = %q, %v", view, err)
	if address, ok := strings.CutPrefix(view, "vnc://"); ok {
		conn, err := net.Dial("tcp", address)
		step("connecting to the screen", err)
		greeting := make([]byte, 12)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(greeting); err != nil || !bytes.HasPrefix(greeting, []byte("RFB ")) {
			t.Errorf("the screen's server says %q, %v; want RFB", greeting, err)
		}
		conn.Close()
	}
	port := 22011
	took("forward", func() error { return d.SetForwards(t.Context(), i, []machine.Forward{{Host: port, Guest: 22}}) })
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		t.Errorf("the forwarded port: %v", err)
	} else {
		conn.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	step("listening", err)
	defer l.Close()
	held := l.Addr().(*net.TCPAddr).Port
	if err := d.SetForwards(t.Context(), i, []machine.Forward{{Host: held, Guest: 22}}); err == nil {
		t.Error("SetForwards to a port that is held = nil")
	}
	in := virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
	if want := fmt.Sprintf("guestapi,tcp,127.0.0.1,%d,,22", port); in["Forwarding(0)"] != want || in["Forwarding(1)"] != "" {
		t.Errorf("rules %q, %q; want %q as before", in["Forwarding(0)"], in["Forwarding(1)"], want)
	}
	took("snapshot", func() error { return d.Snapshot(t.Context(), i, "running") })
	took("save", func() error { return d.Save(t.Context(), i) })
	i.Spec.Forwards = []machine.Forward{{Host: port + 1, Guest: 22}}
	took("start from saved", func() error { return d.Start(t.Context(), i) })
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))); err != nil {
		t.Errorf("the forwarded port after a save: %v", err)
	} else {
		conn.Close()
	}
	took("power off", func() error { return d.Stop(t.Context(), i, machine.PowerOff) })
	all, err := d.Snapshots(t.Context(), i)
	if err != nil || len(all) != 1 || all[0].Name != "running" || !all[0].Memory || time.Since(all[0].Time) > time.Hour {
		t.Errorf("Snapshots = %+v, %v", all, err)
	}
	took("revert", func() error { return d.Revert(t.Context(), i, "running") })
	if state, err := d.State(t.Context(), i); state != machine.Saved || err != nil {
		t.Errorf("State = %q, %v; want saved", state, err)
	}
	took("start from the snapshot", func() error { return d.Start(t.Context(), i) })
	took("save", func() error { return d.Save(t.Context(), i) })
	took("drop the saved memory", func() error { return d.Stop(t.Context(), i, machine.PowerOff) })
	to := i.Spec
	to.Name, to.Dir, to.MemoryMiB = "renamed", filepath.Join(filepath.Dir(i.Spec.Dir), "moved & more"), 80
	step("moving the folder", os.Rename(i.Spec.Dir, to.Dir))
	took("move and rename", func() (err error) { i, err = d.Change(t.Context(), i, to); return err })
	in = virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
	for key, want := range map[string]string{
		"name": "renamed", "CfgFile": filepath.Join(to.Dir, "vbox/renamed/renamed.vbox"), "IDE-0-0": filepath.Join(to.Dir, "image.iso"),
		"uartmode1": "file," + filepath.Join(to.Dir, "serial.log"), "memory": "80",
	} {
		if in[key] != want {
			t.Errorf("after moving, %s = %q, want %q", key, in[key], want)
		}
	}
	took("start after moving", func() error { return d.Start(t.Context(), i) })
	took("drop the snapshot", func() error { return d.DropSnapshot(t.Context(), i, "running") })
	took("destroy", func() error { return d.Destroy(t.Context(), i) })
}
