package launch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// memory is a strict driver that keeps machines in memory: it refuses what the
// contract forbids, and fails where a test says so.
type memory struct {
	mu       sync.Mutex // guards what follows
	machines map[string]machine.State
	specs    map[string]machine.Spec
	started  int
	stops    []machine.StopMode
	fail     map[string]error // by method
	at       map[string]func()
}

func newMemory() *memory {
	return &memory{machines: map[string]machine.State{}, specs: map[string]machine.Spec{}, fail: map[string]error{}, at: map[string]func(){}}
}

// useMemory puts the driver in VirtualBox's place.
func (d *desk) useMemory() *memory {
	m := newMemory()
	d.drivers = machine.NewRegistry(machine.Env{}, machine.Factory{Name: "virtualbox", New: func(machine.Env) machine.Driver { return m }})
	return m
}

func (m *memory) enter(ctx context.Context, method string) error {
	m.mu.Lock()
	at := m.at[method]
	m.mu.Unlock()
	if at != nil {
		at()
	}
	m.mu.Lock()
	err := m.fail[method]
	m.mu.Unlock()
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
	return err
}

func (m *memory) state(id string) machine.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.machines[id]; ok {
		return s
	}
	return machine.Absent
}

func (m *memory) set(id string, s machine.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.machines[id] = s
}

func (m *memory) Probe(ctx context.Context) (machine.Report, error) {
	return machine.Report{
		Driver: "virtualbox", Warnings: []string{"it is only a memory"},
		Features: []machine.Feature{machine.GUI, machine.SharedFolders, machine.Clipboards, machine.DiskImages},
		Options:  map[string]string{"ostype": "", "additions": ""},
	}, m.enter(ctx, "Probe")
}

func (m *memory) Create(ctx context.Context, s machine.Spec) (machine.Instance, error) {
	if err := m.enter(ctx, "Create"); err != nil {
		return machine.Instance{}, err
	}
	if err := s.Validate(); err != nil {
		return machine.Instance{}, err
	}
	if _, err := os.Stat(s.ImagePath()); err != nil {
		return machine.Instance{}, err
	}
	if m.state(s.ID) != machine.Absent {
		return machine.Instance{}, fail.New(fail.Conflict, "there is a machine %s", s.ID)
	}
	m.set(s.ID, machine.Stopped)
	m.mu.Lock()
	m.specs[s.ID] = s
	m.mu.Unlock()
	s.Context = nil
	return machine.Instance{Spec: s, Handle: map[string]string{"note": "line\nbreak"}}, nil
}

func (m *memory) known(i machine.Instance) error {
	if m.state(i.Spec.ID) == machine.Absent {
		return errors.New("no such machine")
	}
	if i.Handle["note"] != "line\nbreak" {
		return fmt.Errorf("the handle is %q", i.Handle)
	}
	return nil
}

func (m *memory) Start(ctx context.Context, i machine.Instance) error {
	if err := errors.Join(m.enter(ctx, "Start"), m.known(i)); err != nil {
		return err
	}
	m.set(i.Spec.ID, machine.Running)
	m.mu.Lock()
	m.started++
	m.specs[i.Spec.ID] = i.Spec
	m.mu.Unlock()
	return nil
}

func (m *memory) Stop(ctx context.Context, i machine.Instance, how machine.StopMode) error {
	if err := m.enter(ctx, "Stop"); err != nil {
		return err
	}
	m.mu.Lock()
	m.stops = append(m.stops, how)
	m.mu.Unlock()
	m.set(i.Spec.ID, machine.Stopped)
	return nil
}

func (m *memory) Destroy(ctx context.Context, i machine.Instance) error {
	if err := m.enter(ctx, "Destroy"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.machines, i.Spec.ID)
	return nil
}

func (m *memory) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	return m.state(i.Spec.ID), m.enter(ctx, "State")
}

func (m *memory) SetPaused(ctx context.Context, i machine.Instance, paused bool) error {
	if err := errors.Join(m.enter(ctx, "SetPaused"), m.known(i)); err != nil {
		return err
	}
	m.set(i.Spec.ID, map[bool]machine.State{true: machine.Paused, false: machine.Running}[paused])
	return nil
}

func (m *memory) Save(ctx context.Context, i machine.Instance) error {
	if err := errors.Join(m.enter(ctx, "Save"), m.known(i)); err != nil {
		return err
	}
	m.set(i.Spec.ID, machine.Saved)
	return nil
}
