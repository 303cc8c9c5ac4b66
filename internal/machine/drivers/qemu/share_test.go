package qemu_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

const longName = "a-name-of-more-than-thirty-one-letters"

func TestShareArgs(t *testing.T) {
	t.Parallel()
	s := machine.Spec{Name: "m", ID: "5f3c9a52-1111-4222-8333-444455556666", MemoryMiB: 64, CPUs: 1, Dir: "/m"}
	plain := qemu.Args(s)
	s.Shares = []machine.Share{
		{Name: "data", Path: `/srv/a, "b" ü`, ReadOnly: true},
		{Name: longName, Path: "/srv/c"},
	}
	args := qemu.Args(s)
	if len(args) < len(plain) || !slices.Equal(args[:len(plain)], plain) {
		t.Errorf("shares change the other devices:\n%q\n%q", plain, args)
	}
	want := []string{
		"-fsdev", `local,id=share0,path=/srv/a,, "b" ü,security_model=none,multidevs=remap,readonly=on`,
		"-device", "virtio-9p-pci,fsdev=share0,mount_tag=data",
		"-fsdev", "local,id=share1,path=/srv/c,security_model=none,multidevs=remap",
		"-device", "virtio-9p-pci,fsdev=share1,mount_tag=share1",
	}
	if diff := cmp.Diff(want, args[len(plain):]); diff != "" {
		t.Errorf("arguments of the shares (-want +got):\n%s", diff)
	}
}

// sharing makes a machine with a folder, and another whose name is hard to pass.
func sharing(t *testing.T, d machine.Driver) machine.Instance {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := machine.Spec{
		Name: "m", ID: "5f3c9a52-1111-4222-8333-444455556666", MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Accel: "tcg", Dir: t.TempDir(),
		Shares: []machine.Share{
			{Name: "data", Path: filepath.Join(top, "data")},
			{Name: longName, Path: filepath.Join(top, `odd, 'name' "ü" = 1`), ReadOnly: true},
		},
	}
	for _, share := range s.Shares {
		if err := os.Mkdir(share.Path, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.ImagePath(), drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), i); err != nil {
			t.Error(err)
		}
	})
	return i
}

