package drivertest

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// What is promised of the powers that a driver need not have.

func (s *suite) snapshotter() machine.Snapshotter {
	s.Helper()
	p, ok := s.driver.(machine.Snapshotter)
	if !ok {
		s.Skip("takes no snapshots")
	}
	return p
}

func (s *suite) snapshots(p machine.Snapshotter, i machine.Instance, want ...string) []machine.Snapshot {
	s.Helper()
	all, err := p.Snapshots(s.Context(), i)
	s.must("Snapshots", err)
	var names []string
	for _, one := range all {
		names = append(names, one.Name)
		if one.Time.IsZero() || time.Since(one.Time) > time.Hour {
			s.Errorf("snapshot %q is of %s", one.Name, one.Time)
		}
	}
	if !slices.Equal(names, want) {
		s.Fatalf("Snapshots = %q, want %q", names, want)
	}
	return all
}

func (s *suite) snapshotOff() {
	p := s.snapshotter()
	i := s.create(Guest{})
	s.snapshots(p, i)
	s.must("Snapshot", p.Snapshot(s.Context(), i, "first"))
	s.must("Snapshot", p.Snapshot(s.Context(), i, "second"))
	if all := s.snapshots(p, i, "first", "second"); all[0].Memory {
		s.Error("the snapshot of a stopped machine has memory")
	}
	if err := p.Snapshot(s.Context(), i, "first"); !fail.Is(err, fail.Conflict) {
		s.Errorf("Snapshot of a name that is there = %v, want class Conflict", err)
	}
	s.state(i, machine.Stopped)
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	if err := p.Revert(s.Context(), i, "first"); !fail.Is(err, fail.Conflict) {
		s.Errorf("Revert of a machine that runs = %v, want class Conflict", err)
	}
	s.state(i, machine.Running)
	s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	if err := p.Revert(s.Context(), i, "third"); !fail.Is(err, fail.NotFound) {
		s.Errorf("Revert to a snapshot that is not there = %v, want class NotFound", err)
	}
	s.must("Revert", p.Revert(s.Context(), i, "first"))
	s.state(i, machine.Stopped)
	s.snapshots(p, i, "first", "second")
	s.must("DropSnapshot", p.DropSnapshot(s.Context(), i, "first"))
	if err := p.DropSnapshot(s.Context(), i, "first"); !fail.Is(err, fail.NotFound) {
		s.Errorf("second DropSnapshot = %v, want class NotFound", err)
	}
	s.snapshots(p, i, "second")
	s.must("Start after Revert", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	s.must("Destroy", s.driver.Destroy(s.Context(), i))
	s.clean(i.Spec.Dir)
}

func (s *suite) snapshotLive() {
	p := s.snapshotter()
	i := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 3)
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if err := p.Snapshot(ctx, i, "never"); !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled Snapshot = %v, want context cancelled", err)
	}
	s.snapshots(p, i)
	s.state(i, machine.Running)
	s.must("Snapshot", p.Snapshot(s.Context(), i, "live"))
	s.state(i, machine.Running)
	if all := s.snapshots(p, i, "live"); !all[0].Memory {
		s.Error("the snapshot of a machine that runs has no memory")
	}
	at := s.count(i)
	s.counts(i, at+40)
	if pause, ok := s.driver.(machine.Pauser); ok {
		s.must("pause", pause.SetPaused(s.Context(), i, true))
		s.must("Snapshot of a paused machine", p.Snapshot(s.Context(), i, "paused"))
		s.state(i, machine.Paused)
		s.must("resume", pause.SetPaused(s.Context(), i, false))
		s.counts(i, s.count(i))
		s.must("DropSnapshot", p.DropSnapshot(s.Context(), i, "paused"))
	}
	s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	s.must("Revert", p.Revert(s.Context(), i, "live"))
	s.state(i, machine.Saved)
	before := s.log(i)
	s.must("Start", s.driver.Start(s.Context(), i))
	s.state(i, machine.Running)
	s.eventually("the guest counts on from its snapshot", func() bool {
		now := s.log(i)
		return len(now) != len(before) && s.count(i) > at && s.count(i) < at+40
	})
	if n := strings.Count(s.log(i), hello); n > 1 {
		s.Errorf("the guest started %d times, want once", n)
	}
}

func (s *suite) change() {
	p, ok := s.driver.(machine.Changer)
	if !ok {
		s.Skip("changes no machine")
	}
	i := s.create(Guest{})
	to := i.Spec
	to.MemoryMiB, to.CPUs, to.DiskMiB = 96, 2, 128
	for range 2 { // a killed command is made good by changing once more
		changed, err := p.Change(s.Context(), i, to)
		s.must("Change", err)
		if got := changed.Spec; got.MemoryMiB != 96 || got.CPUs != 2 || got.DiskMiB != 128 {
			s.Errorf("Change = %+v, want the sizes asked for", got)
		}
		i = changed
	}
	s.state(i, machine.Stopped)
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	if _, err := p.Change(s.Context(), i, to); !fail.Is(err, fail.Conflict) {
		s.Errorf("Change of a machine that runs = %v, want class Conflict", err)
	}
	s.state(i, machine.Running)
}

