package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
)

// AddForwards forwards more ports of a machine, live or not, and returns all it
// has then.
func (f *Fleet) AddForwards(ctx context.Context, name string, more []Forward) ([]Forward, error) {
	return f.setForwards(ctx, name, func(now []Forward) ([]Forward, error) {
		for _, one := range more {
			if one.Host != 0 && slices.ContainsFunc(now, func(o Forward) bool { return o.Host == one.Host }) {
				return nil, fail.New(fail.Conflict, "port %d leads to %q already", one.Host, name)
			}
		}
		return slices.Concat(now, more), nil
	})
}

// RemoveForwards takes forwarded ports, named by those of this computer, away.
func (f *Fleet) RemoveForwards(ctx context.Context, name string, hosts []int) ([]Forward, error) {
	return f.setForwards(ctx, name, func(now []Forward) ([]Forward, error) {
		for _, host := range hosts {
			i := slices.IndexFunc(now, func(o Forward) bool { return o.Host == host })
			if i < 0 {
				return nil, fail.New(fail.NotFound, "port %d of this computer does not lead to %q", host, name).
					Hint("'mica forward list %s' shows those that do", name)
			}
			now = slices.Delete(now, i, i+1)
		}
		return now, nil
	})
}

// setForwards changes the ports in the record first: a killed command leaves
// ports that the next start opens, never open ones that nobody knows.
func (f *Fleet) setForwards(ctx context.Context, name string, edit func([]Forward) ([]Forward, error)) ([]Forward, error) {
	var forwards []Forward
	_, err := f.change(ctx, name, DoForward, func(h *held) error {
		d, ok := h.driver.(Forwarder)
		if !ok {
			return fail.New(fail.Usage, "driver %q cannot change ports", h.spec().Driver)
		}
		before := h.Instance
		var err error
		if forwards, err = edit(slices.Clone(h.spec().Forwards)); err != nil {
			return err
		}
		if err := f.claim(ctx, h, forwards); err != nil {
			return err
		}
		if err := d.SetForwards(ctx, before, forwards); err != nil {
			h.Instance.Spec.Forwards = before.Spec.Forwards
			return errors.Join(named(name, err), f.note(h.Record, "ports", ""))
		}
		return nil
	})
	return forwards, err
}

// claim chooses the automatic ones among new ports and writes all of them down.
func (f *Fleet) claim(ctx context.Context, h *held, forwards []Forward) error {
	ports, err := atomicfile.Acquire(ctx, f.Home.portsLock())
	if err != nil {
		return fmt.Errorf("choosing ports: %w", err)
	}
	defer ports.Unlock() //nolint:errcheck // nothing to be done about it
	claimed := claimedPorts(f.records(h.spec().Name))
	for _, one := range forwards {
		claimed[one.Host] = true
	}
	for i, one := range forwards {
		if one.Host != 0 || !one.Auto {
			continue
		}
		if forwards[i].Host, err = freePort(ctx, claimed, nil); err != nil {
			return err
		}
		claimed[forwards[i].Host] = true
	}
	spec := h.spec()
	spec.Forwards = forwards
	if err := spec.Validate(); err != nil {
		return err
	}
	h.Instance.Spec = spec
	return f.note(h.Record, "ports", "")
}

// named gives a port that is taken its class and remedy.
func named(name string, err error) error {
	var taken *PortTaken
	if errors.As(err, &taken) {
		return fail.New(fail.Conflict, "forwarding ports to %q: %w", name, err).Hint("end the program that listens there, or choose another port")
	}
	return err
}
