package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/qemuimg"
	"github.com/micavm/mica/internal/undo"
)

// Create implements machine.Driver.
func (d *Driver) Create(ctx context.Context, s machine.Spec) (machine.Instance, error) {
	return d.create(ctx, s, nil)
}

// Clone implements machine.Cloner.
func (d *Driver) Clone(ctx context.Context, from machine.Instance, s machine.Spec) (machine.Instance, error) {
	c, _, _, err := d.needOff(ctx, from)
	if err != nil {
		return machine.Instance{}, err
	}
	defer c.close()
	return d.create(ctx, s, &from.Spec)
}

// create makes a machine, with the content of another one's disks if there is one.
func (d *Driver) create(ctx context.Context, s machine.Spec, from *machine.Spec) (machine.Instance, error) {
	o, err := d.options(s)
	if err != nil {
		return machine.Instance{}, err
	}
	if _, there, err := placeOf(s.Dir); err != nil {
		return machine.Instance{}, err
	} else if there {
		return machine.Instance{}, fail.New(fail.Conflict, "%s holds a machine already", s.Dir)
	}
	c, err := d.connect(ctx, o.uri)
	if err != nil {
		return machine.Instance{}, err
	}
	defer c.close()
	_, caps, err := d.look(ctx, c)
	if err != nil {
		return machine.Instance{}, err
	}
	if err := c.vacant(ctx, s.ID); err != nil {
		return machine.Instance{}, err
	}
	accel, err := d.choose(c.endpoint, caps, s)
	if err != nil {
		return machine.Instance{}, err
	}
	if err := c.check(ctx, s); err != nil {
		return machine.Instance{}, err
	}
	if s.Image.Format != "" && from == nil {
		size, err := qemuimg.Tool{Run: d.run}.Size(ctx, bootImage(s))
		if err != nil {
			return machine.Instance{}, err
		}
		s.DiskMiB = max(s.DiskMiB, (size+mebi-1)/mebi)
	}
	p := place{Schema: placeSchema, ID: s.ID, URI: o.uri, Pool: o.pool}
	if p.Pool == "" && !ownFiles(c.endpoint, caps) {
		p.Pool = defaultPool
	}
	var other *origin
	if from != nil {
		if other, err = originOf(*from, p); err != nil {
			return machine.Instance{}, err
		}
	}
	u := undo.New(d.log)
	defer u.Run(ctx)
	left := false // something could not be taken back: the note then tells Destroy where to look
	made := func(name string, back func(context.Context) error) {
		u.Add(name, func(ctx context.Context) error {
			err := back(ctx)
			left = left || err != nil
			return err
		})
	}
	u.Add("note of the place", func(context.Context) error {
		if left || !c.IsConnected() { // what was under way when the connection ended may be there
			return errors.New("something may be left there")
		}
		return removePlace(s)
	})
	if err := p.save(s.Dir); err != nil {
		return machine.Instance{}, err
	}
	d.at("placed")
	m, err := d.storeOf(c, p).make(ctx, s, other, made)
	if err != nil {
		return machine.Instance{}, err
	}
	d.at("files")
	doc, err := domainXML(s, m, o, accel)
	if err != nil {
		return machine.Instance{}, fmt.Errorf("describing the machine: %w", err)
	}
	var dom rpc.Domain
	err = c.ask(ctx, "defining the machine", func() (err error) {
		dom, err = c.DomainDefineXMLFlags(doc, 0)
		return err
	})
	if err != nil {
		return machine.Instance{}, refused(s, err)
	}
	made("domain "+dom.Name, func(ctx context.Context) error { return c.undefine(ctx, dom) })
	d.at("defined")
	if err := ctx.Err(); err != nil {
		return machine.Instance{}, fmt.Errorf("creating machine: %w", err)
	}
	u.Release()
	s.Context, s.PublicKeys = nil, nil
	return machine.Instance{Spec: s}, nil
}

// origin is the machine whose disks a new one begins with.
type origin struct {
	spec machine.Spec
	place
}

func originOf(from machine.Spec, to place) (*origin, error) {
	p, there, err := placeOf(from.Dir)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, fail.New(fail.NotFound, "libvirt does not know %q", from.Name)
	}
	if p.URI != to.URI || p.Pool != to.Pool {
		return nil, fail.New(fail.Usage, "the disks of %q are at %s, and would have to be copied to %s", from.Name, p, to).
			Hint("clone it where it is")
	}
	return &origin{from, p}, nil
}

