package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Stop implements machine.Driver.
func (d *Driver) Stop(ctx context.Context, i machine.Instance, how machine.StopMode) error {
	if how == machine.Shutdown {
		return d.shutdown(ctx, i)
	}
	if err := end(ctx, i.Spec.Dir); err != nil {
		return err
	}
	if err := finishRevert(i); err != nil {
		return err
	}
	return errors.Join(removeFile(i.Spec.Path(stateFile)), removeFile(i.Spec.Path(statePart)), removeFile(i.Spec.Path(savedFile)))
}

// shutdown presses the power button and waits.
func (d *Driver) shutdown(ctx context.Context, i machine.Instance) error {
	q, err := find(i.Spec.Dir)
	if err != nil || q == nil {
		return err
	}
	defer q.close()
	if err := d.command(ctx, i, "system_powerdown"); err != nil {
		return err
	}
	return q.gone(ctx)
}

// command runs one command without arguments on a monitor of its own.
func (d *Driver) command(ctx context.Context, i machine.Instance, name string) error {
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		return err
	}
	defer m.close()
	return m.call(ctx, name, nil, nil)
}

// SetPaused implements machine.Pauser.
func (d *Driver) SetPaused(ctx context.Context, i machine.Instance, paused bool) error {
	ctx, cancel := context.WithTimeout(ctx, launchPatience)
	defer cancel()
	state, err := d.settle(ctx, i)
	if err != nil {
		return err
	}
	if !state.Live() {
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	if paused {
		return d.command(ctx, i, "stop")
	}
	return d.command(ctx, i, "cont")
}

// Save implements machine.Saver.
func (d *Driver) Save(ctx context.Context, i machine.Instance) error {
	state, err := d.settle(ctx, i)
	if err != nil {
		return err
	}
	switch state {
	case machine.Saved:
		return nil
	case machine.Running, machine.Paused:
	default:
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	// The monitor is closed before the next step opens its own: it serves one
	// client at a time.
	if err := d.write(ctx, i); err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchPatience)
		defer cancel()
		return errors.Join(fmt.Errorf("saving %q: %w", i.Spec.Name, err), d.unsave(after, i, state))
	}
	// The memory is on disk: from here on the machine is saved, come what may.
	return end(ctx, i.Spec.Dir)
}

// unsave lets the guest run on after its memory could not be saved.
func (d *Driver) unsave(ctx context.Context, i machine.Instance, before machine.State) error {
	return errors.Join(removeFile(i.Spec.Path(statePart)), d.goOn(ctx, i, before))
}

// write stops the guest and writes its memory to state.bin, whole or not.
func (d *Driver) write(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	if err := d.dump(ctx, i, s.Path(savedFile), s.Path(statePart)); err != nil {
		return err
	}
	if err := os.Rename(s.Path(statePart), s.Path(stateFile)); err != nil {
		return err
	}
	return syncDir(s.Dir)
}

// dump stops the guest and writes its memory to the file named state, and how
// it was made to the one named saved. QEMU has let go of its disks then.
func (d *Driver) dump(ctx context.Context, i machine.Instance, saved, state string) error {
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		return err
	}
	defer m.close()
	l := launch{Layout: layout}
	if err := readJSON(i.Spec.Path(launchFile), &l); err != nil {
		// The command that started it was killed just before writing this down.
		if l.Accel, err = accelOf(ctx, m); err != nil {
			return err
		}
		if err := l.identify(ctx, m); err != nil {
			return err
		}
	}
	if err := writeJSON(saved, l); err != nil {
		return err
	}
	if status, err := m.status(ctx); err == nil && status == "postmigrate" {
		// A command was killed after it had written memory for a snapshot. QEMU
		// writes none twice without running in between.
		if err := m.call(ctx, "cont", nil, nil); err != nil {
			return err
		}
	}
	if err := heldByDisks(i.Spec); err != nil {
		return err
	}
	if err := m.heldByShares(ctx, i.Spec); err != nil {
		return err
	}
	if err := m.call(ctx, "stop", nil, nil); err != nil {
		return err
	}
	f, err := os.OpenFile(state, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.call(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(16 << 30)}, nil); err != nil {
		return err
	}
	if err := m.send(ctx, "getfd", map[string]string{"fdname": "state"}, nil, f); err != nil {
		return err
	}
	if err := m.call(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil); err != nil {
		if isShareHold(err.Error()) {
			return mounted(i.Spec, err)
		}
		return blocked(err)
	}
	if err := m.migrated(ctx); err != nil {
		return err
	}
	if l.Disks, err = stamps(i.Spec); err != nil {
		return err
	}
	if len(l.Disks) > 0 {
		if err := writeJSON(saved, l); err != nil {
			return err
		}
	}
	return f.Sync()
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func accelOf(ctx context.Context, m *monitor) (string, error) {
	var kvm struct{ Enabled bool }
	if err := m.call(ctx, "query-kvm", nil, &kvm); err != nil {
		return "", err
	}
	if kvm.Enabled {
		return accelKVM, nil
	}
	return accelTCG, nil
}

