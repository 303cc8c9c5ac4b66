package libvirt

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// snapshot finds one by name; false where there is none.
func (c *conn) snapshot(ctx context.Context, dom rpc.Domain, name string) (rpc.DomainSnapshot, bool, error) {
	var snap rpc.DomainSnapshot
	err := c.ask(ctx, "looking for snapshot "+name, func() (err error) {
		snap, err = c.DomainSnapshotLookupByName(dom, name, 0)
		return err
	})
	if is(err, rpc.ErrNoDomainSnapshot) {
		return snap, false, nil
	}
	return snap, err == nil, err
}

// needSnapshot is snapshot where there has to be one.
func (c *conn) needSnapshot(ctx context.Context, dom rpc.Domain, s machine.Spec, name string) (rpc.DomainSnapshot, error) {
	snap, there, err := c.snapshot(ctx, dom, name)
	if err == nil && !there {
		err = fail.New(fail.NotFound, "%q has no snapshot %q", s.Name, name)
	}
	return snap, err
}

// Snapshot implements machine.Snapshotter: inside the qcow2 disk.
func (d *Driver) Snapshot(ctx context.Context, i machine.Instance, name string) error {
	c, _, dom, state, err := d.needState(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	if _, there, err := c.snapshot(ctx, dom, name); err != nil {
		return err
	} else if there {
		return fail.New(fail.Conflict, "%q has a snapshot %q already", i.Spec.Name, name)
	}
	if state == machine.Saved {
		return fail.New(fail.Conflict, "%q is saved, and a snapshot would lack its memory", i.Spec.Name).
			Hint("'mica start %s' first", i.Spec.Name)
	}
	doc, err := (&libvirtxml.DomainSnapshot{Name: name}).Marshal()
	if err != nil {
		return err
	}
	err = c.call(ctx, longPatience, "making snapshot "+name, func() error {
		_, err := c.DomainSnapshotCreateXML(dom, doc, 0)
		return err
	})
	if err == nil {
		d.at("snapshot")
		return nil
	}
	switch text := err.Error(); {
	case strings.Contains(text, "unsupported for storage type"):
		return fail.New(fail.Conflict, "%w", err).Hint("only machines whose disks are all qcow2 have snapshots")
	case strings.Contains(text, "pflash"):
		return fail.New(fail.HostLacks, "%w", err).Hint("libvirt takes snapshots of machines with UEFI while they are off: 'mica stop --shutdown %s' first", i.Spec.Name)
	case strings.Contains(text, "igration is disabled"):
		return notSaved(i.Spec, err)
	}
	return err
}

// Snapshots implements machine.Snapshotter.
func (d *Driver) Snapshots(ctx context.Context, i machine.Instance) ([]machine.Snapshot, error) {
	c, _, dom, err := d.need(ctx, i)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.snapshots(ctx, dom)
}

// snapshots lists a domain's.
func (c *conn) snapshots(ctx context.Context, dom rpc.Domain) ([]machine.Snapshot, error) {
	var docs []string
	err := c.ask(ctx, "listing snapshots", func() error {
		all, _, err := c.DomainListAllSnapshots(dom, 1, 0)
		for _, snap := range all {
			doc, derr := c.DomainSnapshotGetXMLDesc(snap, 0)
			if is(derr, rpc.ErrNoDomainSnapshot) { // removed meanwhile
				continue
			}
			if derr != nil {
				return derr
			}
			docs = append(docs, doc)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return readSnapshots(docs)
}

// readSnapshots reads their XML and sorts them: libvirt notes the second only,
// but knows which one a snapshot was made on.
func readSnapshots(docs []string) ([]machine.Snapshot, error) {
	list := make([]machine.Snapshot, 0, len(docs))
	parent := map[string]string{}
	for _, doc := range docs {
		var x libvirtxml.DomainSnapshot
		if err := x.Unmarshal(doc); err != nil {
			return nil, fail.New(fail.Failed, "reading the XML of a snapshot: %w", err)
		}
		seconds, err := strconv.ParseInt(x.CreationTime, 10, 64)
		if err != nil {
			return nil, fail.New(fail.Failed, "snapshot %q was made at %q", x.Name, x.CreationTime)
		}
		list = append(list, machine.Snapshot{Name: x.Name, Time: time.Unix(seconds, 0).UTC(), Memory: hasMemory(x)})
		if x.Parent != nil {
			parent[x.Name] = x.Parent.Name
		}
	}
	depth := func(name string) (n int) {
		for at := parent[name]; at != "" && n < len(docs); at = parent[at] {
			n++
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b machine.Snapshot) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(depth(a.Name), depth(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

func hasMemory(x libvirtxml.DomainSnapshot) bool {
	return x.State == "running" || x.State == "paused" || x.State == "blocked"
}

// Revert implements machine.Snapshotter.
func (d *Driver) Revert(ctx context.Context, i machine.Instance, name string) error {
	c, p, dom, state, err := d.needState(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	snap, err := c.needSnapshot(ctx, dom, i.Spec, name)
	if err != nil {
		return err
	}
	if state.Live() {
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state).Hint("stop it first")
	}
	if state == machine.Saved { // that memory belongs to a disk that will be no more
		if err := c.powerOff(ctx, dom); err != nil {
			return err
		}
	}
	// Paused, a guest with memory does nothing before it is saved.
	err = c.call(ctx, longPatience, "reverting to snapshot "+name, func() error {
		doc, err := c.DomainSnapshotGetXMLDesc(snap, 0)
		if err != nil {
			return err
		}
		var x libvirtxml.DomainSnapshot
		if err := x.Unmarshal(doc); err != nil {
			return err
		}
		flags := rpc.DomainSnapshotRevertFlags(0)
		if hasMemory(x) {
			flags = rpc.DomainSnapshotRevertPaused
		}
		return c.DomainRevertToSnapshot(snap, uint32(flags))
	})
	if err != nil {
		return startFailed(i.Spec, err)
	}
	d.at("reverted")
	if state, err = c.state(ctx, dom); err != nil {
		return err
	}
	if state.Live() {
		return c.save(ctx, dom)
	}
	return d.reapply(ctx, c, p, dom, i.Spec)
}

// DropSnapshot implements machine.Snapshotter.
func (d *Driver) DropSnapshot(ctx context.Context, i machine.Instance, name string) error {
	c, _, dom, err := d.need(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	snap, err := c.needSnapshot(ctx, dom, i.Spec, name)
	if err != nil {
		return err
	}
	return c.call(ctx, longPatience, "removing snapshot "+name, func() error { return c.DomainSnapshotDelete(snap, 0) })
}
