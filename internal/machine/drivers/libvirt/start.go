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

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Start implements machine.Driver.
func (d *Driver) Start(ctx context.Context, i machine.Instance) error {
	c, p, dom, state, err := d.needState(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	switch state {
	case machine.Running:
		return nil
	case machine.Paused:
		return c.resume(ctx, dom)
	case machine.Crashed:
		return fail.New(fail.Conflict, "%q is up, but the guest has crashed", i.Spec.Name).Hint("power it off first")
	case machine.Saved:
		if err := c.update(ctx, dom, i.Spec, true); err != nil {
			return err
		}
	default:
		if err := c.update(ctx, dom, i.Spec, false); err != nil {
			return err
		}
		if err := d.storeOf(c, p).freshLog(ctx, i.Spec); err != nil {
			return err
		}
		d.logs.forget(p.ID)
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

// watchKVM is how long KVM may take to give up on a guest, which it does at once.
const watchKVM = 500 * time.Millisecond

// watch sees whether KVM gives up on the guest: QEMU then stops it for no
// reason that libvirt knows, and stays.
func (c *conn) watch(ctx context.Context, dom rpc.Domain) error {
	l, err := c.live(ctx, dom)
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
	m, err := d.storeOf(c, p).media(ctx, s)
	if err != nil {
		return err
	}
	doc, err := domainXML(s, m, o, accelTCG)
	if err != nil {
		return err
	}
	return c.define(ctx, "redefining "+dom.Name, doc)
}

// define defines a domain, anew or once more.
func (c *conn) define(ctx context.Context, what, doc string) error {
	return c.ask(ctx, what, func() error {
		_, err := c.DomainDefineXMLFlags(doc, 0)
		return err
	})
}

// update gives the domain the forwards that the machine has now. Saved memory
// has a description of its own.
func (c *conn) update(ctx context.Context, dom rpc.Domain, s machine.Spec, saved bool) error {
	return c.ask(ctx, "updating "+dom.Name, func() (err error) {
		var doc string
		if saved {
			doc, err = c.DomainManagedSaveGetXMLDesc(dom, rpc.DomainXMLSecure)
		} else {
			doc, err = c.DomainGetXMLDesc(dom, rpc.DomainXMLInactive|rpc.DomainXMLSecure)
		}
		if err != nil {
			return err
		}
		now := withForwards(doc, s)
		switch {
		case now == doc:
		case saved:
			err = c.DomainManagedSaveDefineXML(dom, rpc.OptString{now}, rpc.DomainSaveRunning)
		default:
			_, err = c.DomainDefineXMLFlags(now, 0)
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
	case has("Permission denied") && has("fsdev", "virtiofsd"):
		return fail.New(fail.HostLacks, "libvirt's QEMU may not look into a shared folder: %w", err).
			Hint("let its user in: 'setfacl -m u:libvirt-qemu:x' for each folder above, and rwX for what is in it").
			Hint("or make the machine under your own daemon: --option uri=%s", sessionURI)
	case has("Permission denied") && has("storage file", "Could not open", "search permissions", "Failed to open"):
		return fail.New(fail.HostLacks, "libvirt's QEMU may not use the machine's files: %w", err).
			Hint("make the machine anew with its files in a storage pool: --option pool=%s", defaultPool).
			Hint("a disk of your own has to be where that user can reach it, as /var/lib/libvirt/images")
	case has(`Failed to get "write" lock`, "Failed to get shared"):
		return fail.New(fail.Conflict, "a disk of %q is in use: %w", s.Name, err).Hint("stop the other machine or program that uses it")
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
