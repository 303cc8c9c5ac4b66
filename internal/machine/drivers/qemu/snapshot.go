package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/sparse"
)

const (
	snapshotsDir = "snapshots" // a folder a snapshot, with the disks and, of one with memory, state.bin and saved.json
	snapshotNew  = ".new"
	snapshotGone = ".gone"
	snapshotFile = "snapshot.json"
	revertFile   = "revert.json" // the copies of a revert are whole, and take the place of the old files
)

// snapshot is what stands in snapshot.json, and in revert.json.
type snapshot struct {
	Time   time.Time `json:"time"`
	Memory bool      `json:"memory"`
}

// within is a file in a snapshot's folder.
func within(s machine.Spec, name, file string) string {
	return filepath.Join(s.Dir, snapshotsDir, name, file)
}

// Snapshot implements machine.Snapshotter. A guest that runs stands still while
// its memory is written and its disk is copied.
func (d *Driver) Snapshot(ctx context.Context, i machine.Instance, name string) error {
	state, err := d.settle(ctx, i)
	if err != nil {
		return err
	}
	if state == machine.Absent || state == machine.Crashed {
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	if _, err := os.Stat(within(i.Spec, name, "")); err == nil {
		return fail.New(fail.Conflict, "%q has a snapshot %q already", i.Spec.Name, name).Hint("choose another name, or delete that one first")
	}
	if err := os.RemoveAll(within(i.Spec, snapshotNew, "")); err != nil {
		return err
	}
	if err := os.MkdirAll(within(i.Spec, snapshotNew, ""), 0o700); err != nil {
		return err
	}
	err = d.capture(ctx, i, state)
	if err == nil {
		err = os.Rename(within(i.Spec, snapshotNew, ""), within(i.Spec, name, ""))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("taking a snapshot of %q: %w", i.Spec.Name, err), os.RemoveAll(within(i.Spec, snapshotNew, "")))
	}
	return syncDir(i.Spec.Path(snapshotsDir))
}