func blocked(err error) error {
	return fail.New(fail.Failed, "%w", err).Hint("'mica stop --shutdown' or '--power-off' ends it without saving")
}

const migrationPoll = 20 * time.Millisecond

// migrated waits for the memory to be written or read.
func (m *monitor) migrated(ctx context.Context) error {
	for {
		failed, over, err := m.migration(ctx)
		if err != nil || over {
			return errors.Join(err, failed)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(migrationPoll):
		}
	}
}

// migration asks whether memory is still moving, and if not, why it failed.
func (m *monitor) migration(ctx context.Context) (failed error, over bool, err error) {
	var info struct {
		Status string
		Desc   string   `json:"error-desc"`
		Why    []string `json:"blocked-reasons"`
	}
	if err := m.call(ctx, "query-migrate", nil, &info); err != nil {
		return nil, false, err
	}
	switch info.Status {
	case "completed":
		return nil, true, nil
	case "failed", "cancelled", "", "none":
		why := info.Desc
		if why == "" && len(info.Why) > 0 {
			why = info.Why[0]
		}
		if why == "" {
			why = "qemu does not say why"
		}
		return blocked(fmt.Errorf("the memory did not go: %s", why)), true, nil
	}
	return nil, false, nil
}

// restore starts the machine from its saved memory.
func (d *Driver) restore(ctx context.Context, i machine.Instance) error {
	var l launch
	err := readJSON(i.Spec.Path(savedFile), &l)
	if err == nil && (l.Layout < 1 || l.Layout > layout) {
		err = fmt.Errorf("it was saved by another version of mica, which gives machines other devices (%d, not up to %d)", l.Layout, layout)
	}
	if err != nil {
		return fail.New(fail.Failed, "going on with %q: %w", i.Spec.Name, err).
			Hint("'mica stop --power-off %s' drops the saved memory; the disk stays", i.Spec.Name)
	}
	if err := d.ready(i.Spec); err != nil {
		return err
	}
	if err := checkStamps(i.Spec, l.Disks); err != nil {
		return fmt.Errorf("starting %q: %w", i.Spec.Name, err)
	}
	version := l.Version
	l.incoming, l.Disks = true, nil
	err = d.launch(ctx, i, l)
	if errors.Is(err, errLoad) {
		return fail.New(fail.Failed, "going on with %q, saved by QEMU %s: %w", i.Spec.Name, version, err).
			Hint("the saved memory is kept: start it where it was saved").
			Hint("or 'mica stop --power-off %s' drops it; the disk stays", i.Spec.Name)
	}
	return err
}

var errLoad = errors.New("qemu could not load the saved memory")

// load fills a waiting QEMU from state.bin and lets the guest go on.
func (d *Driver) load(ctx context.Context, i machine.Instance, m *monitor) error {
	s := i.Spec
	f, err := os.Open(s.Path(stateFile))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.send(ctx, "getfd", map[string]string{"fdname": "state"}, nil, f); err != nil {
		return err
	}
	if err := m.call(ctx, "migrate-incoming", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return fmt.Errorf("%w: %w", errLoad, err)
	}
	if err := m.migrated(ctx); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || ctx.Err() == nil { // QEMU 7 exits when the load fails
			return fmt.Errorf("%w: %w", errLoad, err)
		}
		return err
	}
	// Once the guest runs, its memory and disk part from the file. A command
	// killed here leaves a paused machine, which is as good as a running one.
	if err := os.Rename(s.Path(stateFile), s.Path(stateLoaded)); err != nil {
		return err
	}
	if err := m.call(ctx, "cont", nil, nil); err != nil {
		return errors.Join(err, os.Rename(s.Path(stateLoaded), s.Path(stateFile)))
	}
	return errors.Join(removeFile(s.Path(stateLoaded)), removeFile(s.Path(savedFile)))
}
