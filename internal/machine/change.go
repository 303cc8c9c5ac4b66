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

// finishChange finishes what a killed command was changing. It is called with
// the machine's lock held.
func (f *Fleet) finishChange(ctx context.Context, h *held) error {
	if h.Pending == nil || h.driver == nil {
		return nil
	}
	if h.Pending.Name != h.spec().Name { // it was never moved
		h.Pending = nil
		return f.note(h.Record, "changed", "")
	}
	if _, ok := h.driver.(Changer); !ok {
		return fail.New(fail.Usage, "driver %q cannot change a machine", h.spec().Driver)
	}
	f.say("finishing the change of %q that another command began", h.spec().Name)
	return f.carryOut(ctx, h)
}