// capture fills the folder of the new snapshot.
func (d *Driver) capture(ctx context.Context, i machine.Instance, state machine.State) (err error) {
	s := i.Spec
	switch state {
	case machine.Running, machine.Paused:
		defer func() {
			after, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchPatience)
			defer cancel()
			err = errors.Join(err, d.goOn(after, i, state))
		}()
		if err := d.dump(ctx, i, within(s, snapshotNew, savedFile), within(s, snapshotNew, stateFile)); err != nil {
			return err
		}
	case machine.Saved:
		for _, name := range []string{savedFile, stateFile} {
			if err := sparse.Copy(ctx, s.Path(name), within(s, snapshotNew, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range media(s) {
		if err := sparse.Copy(ctx, s.Path(name), within(s, snapshotNew, name)); err != nil {
			return err
		}
	}
	return writeJSON(within(s, snapshotNew, snapshotFile), snapshot{Time: time.Now().UTC(), Memory: state != machine.Stopped})
}

// goOn brings a guest whose memory was written, or should have been, back to
// the state it was in.
func (d *Driver) goOn(ctx context.Context, i machine.Instance, before machine.State) error {
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		return fmt.Errorf("letting it run on: %w", err)
	}
	defer m.close()
	_ = m.call(ctx, "migrate_cancel", nil, nil)
	for { // what is under way ends first
		if _, over, merr := m.migration(ctx); over || merr != nil {
			break
		}
		time.Sleep(migrationPoll)
	}
	// Only running on gives QEMU its disks back after it has written memory.
	status, err := m.status(ctx)
	if err == nil && (before == machine.Running || status == "postmigrate") {
		err = m.call(ctx, "cont", nil, nil)
	}
	if err == nil && before == machine.Paused {
		err = m.call(ctx, "stop", nil, nil)
	}
	if err != nil {
		return fmt.Errorf("letting it run on: %w", err)
	}
	return nil
}

// Snapshots implements machine.Snapshotter.
func (d *Driver) Snapshots(_ context.Context, i machine.Instance) ([]machine.Snapshot, error) {
	entries, err := os.ReadDir(i.Spec.Path(snapshotsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	var all []machine.Snapshot
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		var s snapshot
		if err := readJSON(within(i.Spec, e.Name(), snapshotFile), &s); err != nil {
			return nil, err
		}
		all = append(all, machine.Snapshot{Name: e.Name(), Time: s.Time, Memory: s.Memory})
	}
	sort.SliceStable(all, func(a, b int) bool { return all[a].Time.Before(all[b].Time) })
	return all, nil
}

// known reads what is noted of a snapshot.
func known(i machine.Instance, name string) (snapshot, error) {
	var s snapshot
	err := readJSON(within(i.Spec, name, snapshotFile), &s)
	if errors.Is(err, fs.ErrNotExist) {
		err = fail.New(fail.NotFound, "%q has no snapshot %q", i.Spec.Name, name)
	}
	return s, err
}

// Revert implements machine.Snapshotter. Everything is copied first; from the
// moment that revert.json is there the copies count, and whoever comes next
// finishes what a killed command did not.
func (d *Driver) Revert(ctx context.Context, i machine.Instance, name string) error {
	state, err := d.settle(ctx, i)
	if err != nil {
		return err
	}
	if state != machine.Stopped && state != machine.Saved {
		return fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	from, err := known(i, name)
	if err != nil {
		return err
	}
	if err := copyBack(ctx, i.Spec, name, from); err != nil {
		errs := []error{fmt.Errorf("going back to %q: %w", name, err)}
		for _, move := range comebacks(i.Spec, true) {
			errs = append(errs, removeFile(i.Spec.Path(move.part)))
		}
		return errors.Join(errs...)
	}
	if err := writeJSON(i.Spec.Path(revertFile), from); err != nil {
		return err
	}
	return finishRevert(i)
}

// comeback is a file of a snapshot on its way back: its copy, and whose place
// that takes.
type comeback struct{ part, file string }

// comebacks lists them in the order in which they take their places. The data
// disk is the first: as long as its copy is there, the old memory is to go.
func comebacks(s machine.Spec, memory bool) []comeback {
	var all []comeback
	for _, file := range slices.Backward(media(s)) {
		all = append(all, comeback{part(file), file})
	}
	if memory {
		all = append(all, comeback{savedPart, savedFile}, comeback{statePart, stateFile})
	}
	return all
}

func copyBack(ctx context.Context, s machine.Spec, name string, from snapshot) error {
	for _, one := range comebacks(s, true) {
		if err := removeFile(s.Path(one.part)); err != nil {
			return err
		}
	}
	for _, one := range comebacks(s, from.Memory) {
		if err := sparse.Copy(ctx, within(s, name, one.file), s.Path(one.part)); err != nil {
			return err
		}
	}
	if from.Memory { // its memory knows the disk's size
		return nil
	}
	_, err := grow(s.Path(part(diskFile)), s.DiskMiB*mebi)
	return err
}

// finishRevert puts the copies in the place of the old files, as far as that
// has not been done. The old memory goes first: it does not fit the other disk.
func finishRevert(i machine.Instance) error {
	var to snapshot
	err := readJSON(i.Spec.Path(revertFile), &to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if exists(i, part(diskFile)) {
		for _, old := range []string{stateFile, savedFile, stateLoaded} {
			if err := removeFile(i.Spec.Path(old)); err != nil {
				return err
			}
		}
	}
	for _, one := range comebacks(i.Spec, true) {
		if err := os.Rename(i.Spec.Path(one.part), i.Spec.Path(one.file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("going back to a snapshot: %w", err)
		}
		if err := syncDir(i.Spec.Dir); err != nil {
			return err
		}
	}
	return removeFile(i.Spec.Path(revertFile))
}

// DropSnapshot implements machine.Snapshotter.
func (d *Driver) DropSnapshot(_ context.Context, i machine.Instance, name string) error {
	if _, err := known(i, name); err != nil {
		return err
	}
	gone := within(i.Spec, snapshotGone, "")
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(within(i.Spec, name, ""), gone); err != nil {
		return fmt.Errorf("deleting snapshot %q: %w", name, err)
	}
	return os.RemoveAll(gone)
}
