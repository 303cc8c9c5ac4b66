package libvirt

import (
	"context"
	"fmt"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

const (
	poll          = 50 * time.Millisecond
	settlePatient = 10 * time.Second // for a state that passes by itself
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

// needState is need with the domain's state.
func (d *Driver) needState(ctx context.Context, i machine.Instance) (*conn, place, rpc.Domain, machine.State, error) {
	c, p, dom, err := d.need(ctx, i)
	if err != nil {
		return nil, p, dom, "", err
	}
	state, err := c.state(ctx, dom)
	if err != nil {
		c.close()
		return nil, p, dom, "", err
	}
	return c, p, dom, state, nil
}

// needOff is need for what is done to machines that are off only.
func (d *Driver) needOff(ctx context.Context, i machine.Instance) (*conn, place, rpc.Domain, error) {
	c, p, dom, state, err := d.needState(ctx, i)
	if err == nil && state != machine.Stopped {
		c.close()
		err = fail.New(fail.Conflict, "%q is %s, not off", i.Spec.Name, state)
	}
	return c, p, dom, err
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
			if number, reason, err = c.DomainGetState(dom, 0); err == nil && rpc.DomainState(number) == rpc.DomainShutoff {
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
