package virtualbox_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/tier"
)

// TestMoreDisks has disks of mica's and of the user's, the latter as raw and as
// VirtualBox's own format, and sees them through a clone, a move and the end.
func TestMoreDisks(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	dir := t.TempDir()
	raw, vdi := filepath.Join(dir, `the user's "raw", really.img`), filepath.Join(dir, "theirs.vdi")
	content := bytes.Repeat([]byte("x"), 3<<20)
	f.must("writing disks", errors.Join(os.WriteFile(raw, content, 0o600), fakevbox.WriteDisk(vdi, uuid.NewString(), 9)))
	before := fakevbox.Known(f.dir)
	i := f.create(func(s *machine.Spec) {
		s.Disks = []machine.Disk{{Path: raw, Format: "raw"}, {MiB: 8}, {Path: vdi, Format: "vdi"}, {MiB: 5}}
	})
	places := func(i machine.Instance, want ...string) {
		t.Helper()
		in := f.info(i.Spec.ID)
		var got []string
		for _, key := range []string{"SATA-3-0", "SATA-4-0", "SATA-5-0", "SATA-6-0", "SATA-7-0"} {
			got = append(got, strings.TrimPrefix(in[key], i.Spec.Dir+"/"))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the places for more disks (-want +got):\n%s", diff)
		}
	}
	places(i, "none", "more-1.vmdk", "more-2.vdi", vdi, "more-4.vdi")
	text, err := os.ReadFile(i.Spec.Path("more-1.vmdk"))
	if err != nil || !bytes.Contains(text, []byte("\nRW 6144 FLAT \"more-1.raw\" 0\n")) {
		t.Errorf("the raw disk is described as %s, %v; want 6144 sectors", text, err)
	}
	if to, err := os.Readlink(i.Spec.Path("more-1.raw")); to != raw || err != nil {
		t.Errorf("more-1.raw leads to %q, %v; want %q", to, err, raw)
	}
	f.must("Start", f.Start(t.Context(), i))
	f.must("Stop", f.Stop(t.Context(), i, machine.PowerOff))

	s := f.order(func(s *machine.Spec) { s.Disks = []machine.Disk{{MiB: 8}, {MiB: 5}} })
	twin, err := f.Clone(t.Context(), i, s)
	f.must("Clone", err)
	places(twin, "none", "more-1.vdi", "more-2.vdi", "", "")
	for path, want := range map[string]int64{"disk.vdi": 64, "more-1.vdi": 8, "more-2.vdi": 5} {
		if _, mib, err := fakevbox.ReadDisk(twin.Spec.Path(path)); mib != want || err != nil {
			t.Errorf("the clone's %s has %d MiB, %v; want %d", path, mib, err, want)
		}
	}
	f.must("Destroy", f.Destroy(t.Context(), twin))
	f.nothing(twin.Spec)

	to := i.Spec
	to.Name, to.Dir = "n", filepath.Join(t.TempDir(), "moved")
	f.must("moving the folder", os.Rename(i.Spec.Dir, to.Dir))
	i.Spec.Dir = to.Dir
	i, err = f.Change(t.Context(), i, to)
	f.must("Change", err)
	places(i, "none", "more-1.vmdk", "more-2.vdi", vdi, "more-4.vdi")
	f.must("Start after moving", f.Start(t.Context(), i))

	// What looks like mica's and is none.
	precious := i.Spec.Path("more-9.raw")
	f.must("writing a file", os.WriteFile(precious, content, 0o600))
	f.must("Destroy", f.Destroy(t.Context(), i))
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("Destroy removed what is no link: %v", err)
	}
	f.must("clearing up", os.Remove(precious))
	f.nothing(i.Spec)
	if diff := cmp.Diff(before, fakevbox.Known(f.dir)); diff != "" {
		t.Errorf("VirtualBox's machines and media (-before +after):\n%s", diff)
	}
	if after, err := os.ReadFile(raw); err != nil || !bytes.Equal(after, content) {
		t.Errorf("the user's raw disk was changed (%v)", err)
	}
	if _, err := os.Stat(vdi); err != nil {
		t.Error(err)
	}
}

