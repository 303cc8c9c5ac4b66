package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Stop implements machine.Driver.
func (d *Driver) Stop(ctx context.Context, i machine.Instance, how machine.StopMode) error {
	c, p, err := d.open(ctx, i)
	if err != nil || c == nil {
		return err
	}
	defer c.close()
	dom, there, err := c.find(ctx, p.ID)
	if err != nil || !there {
		return err
	}
	if how == machine.Shutdown {
		return c.shutdown(ctx, dom)
	}
	return c.powerOff(ctx, dom)
}

// powerOff ends the domain at once, and drops its saved memory.
func (c *conn) powerOff(ctx context.Context, dom rpc.Domain) error {
	state, err := c.state(ctx, dom)
	if err != nil {
		return err
	}
	switch {
	case state.Live():
		return c.destroy(ctx, dom)
	case state == machine.Saved:
		return c.ask(ctx, "dropping the saved memory of "+dom.Name, func() error { return c.DomainManagedSaveRemove(dom, 0) })
	}
	return nil
}

// destroy is libvirt's word for pulling the plug. QEMU is asked first, and
// flushes its disks; if it does not listen it is killed.
func (c *conn) destroy(ctx context.Context, dom rpc.Domain) error {
	err := c.callUntil(ctx, longPatience, patientEnd, "powering off "+dom.Name, func() error { return c.DomainDestroyFlags(dom, 0) })
	if is(err, rpc.ErrOperationInvalid) || is(err, rpc.ErrNoDomain) { // it has ended meanwhile
		return nil
	}
	return err
}

// shutdown presses the power button and waits. Asked again and again: a guest
// that is still starting hears only the last time.
func (c *conn) shutdown(ctx context.Context, dom rpc.Domain) error {
	const again = 10 * time.Second
	var pressed time.Time
	for {
		state, err := c.state(ctx, dom)
		if err != nil {
			return err
		}
		if !state.Live() {
			return nil
		}
		if time.Since(pressed) > again {
			err := c.ask(ctx, "shutting down "+dom.Name, func() error { return c.DomainShutdownFlags(dom, rpc.DomainShutdownAcpiPowerBtn) })
			if err != nil && !is(err, rpc.ErrOperationInvalid) {
				return err
			}
			pressed = time.Now()
		}
		if err := wait(ctx, poll); err != nil {
			return fmt.Errorf("waiting for %s to shut down: %w", dom.Name, err)
		}
	}
}

// SetPaused implements machine.Pauser.
func (d *Driver) SetPaused(ctx context.Context, i machine.Instance, paused bool) error {
	c, _, dom, state, err := d.needState(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	switch {
	case !state.Live() || state == machine.Crashed:
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	case paused == (state == machine.Paused):
		return nil
	case paused:
		return c.ask(ctx, "pausing "+dom.Name, func() error { return c.DomainSuspend(dom) })
	}
	return c.resume(ctx, dom)
}

// resume lets a paused guest go on; one that has suspended itself is woken.
func (c *conn) resume(ctx context.Context, dom rpc.Domain) error {
	return c.ask(ctx, "resuming "+dom.Name, func() error {
		number, _, err := c.DomainGetState(dom, 0)
		if err != nil {
			return err
		}
		if rpc.DomainState(number) == rpc.DomainPmsuspended {
			return c.DomainPmWakeup(dom, 0)
		}
		return c.DomainResume(dom)
	})
}

// Save implements machine.Saver.
func (d *Driver) Save(ctx context.Context, i machine.Instance) error {
	c, _, dom, before, err := d.needState(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	switch before {
	case machine.Saved:
		return nil
	case machine.Running, machine.Paused:
	default:
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, before)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("saving %q: %w", i.Spec.Name, err)
	}
	// libvirt lets the guest go on if its memory cannot be written. The call
	// itself is not cut short by ctx: aborted, it ends soon.
	finished, aborted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(aborted)
		c.abort(ctx, dom, finished)
	}()
	err = c.save(context.WithoutCancel(ctx), dom)
	close(finished)
	<-aborted
	if err == nil {
		d.at("saved")
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), quickPatience)
	defer cancel()
	if state, serr := c.state(after, dom); serr == nil && state == machine.Paused && before == machine.Running {
		err = errors.Join(err, c.resume(after, dom))
	}
	return notSaved(i.Spec, err)
}

// abort ends the job that finished tells about if ctx ends first. It asks more
// than once: the job may not have begun. A daemon that hangs is left.
func (c *conn) abort(ctx context.Context, dom rpc.Domain, finished <-chan struct{}) {
	select {
	case <-finished:
		return
	case <-ctx.Done():
	}
	hangs := time.AfterFunc(patientEnd, func() { _ = c.pipe.Close() })
	defer hangs.Stop()
	for {
		_ = c.DomainAbortJob(dom) // that there is none is no mistake
		select {
		case <-finished:
			return
		case <-time.After(4 * poll):
		}
	}
}

// save writes the memory to libvirt's own folder; it will go on running, paused or not.
func (c *conn) save(ctx context.Context, dom rpc.Domain) error {
	return c.call(ctx, time.Hour, "saving "+dom.Name, func() error {
		return c.DomainManagedSave(dom, uint32(rpc.DomainSaveRunning))
	})
}

func notSaved(s machine.Spec, err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "VirtFS"), strings.Contains(text, "vhost-user-fs"), strings.Contains(text, "virtiofs"), strings.Contains(text, "Migration is disabled"):
		return fail.New(fail.Conflict, "%q uses a folder of this computer and cannot be saved: %w", s.Name, err).
			Hint("unmount /mnt/shared in the guest first (9p only), or use 'mica stop --shutdown'")
	case strings.Contains(text, "No space left"):
		return fail.New(fail.Failed, "%w", err).Hint("free some space where libvirt keeps saved memory (/var/lib/libvirt/qemu/save, ~/.config/libvirt)")
	}
	return fmt.Errorf("saving %q: %w", s.Name, err)
}
