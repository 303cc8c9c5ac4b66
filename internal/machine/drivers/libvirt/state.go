package libvirt

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

const (
	poll          = 50 * time.Millisecond
	settlePatient = 10 * time.Second       // for a state that passes by itself
	watchKVM      = 500 * time.Millisecond // for KVM to give up on a guest, which it does at once
)

// open finds the machine and connects to its daemon; the caller closes the
// connection if there is a place. A nil connection and no error mean that
// nothing was ever made.
func (d *Driver) open(ctx context.Context, i machine.Instance) (*conn, place, error) {
	p, there, err := placeOf(i.Spec.Dir)
	if err != nil || !there {
		return nil, p, err
	}
	c, err := d.connect(ctx, p.URI)
	return c, p, err
}

// find returns the machine's domain. One that has the id but not Mica's mark is
// somebody else's, and not found.
func (c *conn) find(ctx context.Context, id string) (rpc.Domain, bool, error) {
	var dom rpc.Domain
	parsed, err := uuid.Parse(id)
	if err != nil {
		return dom, false, fmt.Errorf("the machine's id %q: %w", id, err)
	}
	err = c.ask(ctx, "looking for domain "+id, func() (err error) {
		if dom, err = c.DomainLookupByUUID(rpc.UUID(parsed)); err != nil {
			return err
		}
		_, err = c.DomainGetMetadata(dom, int32(rpc.DomainMetadataElement), rpc.OptString{namespace}, rpc.DomainAffectCurrent)
		return err
	})
	if is(err, rpc.ErrNoDomain) || is(err, rpc.ErrNoDomainMetadata) {
		return dom, false, nil
	}
	return dom, err == nil, err
}

// need is open and find for what makes sense only of a machine that is there.
func (d *Driver) need(ctx context.Context, i machine.Instance) (*conn, place, rpc.Domain, error) {
	c, p, err := d.open(ctx, i)
	if err != nil {
		return nil, p, rpc.Domain{}, err
	}
	gone := fail.New(fail.NotFound, "libvirt does not know %q", i.Spec.Name)
	if c == nil {
		return nil, p, rpc.Domain{}, gone
	}
	dom, there, err := c.find(ctx, p.ID)
	if err == nil && !there {
		err = gone
	}
	if err != nil {
		c.close()
		return nil, p, dom, err
	}
	return c, p, dom, nil
}

// State implements machine.Driver.
func (d *Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	c, p, err := d.open(ctx, i)
	if err != nil {
		return "", err
	}
	if c == nil {
		return machine.Absent, nil
	}
	defer c.close()
	dom, there, err := c.find(ctx, p.ID)
	if err != nil {
		return "", err
	}
	if !there {
		return machine.Absent, nil
	}
	return c.state(ctx, dom)
}

// state asks for the domain's state and waits until it is one that lasts.
func (c *conn) state(ctx context.Context, dom rpc.Domain) (machine.State, error) {
	for until := time.Now().Add(settlePatient); ; {
		var number, reason, saved int32
		err := c.ask(ctx, "asking for the state of "+dom.Name, func() (err error) {
			if number, reason, err = c.DomainGetState(dom, 0); err != nil {
				return err
			}
			if rpc.DomainState(number) == rpc.DomainShutoff {
				saved, err = c.DomainHasManagedSaveImage(dom, 0)
			}
			return err
		})
		if is(err, rpc.ErrNoDomain) {
			return machine.Absent, nil
		}
		if err != nil {
			return "", err
		}
		state, lasts := stateOf(rpc.DomainState(number), reason, saved != 0)
		if lasts || time.Now().After(until) {
			return state, nil
		}
		if err := wait(ctx, poll); err != nil {
			return "", fmt.Errorf("asking for the state of %s: %w", dom.Name, err)
		}
	}
}

func wait(ctx context.Context, t time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t):
		return nil
	}
}

