package libvirt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/undo"
)

// Change implements machine.Changer. What people have changed in the domain
// with libvirt's own tools stays.
func (d *Driver) Change(ctx context.Context, i machine.Instance, to machine.Spec) (machine.Instance, error) {
	at := i
	at.Spec.Dir = to.Dir
	c, p, dom, err := d.needOff(ctx, at)
	if err != nil {
		return i, err
	}
	defer c.close()
	if err := c.checkShares(to); err != nil {
		return i, err
	}
	if err := c.kept(ctx, dom, i.Spec, to, p.Pool == ""); err != nil {
		return i, err
	}
	files := d.storeOf(c, p)
	now, err := d.description(ctx, c, files, dom, i.Spec, to)
	if err != nil {
		return i, err
	}
	u := undo.New(d.log)
	defer u.Run(ctx)
	if !slices.Equal(i.Spec.Shares, to.Shares) {
		if err := renew(ctx, files, to, u); err != nil {
			return i, err
		}
		d.at("medium")
	}
	if err := files.grow(ctx, to, to.DiskMiB*mebi); err != nil { // a disk that is larger does no harm
		return i, err
	}
	d.at("grown")
	if name := domainName(to); name != dom.Name {
		if err := c.rename(ctx, dom, name); err != nil {
			return i, refused(to, err)
		}
		renamed, old := dom, dom.Name
		renamed.Name = name
		u.Add("name of the domain", func(ctx context.Context) error { return c.rename(ctx, renamed, old) })
		d.at("renamed")
	}
	if err := c.define(ctx, "changing "+domainName(to), now); err != nil {
		return i, err
	}
	u.Release()
	i.Spec = to
	i.Spec.Context, i.Spec.PublicKeys = nil, nil
	return i, nil
}

func (c *conn) rename(ctx context.Context, dom rpc.Domain, name string) error {
	return c.ask(ctx, "renaming "+dom.Name, func() error {
		_, err := c.DomainRename(dom, rpc.OptString{name}, 0)
		return err
	})
}

// kept refuses what snapshots rule out: they hold the domain as it was, its
// name and the paths of its files, and memory loads into the same devices only.
func (c *conn) kept(ctx context.Context, dom rpc.Domain, from, to machine.Spec, inFolder bool) error {
	moved := domainName(to) != dom.Name || inFolder && from.Dir != to.Dir
	resized := from.MemoryMiB != to.MemoryMiB || from.CPUs != to.CPUs || from.DiskMiB != to.DiskMiB
	shares := !slices.Equal(from.Shares, to.Shares)
	if !moved && !resized && !shares {
		return nil
	}
	all, err := c.snapshots(ctx, dom)
	if err != nil {
		return err
	}
	for _, s := range all {
		drop := func(err *fail.Error) error {
			return err.Hint("'mica snapshot delete %s %s' makes the way free", from.Name, s.Name)
		}
		switch {
		case moved:
			return drop(fail.New(fail.Conflict, "snapshot %q of %q holds its name and its files' paths", s.Name, from.Name))
		case shares:
			return drop(fail.New(fail.Conflict, "snapshot %q of %q holds the shared folders of now", s.Name, from.Name))
		case s.Memory:
			return drop(fail.New(fail.Conflict, "snapshot %q of %q holds the memory of a machine of this size", s.Name, from.Name))
		}
	}
	return nil
}

// renew writes the medium with the machine's context anew.
func renew(ctx context.Context, files store, s machine.Spec, u *undo.Stack) error {
	if s.Context == nil {
		return errors.New("the context's medium cannot be written without the context")
	}
	fresh, err := configDrive(ctx, s)
	if err != nil {
		return err
	}
	before, err := files.config(ctx, s)
	if err != nil {
		return err
	}
	u.Add("medium of the context", func(ctx context.Context) error { return files.setConfig(ctx, s, before) })
	return files.setConfig(ctx, s, fresh)
}

// reapply gives the domain what a snapshot has taken back besides the content
// of the disks: what was changed of the machine since.
func (d *Driver) reapply(ctx context.Context, c *conn, p place, dom rpc.Domain, s machine.Spec) error {
	files := d.storeOf(c, p)
	now, err := d.description(ctx, c, files, dom, s, s)
	if err != nil {
		return err
	}
	if err := c.define(ctx, "changing "+dom.Name, now); err != nil {
		return err
	}
	return files.grow(ctx, s, s.DiskMiB*mebi)
}

// description is the domain's XML as it is to be.
func (d *Driver) description(ctx context.Context, c *conn, files store, dom rpc.Domain, from, to machine.Spec) (string, error) {
	o, err := d.options(to)
	if err != nil {
		return "", err
	}
	m, err := files.media(ctx, to)
	if err != nil {
		return "", err
	}
	var doc string
	err = c.ask(ctx, "looking at "+dom.Name, func() (err error) {
		doc, err = c.DomainGetXMLDesc(dom, rpc.DomainXMLInactive|rpc.DomainXMLSecure)
		return err
	})
	if err != nil {
		return "", err
	}
	return changed(doc, from, to, m, o)
}

// changed is the domain's XML with what can change of a machine.
func changed(doc string, from, to machine.Spec, m media, o options) (string, error) {
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
	if x.OS != nil && x.OS.NVRam != nil && m.nvram != "" {
		x.OS.NVRam.NVRam = m.nvram
	}
	paths := map[string]string{}
	for _, disk := range disks(to, m) {
		paths[disk.Target.Dev] = disk.Source.File.File
	}
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
	if !slices.Equal(from.Shares, to.Shares) {
		share(&x, from, to, o)
	}
	out, err := x.Marshal()
	if err != nil {
		return "", fmt.Errorf("writing the domain's XML: %w", err)
	}
	return withForwards(out, to), nil
}

// share gives the domain the machine's shared folders in place of those it had.
func share(x *libvirtxml.Domain, from, to machine.Spec, o options) {
	ours := map[string]bool{}
	for _, s := range []machine.Spec{from, to} { // a killed change may have put them there already
		for _, fs := range filesystems(s, o) {
			ours[fs.Target.Dir] = true
		}
	}
	x.Devices.Filesystems = slices.DeleteFunc(x.Devices.Filesystems, func(fs libvirtxml.DomainFilesystem) bool {
		return fs.Target != nil && ours[fs.Target.Dir]
	})
	x.Devices.Filesystems = append(x.Devices.Filesystems, filesystems(to, o)...)
	if backing := memoryBacking(to, o); backing != nil && x.MemoryBacking == nil {
		x.MemoryBacking = backing
	}
}
