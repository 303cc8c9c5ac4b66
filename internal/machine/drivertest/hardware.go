package drivertest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// What is promised of the parts of a machine that not every driver has.

// can skips unless the driver lists the feature, and Check has nothing against
// the Spec here: firmware and emulators are packages of their own.
func (s *suite) can(feature machine.Feature, spec machine.Spec) {
	s.Helper()
	report, err := s.driver.Probe(s.Context())
	s.must("Probe", err)
	if !slices.Contains(report.Features, feature) {
		s.Skipf("has no %s", feature)
	}
	if c, ok := s.driver.(machine.Checker); ok {
		spec.Dir = ""
		err := c.Check(s.Context(), spec)
		if fail.Is(err, fail.HostLacks) {
			s.Skipf("not on this computer: %v", err)
		}
		s.must("Check", err)
	}
}

// made creates the machine, which the test's end destroys.
func (s *suite) made(spec machine.Spec) machine.Instance {
	s.Helper()
	i, err := s.driver.Create(s.Context(), spec)
	s.must("Create", err)
	i.Spec.Dir = spec.Dir
	s.Cleanup(func() {
		if err := s.driver.Destroy(context.Background(), i); err != nil {
			s.Errorf("Destroy: %v", err)
		}
	})
	return i
}

// owned is a file of the user's, which no driver may change without a guest.
type owned struct {
	path string
	data []byte
}

func (s *suite) owned(name string) owned {
	s.Helper()
	o := owned{filepath.Join(s.TempDir(), name), bytes.Repeat([]byte("the user's own "), 1<<20/15+1)[:1<<20]}
	s.must("writing "+name, os.WriteFile(o.path, o.data, 0o640)) //nolint:gosec // its mode is compared
	return o
}

func (s *suite) untouched(o owned, when string) {
	s.Helper()
	data, err := os.ReadFile(o.path)
	if err != nil || !bytes.Equal(data, o.data) {
		s.Errorf("after %s: the user's disk has %d bytes, %v; want what was in it", when, len(data), err)
		return
	}
	if info, err := os.Stat(o.path); err != nil || info.Mode().Perm() != 0o640 {
		s.Errorf("after %s: the mode of the user's disk = %v, %v; want 0640", when, info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(o.path))
	if err != nil || len(entries) != 1 {
		s.Errorf("after %s: beside the user's disk = %v, %v; want nothing", when, entries, err)
	}
}

// moreDisks sees that Destroy knows whose disk is whose.
func (s *suite) moreDisks() {
	spec := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
	users := s.owned(`more, "data" ünïcode.raw`)
	spec.DiskMiB, spec.Disks = 1024, []machine.Disk{{MiB: 8}, {Path: users.path, Format: "raw"}, {MiB: 3}}
	s.can(machine.MoreDisks, spec)

	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := s.driver.Create(ctx, spec); !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled Create = %v, want context cancelled", err)
	}
	s.clean(spec.Dir)
	s.untouched(users, "a cancelled Create")

	i := s.made(spec)
	s.state(i, machine.Stopped)
	if _, err := s.driver.Create(s.Context(), spec); !fail.Is(err, fail.Conflict) {
		s.Errorf("second Create = %v, want class Conflict", err)
	}
	s.untouched(users, "a refused Create")
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	s.untouched(users, "a run")
	if p, ok := s.driver.(machine.Changer); ok {
		to := i.Spec
		to.DiskMiB = 1280
		changed, err := p.Change(s.Context(), i, to)
		s.must("Change", err)
		if diff := cmp.Diff(spec.Disks, changed.Spec.Disks); diff != "" {
			s.Errorf("disks after a Change (-want +got):\n%s", diff)
		}
		i = changed
		s.untouched(users, "a Change")
	}

	// One that is gone is missed, and nothing is put in its place.
	s.must("moving the disk away", os.Rename(users.path, users.path+".away"))
	if err := s.driver.Start(s.Context(), i); err == nil || !strings.Contains(err.Error(), users.path) {
		s.Errorf("Start without the user's disk = %v, want an error that names it", err)
	}
	s.state(i, machine.Stopped)
	if _, err := os.Lstat(users.path); err == nil {
		s.Error("Start made a disk where the user's was")
	}
	s.must("moving it back", os.Rename(users.path+".away", users.path))
	s.must("Start with the disk back", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	s.must("Destroy of a live machine", s.driver.Destroy(s.Context(), i))
	s.clean(i.Spec.Dir)
	s.untouched(users, "Destroy")
	s.must("second Destroy", s.driver.Destroy(s.Context(), i))
	s.untouched(users, "a second Destroy")
}

// disksKept sees that what is made of a machine has its further disks, too.
func (s *suite) disksKept() {
	spec := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
	spec.DiskMiB, spec.Disks = 1024, []machine.Disk{{MiB: 8}, {MiB: 3}}
	s.can(machine.MoreDisks, spec)
	i := s.made(spec)
	if p, ok := s.driver.(machine.Cloner); ok {
		to := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
		to.Name, to.ID, to.DiskMiB, to.Disks = to.Name+"-clone", uuid.NewString(), 1024, spec.Disks
		twin, err := p.Clone(s.Context(), i, to)
		s.must("Clone", err)
		twin.Spec.Dir = to.Dir
		s.must("Start of the clone", s.driver.Start(s.Context(), twin))
		s.counts(twin, 0)
		s.must("Destroy of the clone", s.driver.Destroy(s.Context(), twin))
		s.clean(to.Dir)
	}
	p, ok := s.driver.(machine.Snapshotter)
	if !ok {
		return
	}
	s.must("Snapshot", p.Snapshot(s.Context(), i, "off"))
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 3)
	s.must("Snapshot", p.Snapshot(s.Context(), i, "live"))
	at := s.count(i)
	s.counts(i, at+20)
	s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	s.must("Revert", p.Revert(s.Context(), i, "live"))
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, at)
	s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	s.must("Revert", p.Revert(s.Context(), i, "off"))
	s.state(i, machine.Stopped)
	s.must("DropSnapshot", p.DropSnapshot(s.Context(), i, "live"))
	s.must("Start", s.driver.Start(s.Context(), i))
	s.must("Destroy", s.driver.Destroy(s.Context(), i))
	s.clean(i.Spec.Dir)
}

