package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// atOnce bounds how many machines are asked for their state at a time.
const atOnce = 16

// The options of list.
const (
	optRunning = "--running"
	optLong    = "-l"
	optJSON    = "--json"
)

// list shows all machines, those that run, or one.
//
// Differs: the order is that of the names; the original's is random. With -l or
// --json there are also machines that are gone or half made, and the states.
func (s *session) list(ctx context.Context, args []string) error {
	how, only := "", ""
	switch {
	case len(args) == 2 && args[0] == optJSON:
		how, only = optJSON, args[1]
	case len(args) > 1:
		return usage("Invalid arguments: 'list' takes one machine name, or %s, %s or %s [NAME]", optRunning, optLong, optJSON)
	case len(args) == 1:
		if how = args[0]; how != optRunning && how != optLong && how != optJSON {
			return s.listOne(how)
		}
	}
	all, err := s.records()
	if err != nil {
		return err
	}
	if only != "" {
		if all = slices.DeleteFunc(all, func(r *record) bool { return r.name() != only }); len(all) == 0 {
			return unknown(only)
		}
	}
	states, err := s.states(ctx, all)
	if err != nil && how == "" && slices.ContainsFunc(states, func(st machine.State) bool { return st != "" }) {
		s.tell("note: %s", oneLine(err.Error())) // the listing is whole all the same: it shows no states
		err = nil
	}
	if how == optJSON {
		return errors.Join(s.listJSON(all, states), err)
	}
	for n, r := range all {
		switch {
		case how == optLong:
			s.say("%s:\tCVM: %s\tport: %s\tstate: %s\tdriver: %s", r.name(), r.values[keyVersion], r.values[localPort], shown(r, states[n]), r.driver())
		case states[n] != machine.Absent && (how == "" || states[n] == machine.Running || states[n] == machine.Paused):
			s.say("%s:\tCVM: %s\tport: %s", r.name(), r.values[keyVersion], r.values[localPort])
		}
	}
	return err
}

// shown is the state of a machine as people read it.
func shown(r *record, state machine.State) machine.State {
	switch {
	case r.values[micaPhase] != "":
		return machine.Incomplete
	case state == "":
		return machine.Unknown
	}
	return state
}

// listed is a machine in JSON. Its context, which may hold passwords, is not in it.
type listed struct {
	Name      string        `json:"name"`
	UUID      string        `json:"uuid"`
	State     machine.State `json:"state"`
	Driver    string        `json:"driver"`
	Version   string        `json:"cernvmVersion"`
	CPUs      int           `json:"cpus"`
	Memory    int           `json:"memory"` // MiB, as is the disk
	Disk      int64         `json:"disk"`
	Port      int           `json:"port"` // of this computer, 0 before there is one
	GuestPort int           `json:"guestPort"`
	Shared    string        `json:"sharedFolder,omitempty"`
	Folder    string        `json:"folder"`
}

func (s *session) listJSON(all []*record, states []machine.State) error {
	out := struct {
		Schema   int      `json:"schema"`
		Machines []listed `json:"machines"`
	}{Schema: 1, Machines: []listed{}}
	for n, r := range all {
		spec := r.spec()
		l := listed{
			Name: r.name(), UUID: r.id, State: shown(r, states[n]), Driver: r.driver(), Version: r.values[keyVersion],
			CPUs: spec.CPUs, Memory: spec.MemoryMiB, Disk: spec.DiskMiB,
			Port: spec.Forwards[0].Host, GuestPort: spec.Forwards[0].Guest, Folder: spec.Dir,
		}
		if len(spec.Shares) > 0 {
			l.Shared = spec.Shares[0].Path
		}
		out.Machines = append(out.Machines, l)
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	s.say("%s", text)
	return nil
}

// states asks for the state of every machine. Of those that cannot be asked the
// state is empty and the error tells; those that are gone are marked.
//
// Differs: the original deletes the record of a machine that VirtualBox does not
// list at the moment, and so loses all machines when VirtualBox's service fails
// or a disk is not mounted. Here such a record is marked, left out of the listing
// and kept until it is destroyed.
func (s *session) states(ctx context.Context, all []*record) ([]machine.State, error) {
	states, errs := make([]machine.State, len(all)), make([]error, len(all))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for n, r := range all {
		g.Go(func() error {
			states[n], errs[n] = s.state(ctx, r)
			return nil
		})
	}
	_ = g.Wait()
	var failed []error
	for n, r := range all {
		if errs[n] != nil {
			states[n] = ""
			failed = append(failed, fmt.Errorf("%s: %w", r.name(), errs[n]))
		}
		if r.values[micaPhase] != "" {
			s.tell("note: the machine %s is half made: another command is at work on it, or 'cernvm-launch destroy %s' clears it", r.name(), r.name())
		} else if states[n] == machine.Absent {
			s.tell("note: %s does not know the machine %s; 'cernvm-launch destroy %s' clears its record", r.driver(), r.name(), r.name())
		}
		if errs[n] == nil {
			s.mark(r, states[n] == machine.Absent)
		}
	}
	if len(failed) > 1 && len(failed) == len(all) { // one cause, said once
		return states, fail.New(fail.ClassOf(failed[0]), "Unable to ask for the state of any machine: %w", failed[0])
	}
	return states, errors.Join(failed...)
}

func (s *session) state(ctx context.Context, r *record) (machine.State, error) {
	d, err := s.Drivers.Get(r.driver())
	if err != nil {
		return "", err
	}
	if r.values[micaPhase] != "" || r.values[keyVBoxID] == "" {
		return machine.Absent, nil // half made, or half destroyed
	}
	i, err := r.instance()
	if err != nil {
		return "", err
	}
	return d.State(ctx, i)
}

// mark notes that a machine is gone, or has come back. It is a note only: where
// another command has the record, that one knows better.
func (s *session) mark(r *record, stale bool) {
	if (r.values[micaStale] != "") == stale || r.values[micaPhase] != "" || r.values[keyVBoxID] == "" {
		return
	}
	free, err := s.tryLock(recordPrefix + r.id + lockSuffix)
	if err != nil {
		return
	}
	defer free()
	now, err := readRecord(s.runDir(), r.id)
	if err != nil {
		return
	}
	delete(now.values, micaStale)
	if stale {
		now.values[micaStale] = "1"
	}
	if err := now.save(); err != nil {
		s.Log.Warn("could not mark a record", "machine", r.name(), "error", err)
	}
}

func (s *session) listOne(name string) error {
	r, err := s.get(name)
	if err != nil {
		return err
	}
	v := r.values
	s.say("%s:\tCVM: %s", name, v[keyVersion])
	for _, line := range [][2]string{
		{keyCPUs, v[keyCPUs]},
		{keyMemory, v[keyMemory]},
		{keyDisk, v[keyDisk]},
		{keyCap, v[keyCap]},
		{keyVersion, v[keyVersion]},
		{"baseFolder", v[localBase]},
	} {
		if line[1] != "" {
			s.say("\t%s: %s", line[0], line[1])
		}
	}
	if v[localPort] != "" {
		s.say("\tforwarded ports: %s (VM) --> %s (localhost)", v[keyAPIPort], v[localPort])
	}
	return nil
}
