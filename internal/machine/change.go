package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/micavm/mica/internal/fail"
)

// Resize gives a machine that is off other sizes; 0 leaves one as it is. The
// disk only grows. It reports whether there was anything to change.
func (f *Fleet) Resize(ctx context.Context, name string, memoryMiB, cpus int, diskMiB int64) (bool, error) {
	changed := false
	_, err := f.change(ctx, name, DoChange, func(h *held) error {
		to := h.spec()
		if memoryMiB != 0 {
			to.MemoryMiB = memoryMiB
		}
		if cpus != 0 {
			to.CPUs = cpus
		}
		if diskMiB != 0 {
			to.DiskMiB = diskMiB
		}
		if to.DiskMiB < h.spec().DiskMiB {
			return fail.New(fail.Usage, "the disk of %q has %d MiB, and cannot shrink to %d", name, h.spec().DiskMiB, to.DiskMiB).
				Hint("a smaller disk would cut off what is on it; make a new machine")
		}
		if err := to.Validate(); err != nil {
			return err
		}
		changed = to.MemoryMiB != h.spec().MemoryMiB || to.CPUs != h.spec().CPUs || to.DiskMiB != h.spec().DiskMiB
		if !changed {
			return nil
		}
		return f.become(ctx, h, to)
	})
	return changed, err
}

// Rename gives a machine that is off another name. The guest keeps the host
// name it was told when it was made.
func (f *Fleet) Rename(ctx context.Context, name, to string) error {
	if err := CheckName(to); err != nil {
		return err
	}
	_, err := f.change(ctx, name, DoChange, func(h *held) error {
		if name == to {
			return nil
		}
		if err := f.evict(ctx, to); err != nil {
			return err
		}
		spec := h.spec()
		spec.Name, spec.Dir = to, f.Home.machine(to)
		return f.become(ctx, h, spec)
	})
	return err
}

// become changes the held machine. What it is to become is in the record before
// anything is done: whoever comes after a killed command finishes it, or, if
// the folder has not moved yet, forgets it.
func (f *Fleet) become(ctx context.Context, h *held, to Spec) error {
	if _, ok := h.driver.(Changer); !ok {
		return fail.New(fail.Usage, "driver %q cannot change a machine", h.spec().Driver)
	}
	h.Pending = &to
	if err := f.note(h.Record, "change", to.Name); err != nil {
		return err
	}
	from := h.spec()
	if to.Dir != from.Dir {
		// Fails where the name is taken: a machine's folder is never empty.
		if err := os.Rename(from.Dir, to.Dir); err != nil {
			h.Pending = nil
			return errors.Join(fmt.Errorf("renaming %q: %w", from.Name, err), f.note(h.Record, "changed", ""))
		}
		h.Instance.Spec.Dir = to.Dir
		f.at("moved")
	}
	err := f.carryOut(ctx, h)
	if err == nil || h.Pending == nil { // done; what could not be noted the next command notes
		return err
	}
	if to.Dir != from.Dir {
		if merr := os.Rename(to.Dir, from.Dir); merr != nil {
			return errors.Join(err, merr)
		}
	}
	h.Pending, h.Instance.Spec = nil, from
	return errors.Join(err, f.note(h.Record, "changed", ""))
}

// carryOut makes the driver do what is pending. Record and folder are where
// they belong already.
func (f *Fleet) carryOut(ctx context.Context, h *held) error {
	to, dir := *h.Pending, h.spec().Dir
	to.Dir = dir
	if !slices.Equal(to.Shares, h.spec().Shares) { // the guest is told of them with its context
		err := handed(&to)
		if err == nil {
			var own []byte
			own, err = os.ReadFile(to.Path(keyFile + ".pub"))
			to.PublicKeys = append(lines(own), to.PublicKeys...)
		}
		if err != nil {
			return fmt.Errorf("changing %q: %w", to.Name, err)
		}
	}
	changed, err := h.driver.(Changer).Change(ctx, h.Instance, to)
	if err != nil {
		return noSpace(fmt.Errorf("changing %q: %w", to.Name, err))
	}
	f.at("instance changed")
	changed.Spec.Dir, changed.Spec.Context, changed.Spec.PublicKeys = dir, nil, nil
	h.Instance, h.Pending = changed, nil
	return f.note(h.Record, "changed", "")
}

// builds are the actions that begin with the machine as its last change left
// it; starting is another, wherever it has to (start). What a user needs of a
// machine whose change cannot be finished is not among them: to stop it, to
// reach it and to remove it.
var builds = map[Action]bool{ //nolint:gochecknoglobals // a constant set
	DoSnapshot: true, DoRevert: true, DoForward: true, DoChange: true, DoClone: true, DoShare: true,
}

// finishChange finishes what a killed command was changing, or takes it back
// where that cannot be. It is called with the machine's lock held.
func (f *Fleet) finishChange(ctx context.Context, h *held) error {
	if h.Pending == nil || h.driver == nil {
		return nil
	}
	name := h.spec().Name
	if h.Pending.Name != name { // it was never moved
		h.Pending = nil
		return f.note(h.Record, "changed", "")
	}
	if _, ok := h.driver.(Changer); !ok {
		return fail.New(fail.Usage, "driver %q cannot change a machine", h.spec().Driver)
	}
	f.say("finishing the change of %q that another command began", name)
	err := f.carryOut(ctx, h)
	if err == nil || h.Pending == nil || ctx.Err() != nil {
		return err
	}
	if f.takeBack(ctx, h) == nil {
		f.say("that change cannot be finished, and is taken back: %v", err)
		return nil
	}
	return fail.New(fail.ClassOf(err), "a change of %q that another command began can be neither finished nor taken back: %w", name, err).
		Hint("once that is mended, 'mica gc' finishes it").
		Hint("until then 'mica stop --power-off %s' and 'mica destroy %s' work", name, name)
}

// takeBack makes the machine what it was before its pending change, of which
// nobody knows how much was done. A new name stays, since the folder has it, and
// a disk that has grown stays larger than the record says.
func (f *Fleet) takeBack(ctx context.Context, h *held) error {
	from, to := h.spec(), *h.Pending
	h.Instance.Spec, h.Pending = to, &from
	h.Instance.Spec.Dir = from.Dir
	err := f.carryOut(ctx, h)
	if h.Pending != nil { // as the record on disk still has it
		h.Instance.Spec, h.Pending = from, &to
		return err
	}
	return nil // what could not be noted the next command notes
}