// firmware and arch take machines through a life. The suite's guest is a BIOS
// boot sector: what it would say is no part of this.
func (s *suite) firmware() {
	spec := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
	spec.MemoryMiB, spec.Firmware = 256, machine.UEFI
	s.can(machine.Firmwares, spec)
	s.lives(spec)
}

func (s *suite) arch() {
	spec := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
	spec.MemoryMiB, spec.Arch, spec.Firmware = 256, machine.ARM64, machine.UEFI
	s.can(machine.Architectures, spec)
	s.lives(spec)
}

func (s *suite) lives(spec machine.Spec) {
	s.Helper()
	i := s.made(spec)
	for range 2 {
		s.must("Start", s.driver.Start(s.Context(), i))
		s.state(i, machine.Running)
		s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
		s.state(i, machine.Stopped)
	}
	s.must("Start", s.driver.Start(s.Context(), i))
	s.must("Destroy", s.driver.Destroy(s.Context(), i))
	s.clean(i.Spec.Dir)
}

// changeShares gives a machine folders, other ones, and none.
func (s *suite) changeShares() {
	p, ok := s.driver.(machine.Changer)
	if !ok {
		s.Skip("changes no machine")
	}
	real, err := filepath.EvalSymlinks(s.TempDir()) // as the core hands folders over
	s.must("looking at the folder", err)
	var all []machine.Share
	for _, name := range []string{"papers", "with, comma and=equals"} {
		dir := filepath.Join(real, name)
		s.must("making folder", os.Mkdir(dir, 0o700))
		s.must("writing a file", os.WriteFile(filepath.Join(dir, "kept"), []byte(name), 0o600))
		all = append(all, machine.Share{Name: "n" + uuid.NewString()[:8], Path: dir, ReadOnly: len(all) == 1})
	}
	spec := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
	shared := spec
	shared.Shares = all
	s.can(machine.SharedFolders, shared)
	i := s.made(spec)

	change := func(shares []machine.Share) {
		s.Helper()
		to := i.Spec
		to.Shares, to.Context, to.PublicKeys = shares, spec.Context, spec.PublicKeys
		var changed machine.Instance
		for range 2 { // a killed command is made good by changing once more
			changed, err = p.Change(s.Context(), i, to)
			s.must("Change", err)
			if diff := cmp.Diff(shares, changed.Spec.Shares); diff != "" {
				s.Errorf("shares after a Change (-want +got):\n%s", diff)
			}
		}
		i = changed
		i.Spec.Context, i.Spec.PublicKeys = nil, nil
		s.told(i, spec, shares, all)
		s.must("Start", s.driver.Start(s.Context(), i))
		s.counts(i, 0)
		if _, err := p.Change(s.Context(), i, to); !fail.Is(err, fail.Conflict) {
			s.Errorf("Change of a machine that runs = %v, want class Conflict", err)
		}
		s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	}
	change(all)
	change(all[1:])
	change(nil)
	change(all[:1])
	to := i.Spec
	to.MemoryMiB = 96
	i, err = p.Change(s.Context(), i, to) // without Context: the medium stays
	s.must("Change of the memory", err)
	s.told(i, spec, all[:1], all)
	s.must("Destroy", s.driver.Destroy(s.Context(), i))
	s.clean(i.Spec.Dir)
	for _, share := range all {
		if _, err := os.Stat(filepath.Join(share.Path, "kept")); err != nil {
			s.Errorf("a shared folder has lost its file: %v", err)
		}
	}
}

// told looks into the context's medium, where the driver keeps that in the
// machine's folder: it has context and keys as Create was given them, and of all
// the shares those of shares only.
func (s *suite) told(i machine.Instance, spec machine.Spec, shares, all []machine.Share) {
	s.Helper()
	entries, err := os.ReadDir(i.Spec.Dir)
	s.must("reading the machine's folder", err)
	for _, e := range entries {
		path := filepath.Join(i.Spec.Dir, e.Name())
		if filepath.Ext(path) != ".iso" || e.Name() == "image.iso" {
			continue
		}
		found, err := delivery.Inspect(path)
		s.must("reading the context's medium", err)
		medium, err := os.ReadFile(path)
		s.must("reading the context's medium", err)
		if !bytes.Equal(found.UserData, spec.Context) || found.Instance != spec.ID || !bytes.Contains(medium, []byte(spec.PublicKeys[0])) {
			s.Errorf("the medium %s lost context, instance or keys: %+v", e.Name(), found)
		}
		for _, share := range all {
			if got, want := bytes.Contains(medium, []byte(share.Name)), slices.Contains(shares, share); got != want {
				s.Errorf("the medium %s tells of share %s: %v, want %v", e.Name(), share.Name, got, want)
			}
		}
	}
}
