package libvirt

import (
	"context"
	"errors"
	"os"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/machine"
)

// undefine removes the domain from libvirt, with what libvirt keeps of it.
func (c *conn) undefine(ctx context.Context, dom rpc.Domain) error {
	flags := rpc.DomainUndefineManagedSave | rpc.DomainUndefineSnapshotsMetadata | rpc.DomainUndefineNvram | rpc.DomainUndefineCheckpointsMetadata
	err := c.ask(ctx, "removing domain "+dom.Name, func() error { return c.DomainUndefineFlags(dom, flags) })
	if is(err, rpc.ErrNoDomain) {
		return nil
	}
	return err
}

// Destroy implements machine.Driver.
func (d *Driver) Destroy(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	if s.Dir == "" {
		return errors.New("a machine without a folder")
	}
	p, there, err := placeOf(s.Dir)
	if err != nil || !there {
		return err
	}
	s.ID = p.ID
	c, err := d.connect(ctx, p.URI)
	if err != nil {
		return err
	}
	defer c.close()
	dom, there, err := c.find(ctx, p.ID)
	if err != nil {
		return err
	}
	if there {
		if err := c.powerOff(ctx, dom); err != nil {
			return err
		}
		d.at("off")
		if err := c.undefine(ctx, dom); err != nil {
			return err
		}
		d.at("undefined")
	}
	if err := d.storeOf(c, p).remove(ctx, s); err != nil {
		return err
	}
	d.at("files removed")
	return removePlace(s)
}

func removePlace(s machine.Spec) error { return gone(os.Remove(s.Path(placeFile))) }
