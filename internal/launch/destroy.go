package launch

import (
	"context"
	"fmt"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// destroy removes a machine, its disks, its folder and its record, in this
// order. One that runs or is paused is asked about; declining is success.
//
// Compat: a machine that is off or saved is not asked about (cernvm-launch:
// src/RequestHandler.cpp).
func (s *session) destroy(ctx context.Context, args []string) error {
	force, args := option(args, optForce)
	name, err := one(args, "destroy")
	if err != nil {
		return err
	}
	if sure, err := s.confirmed(ctx, name, force != ""); err != nil || !sure {
		return err
	}
	r, free, err := s.hold(ctx, name)
	if err != nil {
		return err
	}
	defer free()
	h := &held{record: r}
	if h.driver, err = s.Drivers.Get(r.driver()); err != nil {
		return err
	}
	return s.clear(ctx, h)
}

// confirmed asks before a live machine is destroyed. The record is not locked
// meanwhile: an answer may take long.
func (s *session) confirmed(ctx context.Context, name string, force bool) (bool, error) {
	r, err := s.get(name)
	if err != nil || force || r.values[micaPhase] != "" || r.values[keyVBoxID] == "" {
		return err == nil, err
	}
	h := &held{record: r}
	if err := s.look(ctx, h); err != nil {
		return false, fail.New(fail.Failed, "destroying %q: %w", name, err).Hint("'cernvm-launch destroy --force %s' removes it all the same", name)
	}
	if h.state != machine.Running && h.state != machine.Paused && h.state != machine.Crashed {
		return true, nil
	}
	answer, err := s.ask(ctx, fmt.Sprintf("The machine '%s' is %s. Do you really want to destroy it? [y/N]: ", name, h.state))
	return yes(answer), err
}

// clear removes what there is of a machine. The record goes last, so that a
// command cut short can be repeated.
func (s *session) clear(ctx context.Context, h *held) error {
	i, err := h.record.instance()
	if err != nil && i.Spec.ID != "" { // the driver's notes are damaged; it does without
		s.tell("note: %v", err)
	}
	if i.Spec.ID != "" {
		if h.values[micaPhase] != phaseDestroying {
			h.values[micaPhase], h.values[micaDriver] = phaseDestroying, h.record.driver()
			if err := h.save(); err != nil {
				s.Log.Warn("could not note the destruction", "machine", h.name(), "error", err) // a full disk must not stop it
			}
		}
		if err := h.driver.Destroy(ctx, i); err != nil {
			return fmt.Errorf("destroying %q: %w", h.name(), err)
		}
	}
	return s.forget(h.record)
}