// TestSharesAreTold reads the config drive of a machine with shares.
func TestSharesAreTold(t *testing.T) {
	t.Parallel()
	i := sharing(t, newFake(t))
	data, err := os.ReadFile(i.Spec.Path("config.iso"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := iso9660.Open(bytes.NewReader(data), int64(len(data)), iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	var want, got bytes.Buffer
	meta := delivery.Meta{InstanceID: i.Spec.ID, Hostname: "m", Shares: []delivery.Share{
		{Name: "data", Type: "9p"}, {Name: longName, Type: "9p", Tag: "share1", ReadOnly: true},
	}}
	want.Write(meta.OpenStack())
	f, err := image.Open("openstack/latest/meta_data.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := got.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

// TestSaveWithShares sees that a guest that has shares mounted runs on, and that
// its user learns what to do.
func TestSaveWithShares(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{fakeqemu.FaultMounted, fakeqemu.FaultUntold} {
		d := newFaulty(t, fault)
		i := sharing(t, d)
		if err := d.Start(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"Save":     d.(machine.Saver).Save(t.Context(), i),
			"Snapshot": d.(machine.Snapshotter).Snapshot(t.Context(), i, "s"),
		} {
			hints := fmt.Sprint(fail.Hints(err))
			if !fail.Is(err, fail.Conflict) || !strings.Contains(hints, "mica stop --shutdown m") || !strings.Contains(hints, "umount /mnt/shared/data /mnt/shared/"+longName) {
				t.Errorf("%s: %s = %v, hints %q; want class Conflict and both ways out", fault, what, err, hints)
			}
		}
		if got := state(t, d, i); got != machine.Running {
			t.Errorf("%s: State = %q, want running", fault, got)
		}
		for _, name := range []string{"state.bin", "state.part", "snapshots/s"} {
			if _, err := os.Stat(i.Spec.Path(name)); err == nil {
				t.Errorf("%s: %s was left behind", fault, name)
			}
		}
	}
	d := newFake(t)
	i := sharing(t, d) // not mounted
	for _, step := range []func() error{
		func() error { return d.Start(t.Context(), i) },
		func() error { return d.(machine.Saver).Save(t.Context(), i) },
		func() error { return d.Start(t.Context(), i) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSavedByLayout1 sees that memory of the time before shares still loads.
func TestSavedByLayout1(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := fresh(t, d, "tcg")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := d.(machine.Saver).Save(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(i.Spec.Path("saved.json"))
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(data), `"layout":3`, `"layout":1`, 1)
	if old == string(data) {
		t.Fatalf("saved.json: %s", data)
	}
	if err := os.WriteFile(i.Spec.Path("saved.json"), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), i); err != nil {
		t.Errorf("Start: %v", err)
	}
}

// TestShareGone sees that a machine whose folder is not what it was does not
// start, and is as it was.
func TestShareGone(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := sharing(t, d)
	path := i.Spec.Shares[0].Path
	aside := path + ".aside"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string, class fail.Class, words string) {
		t.Helper()
		before := state(t, d, i)
		err := d.Start(t.Context(), i)
		if !fail.Is(err, class) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), `"data"`) || len(fail.Hints(err)) == 0 {
			t.Errorf("%s: Start = %v, hints %q; want %q, class %v, and a hint", what, err, fail.Hints(err), words, class)
		}
		if got := state(t, d, i); got != before {
			t.Errorf("%s: State = %q, want %q", what, got, before)
		}
	}
	must(os.Rename(path, aside))
	refused("folder gone", fail.NotFound, "is gone")
	must(os.WriteFile(path, nil, 0o600))
	refused("file", fail.NotFound, "no folder")
	must(os.Remove(path))
	must(os.Symlink("/etc", path))
	refused("link", fail.Conflict, "has moved")
	must(os.Remove(path))
	must(os.Rename(aside, path))
	must(d.Start(t.Context(), i))
	must(d.(machine.Saver).Save(t.Context(), i))
	must(os.Rename(path, aside))
	refused("folder gone, saved", fail.NotFound, "is gone")
	must(os.Rename(aside, path))
	must(d.Start(t.Context(), i))
}

func TestShareRefused(t *testing.T) {
	t.Parallel()
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(home, ".mica", "machines")
	beside := filepath.Join(home, ".mica2")
	for _, dir := range []string{inside, beside} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	d := qemu.New(machine.Env{Getenv: func(name string) string { return map[string]string{"HOME": home}[name] }})
	for path, words := range map[string]string{
		"/":                      "root of this computer",
		filepath.Dir(inside):     "mica's own folder",
		inside:                   "mica's own folder",
		filepath.Join(home, "x"): "is gone",
		beside:                   "",
		home:                     "", // whoever names it means it
	} {
		err := d.(machine.Checker).Check(t.Context(), machine.Spec{Shares: []machine.Share{{Name: "x", Path: path}}})
		if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("Check of %s = %v, want %q", path, err, words)
		}
	}
}

func TestWithout9P(t *testing.T) {
	t.Parallel()
	d := newFaulty(t, fakeqemu.FaultNo9P)
	i := sharing(t, d)
	if err := d.Start(t.Context(), i); !fail.Is(err, fail.HostLacks) || len(fail.Hints(err)) == 0 {
		t.Errorf("Start = %v, hints %q; want class HostLacks and a hint", err, fail.Hints(err))
	}
}

// TestSharesQEMU sees that the real program takes the arguments, its sandbox on.
func TestSharesQEMU(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	d := qemu.New(machine.Env{})
	i := sharing(t, d)
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	facts, err := d.(machine.Describer).Describe(t.Context(), i)
	if err != nil || facts["sandbox"] != "true" {
		t.Errorf("Describe = %v, %v; want sandbox true", facts, err)
	}
	if err := d.(machine.Saver).Save(t.Context(), i); err != nil { // nothing is mounted
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), i); err != nil {
		t.Error(err)
	}
}

// TestChangeShares gives a machine other folders: the guest is told, and QEMU
// shares them.
func TestChangeShares(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := sharing(t, d)
	p := d.(machine.Changer)
	to := i.Spec
	to.Shares = to.Shares[:1]
	to.Context, to.PublicKeys = []byte("#!/bin/sh\necho new\n"), []string{"ssh-ed25519 AAAA new"}
	drive := func() string {
		t.Helper()
		data, err := os.ReadFile(i.Spec.Path("config.iso"))
		must(t, "reading the drive", err)
		return string(data)
	}
	before := drive()

	bad := to
	bad.Shares = []machine.Share{{Name: "gone", Path: filepath.Join(t.TempDir(), "gone")}}
	if _, err := p.Change(t.Context(), i, bad); !fail.Is(err, fail.NotFound) {
		t.Errorf("Change to a folder that is not there = %v, want class NotFound", err)
	}
	bad.Shares[0].Path = "/"
	if _, err := p.Change(t.Context(), i, bad); !fail.Is(err, fail.Usage) {
		t.Errorf("Change to the root = %v, want class Usage", err)
	}
	if drive() != before {
		t.Error("a refused change wrote to the config drive")
	}

	for range 2 { // a killed command is made good by changing once more
		changed, err := p.Change(t.Context(), i, to)
		must(t, "Change", err)
		if len(changed.Spec.Shares) != 1 || changed.Spec.Context != nil || changed.Spec.PublicKeys != nil {
			t.Errorf("Change = %+v", changed.Spec)
		}
		if got := drive(); !strings.Contains(got, "echo new") || strings.Contains(got, longName) || !strings.Contains(got, `\"data\"`) {
			t.Error("the config drive does not have the new context and the share that is left alone")
		}
	}
	i.Spec.Shares, to.Context, to.PublicKeys = to.Shares, nil, nil
	after := drive()
	to.MemoryMiB = 96
	changed, err := p.Change(t.Context(), i, to)
	must(t, "Change of the memory", err)
	if drive() != after {
		t.Error("a change of the memory wrote to the config drive")
	}
	must(t, "Start", d.Start(t.Context(), changed))

	// Memory fits the machine as it was.
	must(t, "Snapshot", d.(machine.Snapshotter).Snapshot(t.Context(), changed, "live"))
	to = changed.Spec
	to.Shares = nil
	if _, err := p.Change(t.Context(), changed, to); !fail.Is(err, fail.Conflict) {
		t.Errorf("Change of a live machine = %v, want class Conflict", err)
	}
	must(t, "Stop", d.Stop(t.Context(), changed, machine.PowerOff))
	if _, err := p.Change(t.Context(), changed, to); !fail.Is(err, fail.Conflict) || !strings.Contains(strings.Join(fail.Hints(err), " "), "snapshot delete m live") {
		t.Errorf("Change beside a snapshot with memory = %v, hints %q; want class Conflict and the way out", err, fail.Hints(err))
	}
}