// TestListedDisk sees that a disk of the user's is in VirtualBox's list of media
// after a machine as it was before.
func TestListedDisk(t *testing.T) {
	t.Parallel()
	for _, listed := range []bool{false, true} {
		f := newFake(t, fakevbox.Config{})
		vdi := filepath.Join(t.TempDir(), "theirs.vdi")
		if listed {
			f.vbox("createmedium", "disk", "--filename", vdi, "--size", "8", "--format", "VDI")
		} else {
			f.must("writing a disk", fakevbox.WriteDisk(vdi, uuid.NewString(), 8))
		}
		before := fakevbox.Known(f.dir)
		use := func(s *machine.Spec) { s.Disks = []machine.Disk{{Path: vdi, Format: "vdi"}} }
		i := f.create(use)
		if _, err := f.Create(t.Context(), f.order(use)); err == nil || !strings.Contains(err.Error(), vdi) {
			t.Errorf("Create with a disk that another machine has = %v, want an error that names it", err)
		}
		f.must("Start", f.Start(t.Context(), i))
		f.must("Destroy", f.Destroy(t.Context(), i))
		f.nothing(i.Spec)
		if diff := cmp.Diff(before, fakevbox.Known(f.dir)); diff != "" {
			t.Errorf("listed %v: VirtualBox's machines and media (-before +after):\n%s", listed, diff)
		}
		if _, err := os.Stat(vdi); err != nil {
			t.Error(err)
		}
	}
}

// TestSharedDisk destroys one of two machines that have a disk of the user's.
func TestSharedDisk(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	raw := filepath.Join(t.TempDir(), "both.img")
	f.must("writing a disk", os.WriteFile(raw, make([]byte, 1<<20), 0o600))
	share := func(s *machine.Spec) { s.Disks = []machine.Disk{{Path: raw, Format: "raw"}} }
	one, other := f.create(share), f.create(share)
	f.must("Destroy", f.Destroy(t.Context(), one))
	f.must("Start of the other", f.Start(t.Context(), other))
}

func TestDisksRefused(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	odd := filepath.Join(t.TempDir(), "odd.img")
	f.must("writing a disk", os.WriteFile(odd, make([]byte, 1000), 0o600))
	for _, c := range []struct {
		disk  machine.Disk
		class fail.Class
		want  string
	}{
		{machine.Disk{Path: odd, Format: "raw"}, fail.Usage, "whole sectors"},
		{machine.Disk{Path: odd, Format: "qcow2"}, fail.Usage, "qcow2"},
		{machine.Disk{Path: odd + ".gone", Format: "vdi"}, fail.NotFound, odd + ".gone"},
	} {
		s := f.order(func(s *machine.Spec) { s.Disks = []machine.Disk{c.disk} })
		if _, err := f.Create(t.Context(), s); !fail.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Create with disk %+v = %v, want class %v and %q", c.disk, err, c.class, c.want)
		}
		f.nothing(s)
	}
	for _, change := range []func(*machine.Spec){
		func(s *machine.Spec) { s.Firmware = "openfirmware" },
		func(s *machine.Spec) { s.Arch, s.Firmware = machine.ARM64, machine.UEFI },
		func(s *machine.Spec) { s.Options = map[string]string{"loopback": "perhaps"} },
	} {
		if s := f.order(change); !fail.Is(f.Check(t.Context(), s), fail.Usage) {
			t.Errorf("Check(%+v) = nil, want class Usage", s)
		}
	}
}

// TestFirmware sees firmware and loopback said to each release as it knows them.
func TestFirmware(t *testing.T) {
	t.Parallel()
	for style, knows := range map[string]bool{fakevbox.Style52: false, fakevbox.Style61: false, fakevbox.Style72: true} {
		f := newFake(t, fakevbox.Config{Style: style})
		i := f.create(func(s *machine.Spec) { s.Firmware, s.Options = machine.UEFI, map[string]string{"loopback": "off"} })
		if got := f.info(i.Spec.ID)["firmware"]; got != "EFI" {
			t.Errorf("%s: firmware = %q, want EFI", style, got)
		}
		f.vbox("modifyvm", i.Spec.ID, "--firmware", "bios")
		f.must("Start", f.Start(t.Context(), i)) // puts it right
		if got := f.info(i.Spec.ID)["firmware"]; got != "EFI" {
			t.Errorf("%s: firmware after a start = %q, want EFI", style, got)
		}
		lines := fakevbox.Commands(f.dir)
		said := slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "--nat-localhostreachable1 off") })
		made := slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, "modifyvm") && strings.Contains(l, "--cpus") && strings.Contains(l, "--nat-localhostreachable1") == knows
		})
		if !said || !made {
			t.Errorf("%s: loopback said %v, and the machine made with it known %v: %v", style, said, knows, made)
		}
	}
}