// stateOf reads libvirt's state and reason (virDomainState and the enumerations
// after it, libvirt-domain.h). A state that does not last passes by itself.
func stateOf(number rpc.DomainState, reason int32, saved bool) (state machine.State, lasts bool) {
	switch number {
	case rpc.DomainRunning, rpc.DomainBlocked:
		return machine.Running, true
	case rpc.DomainPaused:
		switch rpc.DomainPausedReason(reason) {
		case rpc.DomainPausedCrashed:
			return machine.Crashed, true
		case rpc.DomainPausedShuttingDown, rpc.DomainPausedStartingUp:
			return machine.Paused, false
		}
		return machine.Paused, true // by its user, by an I/O error, while its memory is written
	case rpc.DomainPmsuspended:
		return machine.Paused, true
	case rpc.DomainCrashed:
		return machine.Crashed, true
	case rpc.DomainShutoff:
		if saved {
			return machine.Saved, true
		}
		return machine.Stopped, true
	case rpc.DomainShutdown: // the guest has ended, QEMU is about to
		return machine.Stopped, false
	}
	return machine.Paused, false // no state yet, or one that this program does not know
}

// Start implements machine.Driver.
func (d *Driver) Start(ctx context.Context, i machine.Instance) error {
	c, p, dom, err := d.need(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	state, err := c.state(ctx, dom)
	if err != nil {
		return err
	}
	switch state {
	case machine.Running:
		return nil
	case machine.Paused:
		return c.resume(ctx, dom)
	case machine.Crashed:
		return fail.New(fail.Conflict, "%q is up, but the guest has crashed", i.Spec.Name).Hint("power it off first")
	case machine.Saved:
		if err := c.updateSaved(ctx, dom, i.Spec); err != nil {
			return err
		}
	default:
		if err := c.update(ctx, dom, i.Spec); err != nil {
			return err
		}
		if err := storeOf(c, p).freshLog(ctx, i.Spec); err != nil {
			return err
		}
	}
	d.at("before start")
	err = c.start(ctx, dom, i.Spec, state)
	if errors.Is(err, errInternal) && i.Spec.Accel != accelKVM && state == machine.Stopped && ctx.Err() == nil {
		d.log.Warn("KVM does not run the guest, going on by emulation", "machine", i.Spec.Name)
		if err := d.emulate(ctx, c, p, dom, i.Spec); err != nil {
			return err
		}
		err = c.start(ctx, dom, i.Spec, state)
	}
	if errors.Is(err, errInternal) {
		return fail.New(fail.HostLacks, "starting %q: %w", i.Spec.Name, err).
			Hint("KVM of that computer does not run it; make the machine with --accel tcg")
	}
	if err == nil {
		d.at("started")
	}
	return err
}

// start starts the domain and sees it run; after an error, or if ctx has ended
// meanwhile, it is in the state it was in.
func (c *conn) start(ctx context.Context, dom rpc.Domain, s machine.Spec, before machine.State) error {
	what := fmt.Sprintf("starting %q", s.Name)
	err := c.callUntil(ctx, longPatience, patientEnd, what, func() error { return c.DomainCreate(dom) })
	if err != nil {
		return startFailed(s, err)
	}
	if err = ctx.Err(); err == nil {
		err = c.watch(ctx, dom)
	}
	if err == nil {
		return nil
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), longPatience)
	defer cancel()
	var undo error
	if before == machine.Saved {
		undo = c.save(after, dom)
	} else {
		undo = c.destroy(after, dom)
	}
	return errors.Join(fmt.Errorf("%s: %w", what, err), undo)
}

// watch sees whether KVM gives up on the guest: QEMU then stops it for no
// reason that libvirt knows, and stays.
func (c *conn) watch(ctx context.Context, dom rpc.Domain) error {
	var doc string
	err := c.ask(ctx, "looking at "+dom.Name, func() (err error) {
		doc, err = c.DomainGetXMLDesc(dom, 0)
		return err
	})
	if err != nil {
		return err
	}
	l, err := readLive(doc)
	if err != nil || l.Type != "kvm" {
		return err
	}
	for until := time.Now().Add(watchKVM); time.Now().Before(until); {
		var number, reason int32
		err := c.ask(ctx, "asking for the state of "+dom.Name, func() (err error) {
			number, reason, err = c.DomainGetState(dom, 0)
			return err
		})
		if err != nil {
			return err
		}
		if rpc.DomainState(number) == rpc.DomainPaused && rpc.DomainPausedReason(reason) == rpc.DomainPausedUnknown {
			return errInternal
		}
		if err := wait(ctx, poll); err != nil {
			return err
		}
	}
	return nil
}

