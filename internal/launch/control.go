package launch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
)

// The bare options of start, stop and destroy.
const (
	optWait     = "--wait"
	optShutdown = "--shutdown"
	optPowerOff = "--poweroff"
	optForce    = "--force"
)

// shutdownPatience is how long a system may take to end.
const shutdownPatience = 3 * time.Minute

// held is a machine whose record is locked.
type held struct {
	*record
	driver   machine.Driver
	instance machine.Instance
	state    machine.State
	free     func()
}

// holdMachine locks the machine of that name and asks for its state.
func (s *session) holdMachine(ctx context.Context, name string) (*held, error) {
	r, free, err := s.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	h := &held{record: r, free: free}
	if err := s.look(ctx, h); err != nil {
		free()
		return nil, err
	}
	return h, nil
}

func (s *session) look(ctx context.Context, h *held) (err error) {
	if h.driver, err = s.Drivers.Get(h.record.driver()); err != nil {
		return err
	}
	if h.values[micaPhase] != "" {
		return fail.New(fail.Conflict, "The machine %q is half made: a command was cut short", h.name()).
			Hint("'cernvm-launch destroy %s' clears it", h.name())
	}
	if h.instance, err = h.record.instance(); err != nil {
		return err
	}
	if h.state, err = h.driver.State(ctx, h.instance); err != nil {
		return fmt.Errorf("asking for the state of %q: %w", h.name(), err)
	}
	return nil
}

// with has do carry out an operation on the machine of that name, which is locked
// meanwhile and neither gone nor crashed.
func (s *session) with(ctx context.Context, name string, do func(h *held) error) error {
	h, err := s.holdMachine(ctx, name)
	if err != nil {
		return err
	}
	defer h.free()
	switch h.state {
	case machine.Absent:
		return lost(h)
	case machine.Crashed:
		return crashed(h)
	}
	return do(h)
}

func lost(h *held) error {
	return fail.New(fail.NotFound, "The machine %s is gone: %s does not know it", h.name(), h.record.driver()).
		Hint("'cernvm-launch destroy %s' clears its record", h.name())
}

func crashed(h *held) error {
	return fail.New(fail.Conflict, "The machine %s has crashed and cannot go on", h.name()).
		Hint("'cernvm-launch destroy --force %s' removes it", h.name())
}

// one returns the only argument.
func one(args []string, what string) (string, error) {
	if len(args) != 1 {
		return "", usage("Invalid arguments: '%s' takes one machine name", what)
	}
	return args[0], nil
}

// option takes one of the bare options off the front of the arguments.
//
// Compat: it stands before the name only; alone it is a name (cernvm-launch:
// src/RequestHandler.cpp).
func option(args []string, known ...string) (given string, rest []string) {
	if len(args) == 2 && slices.Contains(known, args[0]) {
		return args[0], args[1:]
	}
	return "", args
}

// start makes a machine run: from off, saved or paused.
//
// Differs: the original deletes the machine with its disks when the start fails
// three times in a minute, and ends with code 0 (libcernvm: src/SimpleFSM.cpp and
// src/Hypervisor/Virtualbox/VBoxSession.cpp). Here a failure is told and the
// machine stays as it was. With --wait it ends when the machine's SSH server
// answers.
func (s *session) start(ctx context.Context, args []string) error {
	wait, args := option(args, optWait)
	name, err := one(args, "start")
	if err != nil {
		return err
	}
	err = s.with(ctx, name, func(h *held) error {
		if wait != "" {
			if err := waitable(h.values); err != nil {
				return err
			}
		}
		switch h.state {
		case machine.Running:
			return nil
		case machine.Paused:
			return s.setPaused(ctx, h, false)
		case machine.Saved:
			s.warnContext(h)
		}
		return s.boot(ctx, h)
	})
	if err != nil || wait == "" {
		return err
	}
	return s.await(ctx, name)
}

// warnContext speaks of a context that was changed in the record since the
// machine got it.
//
// Differs: the original then drops the saved memory without a question, and for
// imported machines always.
func (s *session) warnContext(h *held) {
	if have := h.values[localContext]; have != "" && have != h.values[keyUserData] {
		s.tell("note: the context in the record of %s was changed; the machine goes on with the one it has", h.name())
	}
}

// boot starts a machine that is off or saved, on another port if its own was
// taken meanwhile.
func (s *session) boot(ctx context.Context, h *held) error {
	sink := progress.Or(s.Progress)
	sink.Emit(progress.Event{ID: h.name(), Phase: "starting"})
	if h.state == machine.Stopped {
		if err := s.furnishLegacy(ctx, h); err != nil {
			return fmt.Errorf("starting %q: %w", h.name(), err)
		}
	}
	taken := map[int]bool{}
	for {
		if err := s.claimPort(ctx, h, taken); err != nil {
			return err
		}
		err := h.driver.Start(ctx, h.instance)
		var port *machine.PortTaken
		if err == nil {
			break
		}
		if !errors.As(err, &port) || port.Port == 0 || taken[port.Port] {
			return fmt.Errorf("starting %q: %w", h.name(), err)
		}
		taken[port.Port] = true
	}
	sink.Emit(progress.Event{ID: h.name(), Phase: "started", Finished: true})
	return nil
}