// String says where, for people.
func (p place) String() string {
	if p.Pool == "" {
		return p.URI
	}
	return p.URI + ", pool " + p.Pool
}

// ownFiles reports whether the daemon's QEMU can use files of the caller: it
// runs under the caller's uid, on this computer.
func ownFiles(e endpoint, caps capabilities) bool {
	return !e.remote() && (e.session || caps.qemuUID == os.Geteuid())
}

// Check implements machine.Checker.
func (d *Driver) Check(ctx context.Context, s machine.Spec) error {
	o, err := d.options(s)
	if err != nil {
		return err
	}
	e, err := parseURI(o.uri, os.Geteuid())
	if err != nil {
		return err
	}
	c, err := d.connect(ctx, o.uri)
	if err != nil {
		return err
	}
	defer c.close()
	_, caps, err := d.look(ctx, c)
	if err != nil {
		return err
	}
	if _, err := d.choose(e, caps, s); err != nil {
		return err
	}
	if s.Image.Format != "" {
		if err := (qemuimg.Tool{Run: d.run}).Usable(ctx); err != nil {
			return err
		}
	}
	if o.pool != "" || !ownFiles(e, caps) {
		if o.pool == "" {
			o.pool = defaultPool
		}
		if _, err := (&pool{c: c, name: o.pool}).open(ctx); err != nil {
			return err
		}
	}
	return c.check(ctx, s)
}

// vacant refuses the id of a domain that is there, whoever's it is.
func (c *conn) vacant(ctx context.Context, id string) error {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return fmt.Errorf("the machine's id %q: %w", id, err)
	}
	err = c.ask(ctx, "looking for domain "+id, func() error {
		_, err := c.DomainLookupByUUID(rpc.UUID(parsed))
		return err
	})
	if err == nil {
		return fail.New(fail.Conflict, "libvirt at %s has a domain %s already", c.uri, id)
	}
	if is(err, rpc.ErrNoDomain) {
		return nil
	}
	return err
}

// check refuses what this daemon cannot do.
func (c *conn) check(ctx context.Context, s machine.Spec) error {
	if err := c.checkShares(s); err != nil {
		return err
	}
	for _, disk := range s.Disks {
		if disk.Path != "" && c.remote() {
			return fail.New(fail.Usage, "disk %s is on this computer, and the machine on %s", disk.Path, c.host).
				Hint("give a size instead, for an empty disk there")
		}
	}
	if c.session && s.ExecutionCap > 0 && s.ExecutionCap < 100 {
		return fail.New(fail.HostLacks, "libvirt sessions cannot limit processor time").
			Hint("leave out the execution cap, or use the system's daemon: --option uri=%s", systemURI)
	}
	if err := c.checkFirmware(ctx, s); err != nil {
		return err
	}
	if userNet(s) {
		return nil
	}
	return c.checkNetwork(ctx, s.Network)
}

func (c *conn) checkShares(s machine.Spec) error {
	if c.remote() && len(s.Shares) > 0 {
		return fail.New(fail.Usage, "folders of this computer cannot be shared with a machine on %s", c.host).
			Hint("leave out --share, or run the machine here")
	}
	return nil
}

func (c *conn) checkNetwork(ctx context.Context, name string) error {
	var active int32
	err := c.ask(ctx, "looking for network "+name, func() error {
		n, err := c.NetworkLookupByName(name)
		if err == nil {
			active, err = c.NetworkIsActive(n)
		}
		return err
	})
	switch {
	case is(err, rpc.ErrNoNetwork):
		return fail.New(fail.NotFound, "%w", err).Hint("'virsh -c %s net-list --all' shows the networks; %q needs none", c.uri, machine.NAT)
	case err != nil:
		return err
	case active == 0:
		return fail.New(fail.HostLacks, "network %q of libvirt is not active", name).Hint("start it: 'virsh -c %s net-start %s'", c.uri, name)
	}
	return nil
}

// refused names the cause where libvirt does not take a definition.
func refused(s machine.Spec, err error) error {
	switch {
	case strings.Contains(err.Error(), "already exists with uuid"), is(err, rpc.ErrDomExist):
		return fail.New(fail.Conflict, "a domain named %q that is not this machine's is in the way: %w", domainName(s), err).
			Hint("choose another name")
	case strings.Contains(err.Error(), "read-only mode"):
		return fail.New(fail.HostLacks, "%w", err).Hint("this libvirt shares folders read-only by 9p only: --option shares=9p")
	}
	return err
}