func (s *suite) clone() {
	p, ok := s.driver.(machine.Cloner)
	if !ok {
		s.Skip("clones no machine")
	}
	i := s.create(Guest{})
	spec := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
	spec.Name, spec.ID = spec.Name+"-clone", uuid.NewString()
	twin, err := p.Clone(s.Context(), i, spec)
	s.must("Clone", err)
	twin.Spec.Dir = spec.Dir
	s.Cleanup(func() {
		if err := s.driver.Destroy(context.Background(), twin); err != nil {
			s.Errorf("Destroy of the clone: %v", err)
		}
	})
	for _, one := range []machine.Instance{i, twin} {
		s.state(one, machine.Stopped)
		s.must("Start", s.driver.Start(s.Context(), one))
	}
	for _, one := range []machine.Instance{i, twin} {
		s.counts(one, 0)
	}
	if _, err := p.Clone(s.Context(), i, s.order(s.TempDir(), Guest{})); !fail.Is(err, fail.Conflict) {
		s.Errorf("Clone of a machine that runs = %v, want class Conflict", err)
	}
	s.must("Destroy of the clone", s.driver.Destroy(s.Context(), twin))
	s.clean(spec.Dir)
	s.state(i, machine.Running)
	if _, err := os.Stat(i.Spec.Dir); err != nil {
		s.Error(err)
	}
}

func (s *suite) setForwards() {
	p, ok := s.driver.(machine.Forwarder)
	if !ok {
		s.Skip("changes no ports")
	}
	i := s.create(Guest{})
	first, port := s.listen()
	second, other := s.listen()
	taken, busy := s.listen()
	s.must("closing", errors.Join(first.Close(), second.Close()))
	defer taken.Close()
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	set := func(forwards ...machine.Forward) error {
		err := p.SetForwards(s.Context(), i, forwards)
		if err == nil {
			i.Spec.Forwards = forwards
		}
		return err
	}
	s.must("SetForwards of a stopped machine", set(machine.Forward{Host: port, Guest: 22}))
	s.must("Start", s.driver.Start(s.Context(), i))
	s.eventually("the port accepts", func() bool { return s.accepts(at(port)) })
	s.must("SetForwards", set(machine.Forward{Host: port, Guest: 22}, machine.Forward{Host: other, Guest: 80}))
	s.eventually("the new port accepts", func() bool { return s.accepts(at(other)) })
	var lost *machine.PortTaken
	if err := set(machine.Forward{Host: other, Guest: 80}, machine.Forward{Host: busy, Guest: 81}); !errors.As(err, &lost) {
		s.Errorf("SetForwards to a port that is taken = %v, want PortTaken", err)
	}
	s.eventually("the old ports accept", func() bool { return s.accepts(at(port)) && s.accepts(at(other)) })
	s.must("SetForwards", set(machine.Forward{Host: other, Guest: 22}))
	s.eventually("the first port is free", func() bool { return !s.accepts(at(port)) })
	s.eventually("the second port accepts", func() bool { return s.accepts(at(other)) })
	s.must("SetForwards", set())
	s.eventually("no port is left", func() bool { return !s.accepts(at(other)) })
}

func (s *suite) screen() {
	shot, shoots := s.driver.(machine.Screener)
	view, views := s.driver.(machine.Viewer)
	report, err := s.driver.Probe(s.Context())
	s.must("Probe", err)
	if !shoots && !views || !slices.Contains(report.Features, machine.VNC) {
		s.Skip("shows no screen")
	}
	spec := s.order(s.TempDir(), Guest{Says: hello + "\r\n"})
	spec.Display = machine.DisplayVNC
	i, err := s.driver.Create(s.Context(), spec)
	s.must("Create", err)
	i.Spec.Dir = spec.Dir
	s.Cleanup(func() {
		if err := s.driver.Destroy(context.Background(), i); err != nil {
			s.Errorf("Destroy: %v", err)
		}
	})
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	if shoots {
		var picture bytes.Buffer
		s.must("Screenshot", shot.Screenshot(s.Context(), i, &picture))
		if config, err := png.DecodeConfig(&picture); err != nil || config.Width < 1 {
			s.Errorf("Screenshot = %+v, %v; want a picture in PNG", config, err)
		}
	}
	if views {
		where, err := view.View(s.Context(), i)
		if err != nil || !strings.Contains(where, "://127.0.0.1:") {
			s.Errorf("View = %q, %v; want a URL on this computer", where, err)
		}
	}
	if save, ok := s.driver.(machine.Saver); ok { // memory loads into the same devices
		s.must("Save", save.Save(s.Context(), i))
		s.must("Start from saved", s.driver.Start(s.Context(), i))
	}
}
