package machine

import (
	"context"

	"github.com/micavm/mica/internal/fail"
)

// snapshotter returns the driver's power, or says that it has none.
func (h *held) snapshotter() (Snapshotter, error) {
	s, ok := h.driver.(Snapshotter)
	if !ok {
		return nil, fail.New(fail.Usage, "driver %q takes no snapshots", h.spec().Driver)
	}
	return s, nil
}

// whole refuses to snapshot or revert a machine with a disk that is the user's:
// its content would be no part of the snapshot, and belong to another time.
func (h *held) whole() error {
	if d, has := h.spec().usersDisk(); has {
		return fail.New(fail.Usage, "a snapshot of %q would lack what is on your disk %s", h.spec().Name, d.Path).
			Hint("switch the machine off, and copy the disk")
	}
	return nil
}

// CheckSnapshotName says whether a snapshot may have that name.
func CheckSnapshotName(name string) error {
	if len(name) > maxName || !namePattern.MatchString(name) {
		return fail.New(fail.Usage, "%q is no name for a snapshot", name).
			Hint("start with a letter or digit, go on with letters, digits, '-', '_' and '.', at most %d", maxName)
	}
	return nil
}

// Snapshot keeps the machine as it is now under a name: its disk, and its
// memory if it is on or saved. Without a name it is named after the time. It
// returns the name.
func (f *Fleet) Snapshot(ctx context.Context, name, snapshot string) (string, error) {
	if snapshot == "" {
		snapshot = f.now().UTC().Format("20060102-150405")
	}
	if err := CheckSnapshotName(snapshot); err != nil {
		return "", err
	}
	_, err := f.change(ctx, name, DoSnapshot, func(h *held) error {
		s, err := h.snapshotter()
		if err != nil {
			return err
		}
		if err := h.whole(); err != nil {
			return err
		}
		if err := f.note(h.Record, "snapshot", snapshot); err != nil {
			return err
		}
		return noSpace(s.Snapshot(ctx, h.Instance, snapshot))
	})
	return snapshot, err
}

// Snapshots lists the machine's snapshots, the oldest first.
func (f *Fleet) Snapshots(ctx context.Context, name string) ([]Snapshot, error) {
	h, err := f.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer h.release()
	if h.driver == nil {
		_, err := h.state.Allows(name, DoSnapshot)
		return nil, err
	}
	s, err := h.snapshotter()
	if err != nil {
		return nil, err
	}
	return s.Snapshots(ctx, h.Instance)
}

// Revert takes the machine back to a snapshot. What is on its disk now, and its
// saved memory, are lost. It returns the state then.
func (f *Fleet) Revert(ctx context.Context, name, snapshot string) (State, error) {
	state := State("")
	_, err := f.change(ctx, name, DoRevert, func(h *held) error {
		s, err := h.snapshotter()
		if err != nil {
			return err
		}
		if err := h.whole(); err != nil {
			return err
		}
		if err := f.note(h.Record, "revert", snapshot); err != nil {
			return err
		}
		if err := s.Revert(ctx, h.Instance, snapshot); err != nil {
			return noSpace(noSnapshot(name, err))
		}
		state, err = h.driver.State(ctx, h.Instance)
		return err
	})
	return state, err
}

// DropSnapshot deletes a snapshot. The machine stays as it is.
func (f *Fleet) DropSnapshot(ctx context.Context, name, snapshot string) error {
	_, err := f.change(ctx, name, DoDropSnapshot, func(h *held) error {
		s, err := h.snapshotter()
		if err != nil {
			return err
		}
		if err := f.note(h.Record, "delete snapshot", snapshot); err != nil {
			return err
		}
		return noSnapshot(name, s.DropSnapshot(ctx, h.Instance, snapshot))
	})
	return err
}

// noSnapshot gives the error of a snapshot that is not there its remedy.
func noSnapshot(name string, err error) error {
	if !fail.Is(err, fail.NotFound) || len(fail.Hints(err)) > 0 {
		return err
	}
	return fail.New(fail.NotFound, "%w", err).Hint("'mica snapshot list %s' shows those it has", name)
}
