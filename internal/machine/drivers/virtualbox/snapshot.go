package virtualbox

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// snapshotNode is a snapshot in VirtualBox's settings file. Its listing for
// programs tells neither the time nor whether there is memory.
type snapshotNode struct {
	UUID      string         `xml:"uuid,attr"`
	Name      string         `xml:"name,attr"`
	Time      string         `xml:"timeStamp,attr"`
	StateFile string         `xml:"stateFile,attr"`
	Children  []snapshotNode `xml:"Snapshots>Snapshot"`
}

// snapshotsIn reads a settings file.
func snapshotsIn(data []byte) ([]snapshotNode, error) {
	var file struct {
		Root []snapshotNode `xml:"Machine>Snapshot"`
	}
	if err := xml.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	var all []snapshotNode
	var walk func([]snapshotNode)
	walk = func(nodes []snapshotNode) {
		for _, n := range nodes {
			n.UUID = strings.Trim(n.UUID, "{}")
			all = append(all, n)
			walk(n.Children)
		}
	}
	walk(file.Root)
	sort.SliceStable(all, func(i, j int) bool { return all[i].Time < all[j].Time })
	return all, nil
}

// dropped begins the name of a snapshot that VirtualBox could not delete when
// it was dropped: it deletes none that the machine stands on while another one
// follows it, and none that several follow. It is deleted when it can be, and
// with the machine at the latest.
const dropped = "mica-dropped-"

// snapshots returns the machine's snapshots, those included that are dropped.
func (d *Driver) snapshots(ctx context.Context, i machine.Instance) ([]snapshotNode, machine.State, error) {
	in, state, err := d.ready(ctx, i.Spec)
	if err != nil {
		return nil, state, err
	}
	if state == machine.Absent {
		return nil, state, fail.New(fail.NotFound, "VirtualBox does not know %q (%s)", i.Spec.Name, i.Spec.ID)
	}
	data, err := os.ReadFile(in["CfgFile"])
	if err != nil {
		return nil, state, fmt.Errorf("reading snapshots: %w", err)
	}
	all, err := snapshotsIn(data)
	if err != nil {
		return nil, state, fmt.Errorf("reading snapshots in %s: %w", in["CfgFile"], err)
	}
	return all, state, nil
}

func (d *Driver) findSnapshot(ctx context.Context, i machine.Instance, name string) (string, machine.State, error) {
	all, state, err := d.snapshots(ctx, i)
	if err != nil {
		return "", state, err
	}
	for _, n := range all {
		if n.Name == name {
			return n.UUID, state, nil
		}
	}
	return "", state, fail.New(fail.NotFound, "%q has no snapshot %q", i.Spec.Name, name)
}

// Snapshot implements machine.Snapshotter. The guest stands still while its
// memory is written, and goes on.
func (d *Driver) Snapshot(ctx context.Context, i machine.Instance, name string) error {
	if name == "" || strings.HasPrefix(name, "-") || strings.HasPrefix(name, dropped) {
		return fail.New(fail.Usage, "%q is no name for a snapshot", name).Hint("do not begin it with '-', nor with %q", dropped)
	}
	_, before, err := d.findSnapshot(ctx, i, name)
	switch {
	case err == nil:
		return fail.New(fail.Conflict, "%q has a snapshot %q already", i.Spec.Name, name)
	case !fail.Is(err, fail.NotFound) || before == machine.Absent:
		return err
	case before == machine.Crashed:
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, before)
	}
	_, err = d.vbox(ctx, longPatience, "snapshot", i.Spec.ID, "take", name)
	if err == nil {
		_, _, err = d.settle(ctx, i.Spec.ID)
		return err
	}
	// What was begun goes on without VBoxManage: wait, and take it back.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), longPatience)
	defer cancel()
	if _, serr := d.saved(after, i.Spec.ID); serr != nil {
		return errors.Join(err, serr)
	}
	if id, state, ferr := d.findSnapshot(after, i, name); ferr == nil {
		_, derr := d.vbox(after, longPatience, "snapshot", i.Spec.ID, "delete", id)
		err = errors.Join(err, derr)
	} else if before == machine.Running && state == machine.Paused {
		_, rerr := d.vbox(after, changePatience, "controlvm", i.Spec.ID, "resume")
		err = errors.Join(err, rerr)
	}
	return err
}

// Snapshots implements machine.Snapshotter.
func (d *Driver) Snapshots(ctx context.Context, i machine.Instance) ([]machine.Snapshot, error) {
	nodes, _, err := d.snapshots(ctx, i)
	all := make([]machine.Snapshot, 0, len(nodes))
	for _, n := range nodes {
		if strings.HasPrefix(n.Name, dropped) {
			continue
		}
		taken, _ := time.Parse(time.RFC3339, n.Time) // unknown is the zero time
		all = append(all, machine.Snapshot{Name: n.Name, Time: taken, Memory: n.StateFile != ""})
	}
	return all, err
}

// Revert implements machine.Snapshotter.
func (d *Driver) Revert(ctx context.Context, i machine.Instance, name string) error {
	id, state, err := d.findSnapshot(ctx, i, name)
	if err != nil {
		return err
	}
	if state.Live() {
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state).Hint("stop it first")
	}
	if _, err := d.vbox(ctx, longPatience, "snapshot", i.Spec.ID, "restore", id); err != nil {
		return err
	}
	return d.clearDropped(ctx, i)
}

// DropSnapshot implements machine.Snapshotter.
func (d *Driver) DropSnapshot(ctx context.Context, i machine.Instance, name string) error {
	id, _, err := d.findSnapshot(ctx, i, name)
	if err != nil {
		return err
	}
	_, err = d.vbox(ctx, longPatience, "snapshot", i.Spec.ID, "delete", id)
	if inTheWay(err) {
		_, err = d.vbox(ctx, changePatience, "snapshot", i.Spec.ID, "edit", id, "--name", dropped+id)
		return err
	}
	if err != nil {
		return err
	}
	if _, err = d.saved(ctx, i.Spec.ID); err != nil {
		return err
	}
	return d.clearDropped(ctx, i)
}

// inTheWay reports whether VirtualBox cannot delete a snapshot for what it is in
// the tree.
func inTheWay(err error) bool {
	return says(err, "has one child snapshot", "more than one child snapshot", "child snapshots")
}

// clearDropped deletes the dropped snapshots that can be deleted by now.
func (d *Driver) clearDropped(ctx context.Context, i machine.Instance) error {
	all, _, err := d.snapshots(ctx, i)
	for _, n := range all {
		if !strings.HasPrefix(n.Name, dropped) {
			continue
		}
		if _, err := d.vbox(ctx, longPatience, "snapshot", i.Spec.ID, "delete", n.UUID); err != nil && !inTheWay(err) {
			return err
		}
		if _, err := d.saved(ctx, i.Spec.ID); err != nil {
			return err
		}
	}
	return err
}
