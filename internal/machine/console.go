package machine

import (
	"context"
	"io"

	"github.com/micavm/mica/internal/fail"
)

// watch prepares looking at a machine without its lock: action must be allowed.
func (f *Fleet) watch(ctx context.Context, name string, action Action) (Machine, Driver, error) {
	m, err := f.Get(ctx, name)
	if err != nil {
		return m, nil, err
	}
	if m.State == Unknown || m.Record == nil {
		return m, nil, m.Err
	}
	if _, err := m.State.Allows(name, action); err != nil {
		return m, nil, err
	}
	d, err := f.Drivers.Get(m.Record.spec().Driver)
	return m, d, err
}

// Console opens the machine's serial console; closing it is the caller's.
func (f *Fleet) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	m, d, err := f.watch(ctx, name, DoConsole)
	if err != nil {
		return nil, err
	}
	c, ok := d.(Consoler)
	if !ok {
		return nil, fail.New(fail.Usage, "driver %q offers no console", m.Record.spec().Driver)
	}
	return c.Console(ctx, m.Record.Instance)
}

// Describe returns what the driver can say of a machine, as far as it can.
func (f *Fleet) Describe(ctx context.Context, m Machine) map[string]string {
	d, err := f.Drivers.Get(m.Record.spec().Driver)
	if err != nil {
		return nil
	}
	teller, ok := d.(Describer)
	if !ok {
		return nil
	}
	facts, err := teller.Describe(ctx, m.Record.Instance)
	if err != nil {
		f.log().Debug("describing a machine", "machine", m.Name, "error", err)
	}
	return facts
}

// View says where the machine's screen can be watched, as a URL.
func (f *Fleet) View(ctx context.Context, name string) (string, error) {
	m, d, err := f.watch(ctx, name, DoScreen)
	if err != nil {
		return "", err
	}
	v, ok := d.(Viewer)
	if !ok {
		return "", fail.New(fail.Usage, "driver %q shows no screen", m.Record.spec().Driver)
	}
	return v.View(ctx, m.Record.Instance)
}

// Screenshot writes a picture of the machine's screen, in PNG. It takes the
// lock: platforms have one way to ask, which a command that changes the
// machine needs, too.
func (f *Fleet) Screenshot(ctx context.Context, name string, w io.Writer) error {
	_, err := f.change(ctx, name, DoScreen, func(h *held) error {
		s, ok := h.driver.(Screener)
		if !ok {
			return fail.New(fail.Usage, "driver %q takes no screenshots", h.spec().Driver)
		}
		return s.Screenshot(ctx, h.Instance, w)
	})
	return err
}