// emulate makes the domain one that runs by emulation.
func (d *Driver) emulate(ctx context.Context, c *conn, p place, dom rpc.Domain, s machine.Spec) error {
	o, err := d.options(s)
	if err != nil {
		return err
	}
	m, err := storeOf(c, p).media(ctx, s)
	if err != nil {
		return err
	}
	doc, err := domainXML(s, m, o, accelTCG)
	if err != nil {
		return err
	}
	return c.ask(ctx, "redefining "+dom.Name, func() error {
		_, err := c.DomainDefineXMLFlags(doc, 0)
		return err
	})
}

// update gives the domain the forwards that the machine has now.
func (c *conn) update(ctx context.Context, dom rpc.Domain, s machine.Spec) error {
	return c.ask(ctx, "updating "+dom.Name, func() error {
		doc, err := c.DomainGetXMLDesc(dom, rpc.DomainXMLInactive|rpc.DomainXMLSecure)
		if err != nil {
			return err
		}
		if now := withForwards(doc, s); now != doc {
			_, err = c.DomainDefineXMLFlags(now, 0)
		}
		return err
	})
}

// updateSaved does so for a machine whose memory is saved, which has its own
// description.
func (c *conn) updateSaved(ctx context.Context, dom rpc.Domain, s machine.Spec) error {
	return c.ask(ctx, "updating what is saved of "+dom.Name, func() error {
		doc, err := c.DomainManagedSaveGetXMLDesc(dom, rpc.DomainXMLSecure)
		if err != nil {
			return err
		}
		if now := withForwards(doc, s); now != doc {
			err = c.DomainManagedSaveDefineXML(dom, rpc.OptString{now}, rpc.DomainSaveRunning)
		}
		return err
	})
}

var hostForward = regexp.MustCompile(`(?i)host forwarding rule '?tcp:[0-9.]*:(\d+)-`)

// startFailed finds the known causes in libvirt's and QEMU's words.
func startFailed(s machine.Spec, err error) error {
	text := err.Error()
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	if m := hostForward.FindStringSubmatch(text); m != nil {
		port, _ := strconv.Atoi(m[1])
		return &machine.PortTaken{Port: port, Err: err}
	}
	switch {
	case has("Permission denied") && has("storage file", "Could not open", "search permissions", "Failed to open"):
		return fail.New(fail.HostLacks, "libvirt's QEMU may not use the machine's files: %w", err).
			Hint("make the machine anew with its files in a storage pool: --option pool=%s", defaultPool)
	case has("No such file or directory") && has("storage file", "Could not open"):
		return fail.New(fail.NotFound, "a file of the machine is gone: %w", err)
	case has("failed to initialize kvm", "KVM is not available", "Could not access KVM"):
		return fail.New(fail.HostLacks, "%w", err).Hint("make the machine with --accel tcg, to run by emulation, several times slower")
	case has("Cannot allocate memory", "cannot set up guest memory"):
		return fail.New(fail.HostLacks, "that computer has no %d MiB of memory free: %w", s.MemoryMiB, err).Hint("ask for less with --memory")
	case has("No space left on device"):
		return fail.New(fail.Failed, "%w", err).Hint("free some space where libvirt keeps the machine's files")
	case has("network backend 'user'", "-netdev user", "expects a netdev backend type"):
		return fail.New(fail.HostLacks, "this QEMU has no user network: %w", err).
			Hint("use one of libvirt's networks, which its system daemon has: --network default")
	case has("is not active") && has("network"):
		return fail.New(fail.HostLacks, "%w", err).Hint("start the network: 'virsh net-start %s'", s.Network)
	}
	return err
}

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
	c, _, dom, err := d.need(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	state, err := c.state(ctx, dom)
	if err != nil {
		return err
	}
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
	c, _, dom, err := d.need(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	before, err := c.state(ctx, dom)
	if err != nil {
		return err
	}
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
