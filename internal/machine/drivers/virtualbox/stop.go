package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Stop implements machine.Driver.
func (d *Driver) Stop(ctx context.Context, i machine.Instance, how machine.StopMode) error {
	if how == machine.PowerOff {
		return d.powerOff(ctx, i.Spec.ID)
	}
	_, state, err := d.settle(ctx, i.Spec.ID)
	switch {
	case err != nil:
		return err
	case !state.Live():
		return nil
	case state != machine.Running:
		return fail.New(fail.Conflict, "%q is %s: it cannot shut itself down", i.Spec.Name, state)
	}
	if _, err := d.vbox(ctx, changePatience, "controlvm", i.Spec.ID, "acpipowerbutton"); err != nil {
		return err
	}
	const poll = 300 * time.Millisecond
	for {
		in, err := d.show(ctx, i.Spec.ID)
		if err != nil {
			return err
		}
		if m, err := in.mode(); err != nil || !m.state.Live() && in.holder() == "" {
			return err
		}
		if err := sleep(ctx, poll); err != nil {
			return fmt.Errorf("waiting for the guest to shut down: %w", err)
		}
	}
}

// powerOff ends the machine, or drops its saved memory.
func (d *Driver) powerOff(ctx context.Context, id string) error {
	in, err := d.show(ctx, id)
	if err != nil {
		return err
	}
	m, err := in.mode()
	if err != nil {
		return err
	}
	if m.passing {
		if _, m.state, err = d.settle(ctx, id); fail.Is(err, fail.TimedOut) {
			return d.emergency(ctx, id)
		} else if err != nil {
			return err
		}
	}
	switch m.state {
	case machine.Absent, machine.Stopped:
		return nil
	case machine.Saved:
		_, err = d.vbox(ctx, longPatience, "discardstate", id)
	default:
		_, err = d.vbox(ctx, changePatience, "controlvm", id, "poweroff")
	}
	if fail.Is(err, fail.TimedOut) && ctx.Err() == nil {
		return d.emergency(ctx, id)
	}
	// It may have ended by itself just before: what counts is how it is now.
	_, state, serr := d.settle(ctx, id)
	if serr != nil {
		return errors.Join(err, serr)
	}
	if state.Live() || state == machine.Saved {
		return errors.Join(err, fmt.Errorf("VirtualBox says that it is %s", state))
	}
	return nil
}

// emergency ends a machine whose process does not answer. Releases before 7.0
// have no command for that.
func (d *Driver) emergency(ctx context.Context, id string) error {
	_, err := d.vbox(ctx, changePatience, "startvm", id, "--type", "emergencystop")
	_, state, serr := d.settle(ctx, id)
	if serr == nil && !state.Live() {
		return nil
	}
	return fail.New(fail.Failed, "the machine's process does not answer, and cannot be ended: %w", errors.Join(err, serr)).
		Hint("end the process VBoxHeadless or VirtualBoxVM whose command line has %s", id)
}

// SetPaused implements machine.Pauser.
func (d *Driver) SetPaused(ctx context.Context, i machine.Instance, paused bool) error {
	verb, want := "resume", machine.Running
	if paused {
		verb, want = "pause", machine.Paused
	}
	_, state, err := d.settle(ctx, i.Spec.ID)
	switch {
	case err != nil:
		return err
	case state == want:
		return nil
	case state != machine.Running && state != machine.Paused:
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	_, err = d.vbox(ctx, changePatience, "controlvm", i.Spec.ID, verb)
	if _, state, serr := d.settle(ctx, i.Spec.ID); serr == nil && state == want {
		return nil
	} else if err == nil {
		err = errors.Join(serr, fmt.Errorf("VirtualBox says that it is %s", state))
	}
	return fmt.Errorf("%s %q: %w", verb, i.Spec.Name, err)
}

// Save implements machine.Saver. VirtualBox writes on when VBoxManage is ended:
// a cancelled save is waited for, and a machine that is saved by then stays so.
func (d *Driver) Save(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	_, before, err := d.settle(ctx, s.ID)
	switch {
	case err != nil:
		return err
	case before == machine.Saved:
		return nil
	case before != machine.Running && before != machine.Paused:
		return fail.New(fail.Conflict, "%q is %s", s.Name, before)
	}
	_, err = d.vbox(ctx, longPatience, "controlvm", s.ID, "savestate")
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), longPatience)
	defer cancel()
	state, serr := d.saved(after, s.ID)
	switch {
	case serr != nil:
		return fmt.Errorf("saving %q: %w", s.Name, errors.Join(err, serr))
	case state == machine.Saved:
		return nil
	case err == nil:
		err = fmt.Errorf("VirtualBox says that it is %s", state)
	}
	if before == machine.Running && state == machine.Paused { // it stood still to be saved
		_, rerr := d.vbox(after, changePatience, "controlvm", s.ID, "resume")
		err = errors.Join(err, rerr)
	}
	return fail.New(fail.ClassOf(err), "saving %q: %w", s.Name, err).
		Hint("'mica stop --shutdown' or '--power-off' ends it without saving")
}

// saved waits for the end of a save, which may take longer than other changes.
func (d *Driver) saved(ctx context.Context, id string) (machine.State, error) {
	for {
		_, state, err := d.settle(ctx, id)
		if !fail.Is(err, fail.TimedOut) || ctx.Err() != nil {
			return state, err
		}
	}
}