// claimPort makes sure of the machine's port and notes it.
func (s *session) claimPort(ctx context.Context, h *held, taken map[int]bool) error {
	free, err := s.lock(ctx, createLock, "the list of machines")
	if err != nil {
		return err
	}
	defer free()
	port, err := s.pickPort(ctx, h.record, taken)
	if err != nil {
		return err
	}
	if had := h.instance.Spec.Forwards[0].Host; had != 0 && had != port {
		s.tell("note: port %d is taken by another program, %s gets port %d", had, h.name(), port)
	}
	h.instance.Spec.Forwards[0].Host = port
	if text := strconv.Itoa(port); h.values[localPort] != text {
		h.values[localPort], h.values[localHost] = text, "127.0.0.1"
		return h.save()
	}
	return nil
}

func (s *session) setPaused(ctx context.Context, h *held, paused bool) error {
	p, ok := h.driver.(machine.Pauser)
	if !ok {
		return fail.New(fail.Usage, "driver %q cannot pause a machine", h.record.driver())
	}
	return p.SetPaused(ctx, h.instance, paused)
}

// pause freezes a running machine.
//
// Differs: the original boots a machine that is off or saved, to pause it.
func (s *session) pause(ctx context.Context, args []string) error {
	name, err := one(args, "pause")
	if err != nil {
		return err
	}
	return s.with(ctx, name, func(h *held) error {
		switch h.state {
		case machine.Paused:
			return nil
		case machine.Running:
			return s.setPaused(ctx, h, true)
		}
		return fail.New(fail.Usage, "The machine %s cannot be paused: it is %s", name, h.state).Hint("'cernvm-launch start %s' makes it run", name)
	})
}

// stop saves a machine's memory to disk and ends it. With --shutdown the system
// in it is asked to end; with --poweroff it is not.
//
// Differs: the original boots a machine that is off, to save it, and says nothing
// of one it does not know. It has no options, and no way to switch a machine off
// but to destroy it.
func (s *session) stop(ctx context.Context, args []string) error {
	how, args := option(args, optShutdown, optPowerOff)
	name, err := one(args, "stop")
	if err != nil {
		return err
	}
	if how == optPowerOff { // the one that helps a machine that has crashed
		h, err := s.holdMachine(ctx, name)
		if err != nil {
			return err
		}
		defer h.free()
		if h.state == machine.Absent {
			return lost(h)
		}
		return s.end(ctx, h, machine.PowerOff)
	}
	return s.with(ctx, name, func(h *held) error {
		if how == optShutdown {
			return s.end(ctx, h, machine.Shutdown)
		}
		return s.save(ctx, h)
	})
}

// save writes a live machine's memory to disk.
func (s *session) save(ctx context.Context, h *held) error {
	switch h.state {
	case machine.Saved:
		return nil
	case machine.Stopped:
		s.tell("note: the machine %s is powered off", h.name())
		return nil
	}
	saver, ok := h.driver.(machine.Saver)
	if !ok {
		return fail.New(fail.Usage, "driver %q cannot save a machine", h.record.driver())
	}
	sink := progress.Or(s.Progress)
	sink.Emit(progress.Event{ID: h.name(), Phase: "saving"})
	if err := saver.Save(ctx, h.instance); err != nil {
		return fmt.Errorf("stopping %q: %w", h.name(), err)
	}
	sink.Emit(progress.Event{ID: h.name(), Phase: "saved", Finished: true})
	return nil
}

// end switches a machine off.
func (s *session) end(ctx context.Context, h *held, how machine.StopMode) error {
	name := h.name()
	switch {
	case h.state == machine.Stopped:
		s.tell("note: the machine %s is powered off", name)
		return nil
	case how == machine.Shutdown && h.state != machine.Running:
		return fail.New(fail.Usage, "The machine %s cannot be shut down: it is %s", name, h.state).
			Hint("'cernvm-launch start %s' makes it run", name).
			Hint("'cernvm-launch stop %s %s' drops its memory", optPowerOff, name)
	}
	sink := progress.Or(s.Progress)
	sink.Emit(progress.Event{ID: name, Phase: "switching off"})
	within := ctx
	if how == machine.Shutdown {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, shutdownPatience)
		defer cancel()
	}
	if err := h.driver.Stop(within, h.instance, how); err != nil {
		err = fmt.Errorf("stopping %q: %w", name, err)
		if within.Err() != nil && ctx.Err() == nil {
			return fail.New(fail.TimedOut, "%w", err).Hint("'cernvm-launch stop %s %s' switches it off at once", optPowerOff, name)
		}
		return err
	}
	sink.Emit(progress.Event{ID: name, Phase: "off", Finished: true})
	return nil
}
