package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/machine"
)

// SetForwards implements machine.Forwarder. The Spec is where the machine's
// ports are now. One that is not live gets its ports when it starts.
func (d *Driver) SetForwards(ctx context.Context, i machine.Instance, forwards []machine.Forward) error {
	state, err := d.settle(ctx, i)
	if err != nil || !state.Live() {
		return err
	}
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		return err
	}
	defer m.close()
	has := func(list []machine.Forward, f machine.Forward) bool {
		return slices.ContainsFunc(list, func(o machine.Forward) bool { return o.Host == f.Host && o.Guest == f.Guest })
	}
	// One host port may go from one port of the guest to another: what is no
	// longer wanted goes first, and comes back if the rest fails.
	var undo []func(context.Context) error
	back := func(err error) error {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusPatience)
		defer cancel()
		for _, one := range slices.Backward(undo) {
			err = errors.Join(err, one(after))
		}
		return err
	}
	for _, f := range i.Spec.Forwards {
		if has(forwards, f) {
			continue
		}
		if err := m.unforward(ctx, f); err != nil {
			return back(err)
		}
		undo = append(undo, func(ctx context.Context) error { return m.forward(ctx, f) })
	}
	for _, f := range forwards {
		if has(i.Spec.Forwards, f) {
			continue
		}
		if err := m.forward(ctx, f); err != nil {
			return back(err)
		}
		undo = append(undo, func(ctx context.Context) error { return m.unforward(ctx, f) })
	}
	return nil
}

// human runs a command of the monitor for people: QMP has none for these. They
// say what is wrong in words, and nothing if all is well.
func (m *monitor) human(ctx context.Context, line string) (string, error) {
	var says string
	err := m.call(ctx, "human-monitor-command", map[string]string{"command-line": line}, &says)
	return strings.TrimSpace(says), err
}

func (m *monitor) forward(ctx context.Context, f machine.Forward) error {
	says, err := m.human(ctx, fmt.Sprintf("hostfwd_add net0 tcp:127.0.0.1:%d-:%d", f.Host, f.Guest))
	if err != nil {
		return err
	}
	if says != "" {
		return &machine.PortTaken{Port: f.Host, Err: fmt.Errorf("qemu says: %s", says)}
	}
	return nil
}

func (m *monitor) unforward(ctx context.Context, f machine.Forward) error {
	says, err := m.human(ctx, fmt.Sprintf("hostfwd_remove net0 tcp:127.0.0.1:%d", f.Host))
	if err != nil {
		return err
	}
	// One that is not there, or no longer, is as good as removed.
	if strings.Contains(says, "removed") || strings.Contains(says, "not found") || says == "" {
		return nil
	}
	return fmt.Errorf("qemu says: %s", says)
}