// TestChangeShares gives a machine other folders, and lets that fail half way.
func TestChangeShares(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	one, two := machine.Share{Name: "one", Path: t.TempDir()}, machine.Share{Name: "two", Path: t.TempDir()}
	i := f.create(func(s *machine.Spec) { s.Shares = []machine.Share{one} })
	f.vbox("sharedfolder", "add", i.Spec.ID, "--name", "users", "--hostpath", t.TempDir())
	names := func(want ...string) {
		t.Helper()
		in := f.info(i.Spec.ID)
		var got []string
		for _, key := range []string{"1", "2", "3", "4"} {
			if name := in["SharedFolderNameMachineMapping"+key]; name != "" {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("shares (-want +got):\n%s", diff)
		}
	}
	before, err := os.ReadFile(i.Spec.Path("config.iso"))
	f.must("reading the medium", err)
	to := i.Spec
	to.Shares, to.Context = []machine.Share{two}, []byte("#!/bin/sh\n")
	f.configure(fakevbox.Config{Fail: []fakevbox.Failure{{Match: "sharedfolder add", Code: 1, Stderr: "VBoxManage: error: No luck\n", Times: 1}}})
	if _, err := f.Change(t.Context(), i, to); err == nil || !strings.Contains(err.Error(), "No luck") {
		t.Errorf("Change = %v, want No luck", err)
	}
	names("one", "users")
	if after, err := os.ReadFile(i.Spec.Path("config.iso")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the medium was changed (%v)", err)
	}
	f.configure(fakevbox.Config{})
	i, err = f.Change(t.Context(), i, to)
	f.must("Change", err)
	names("two", "users")
	if !fakevbox.Links(f.dir, i.Spec.ID, "two") {
		t.Error("the guest cannot make symbolic links in its new share")
	}
	if after, err := os.ReadFile(i.Spec.Path("config.iso")); err != nil || bytes.Equal(before, after) {
		t.Errorf("the medium was not changed (%v)", err)
	}
	readOnly := two
	readOnly.ReadOnly = true
	to.Shares = []machine.Share{readOnly}
	i, err = f.Change(t.Context(), i, to)
	f.must("Change to read-only", err)
	names("two", "users")
	if line := strings.Join(fakevbox.Commands(f.dir), "\n"); !strings.Contains(line, two.Path+" --automount --readonly") {
		t.Error("the share was not added anew as read-only")
	}
}

// TestImport makes machines of an appliance, as 'mica import' does.
func TestImport(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	w := newFake(t, fakevbox.Config{})
	path := newAppliance(t)
	a, err := ova.Open(t.Context(), path)
	w.must("opening the appliance", err)
	f := fleetIn(t.TempDir(), w.program, w.run)
	before := fakevbox.Known(w.dir)
	for _, name := range []string{"one", "two"} { // both bring the same disk
		o := orderOf(name, "", t.TempDir())
		w.must("choosing the appliance", o.Appliance(a, path))
		o.Sizes(a, func(name string) bool { return name == "memory" })
		o.Spec.DiskMiB = 64 // the appliance's is larger: none is cut
		_, err := f.Create(t.Context(), o)
		w.must("Create", err)
		m, err := f.Get(t.Context(), name)
		w.must("Get", err)
		if s := m.Record.Instance.Spec; s.CPUs != 3 || s.DiskMiB != 70 || m.State != machine.Stopped {
			t.Errorf("%s is %s with %d processors and %d MiB, want stopped with 3 and 70", name, m.State, s.CPUs, s.DiskMiB)
		}
		_, err = f.Start(t.Context(), name)
		w.must("Start", err)
	}
	for _, name := range []string{"one", "two"} {
		w.must("Destroy", f.Destroy(t.Context(), name, true))
	}
	if diff := cmp.Diff(before, fakevbox.Known(w.dir)); diff != "" {
		t.Errorf("VirtualBox's machines and media (-before +after):\n%s", diff)
	}
}

// TestImageSize makes machines of disk images without saying how large: none is
// cut, and the machine's size is told.
func TestImageSize(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	for _, c := range []struct{ asked, want int64 }{{0, 90}, {64, 90}, {128, 128}} {
		i := f.create(func(s *machine.Spec) {
			s.Image.Format, s.DiskMiB = "vdi", c.asked
			f.must("making an image", fakevbox.WriteDisk(s.ImagePath(), uuid.NewString(), 90))
		})
		if _, mib, err := fakevbox.ReadDisk(i.Spec.Path("disk.vdi")); mib != c.want || i.Spec.DiskMiB != c.want || err != nil {
			t.Errorf("asked for %d MiB: the disk has %d and the record %d, %v; want %d", c.asked, mib, i.Spec.DiskMiB, err, c.want)
		}
	}
}
