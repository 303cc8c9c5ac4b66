package libvirt

import (
	"context"
	"fmt"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Change implements machine.Changer. What people have changed in the domain
// with libvirt's own tools stays.
func (d *Driver) Change(ctx context.Context, i machine.Instance, to machine.Spec) (machine.Instance, error) {
	at := i
	at.Spec.Dir = to.Dir
	c, p, dom, err := d.need(ctx, at)
	if err != nil {
		return i, err
	}
	defer c.close()
	state, err := c.state(ctx, dom)
	if err != nil {
		return i, err
	}
	if state != machine.Stopped {
		return i, fail.New(fail.Conflict, "%q is %s, not off", i.Spec.Name, state)
	}
	files := storeOf(c, p)
	m, err := files.media(ctx, to)
	if err != nil {
		return i, err
	}
	var doc string
	var snapshots int32
	err = c.ask(ctx, "looking at "+dom.Name, func() (err error) {
		if snapshots, err = c.DomainSnapshotNum(dom, 0); err == nil {
			doc, err = c.DomainGetXMLDesc(dom, rpc.DomainXMLInactive|rpc.DomainXMLSecure)
		}
		return err
	})
	if err != nil {
		return i, err
	}
	now, err := changed(doc, to, m)
	if err != nil {
		return i, err
	}
	if snapshots > 0 && (domainName(to) != dom.Name || p.Pool == "" && i.Spec.Dir != to.Dir) {
		return i, fail.New(fail.Conflict, "%q has %d snapshots, which hold its name and its files' paths", i.Spec.Name, snapshots).
			Hint("drop them first")
	}
	if err := files.grow(ctx, to, to.DiskMiB*mebi); err != nil {
		return i, err
	}
	if domainName(to) != dom.Name {
		err := c.ask(ctx, "renaming "+dom.Name, func() error {
			_, err := c.DomainRename(dom, rpc.OptString{domainName(to)}, 0)
			return err
		})
		if err != nil {
			return i, refused(to, err)
		}
	}
	err = c.ask(ctx, "changing "+domainName(to), func() error {
		_, err := c.DomainDefineXMLFlags(now, 0)
		return err
	})
	if err != nil {
		if domainName(to) != dom.Name { // as it was
			renamed := dom
			renamed.Name = domainName(to)
			_ = c.ask(context.WithoutCancel(ctx), "renaming back", func() error {
				_, err := c.DomainRename(renamed, rpc.OptString{dom.Name}, 0)
				return err
			})
		}
		return i, err
	}
	i.Spec = to
	i.Spec.Context, i.Spec.PublicKeys = nil, nil
	return i, nil
}

// changed is the domain's XML with what can change of a machine.
func changed(doc string, to machine.Spec, m media) (string, error) {
	var x libvirtxml.Domain
	if err := x.Unmarshal(doc); err != nil {
		return "", fmt.Errorf("reading the domain's XML: %w", err)
	}
	x.Name, x.Title = domainName(to), title(to)
	x.Memory = &libvirtxml.DomainMemory{Value: uint(to.MemoryMiB), Unit: "MiB"}
	x.CurrentMemory = nil
	x.VCPU = &libvirtxml.DomainVCPU{Value: uint(to.CPUs)}
	if x.Metadata == nil || !strings.Contains(x.Metadata.XML, namespace) {
		return "", fail.New(fail.Conflict, "domain %s is not Mica's", x.Name)
	}
	x.Metadata.XML = markPattern.ReplaceAllLiteralString(x.Metadata.XML, mark(to))
	if x.Devices == nil {
		return "", fail.New(fail.Failed, "domain %s has no devices", x.Name)
	}
	paths := map[string]string{"sda": m.image, "vdb": m.image, "sdb": m.config, "vda": m.disk}
	for n := range x.Devices.Disks {
		disk := &x.Devices.Disks[n]
		if disk.Target == nil || disk.Source == nil || disk.Source.File == nil {
			continue
		}
		if path := paths[disk.Target.Dev]; path != "" {
			disk.Source.File.File = path
		}
	}
	for n := range x.Devices.Serials {
		if log := x.Devices.Serials[n].Log; log != nil {
			log.File = m.log
		}
	}
	for n := range x.Devices.Consoles {
		if log := x.Devices.Consoles[n].Log; log != nil {
			log.File = m.log
		}
	}
	out, err := x.Marshal()
	if err != nil {
		return "", fmt.Errorf("writing the domain's XML: %w", err)
	}
	return withForwards(out, to), nil
}
