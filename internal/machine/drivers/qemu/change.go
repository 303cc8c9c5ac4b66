package qemu

import (
	"context"
	"fmt"
	"os"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/sparse"
)

// Change implements machine.Changer. Nothing but the size of the disk is kept
// outside the Spec.
func (d *Driver) Change(ctx context.Context, i machine.Instance, to machine.Spec) (machine.Instance, error) {
	i.Spec.Dir = to.Dir
	state, err := d.settle(ctx, i)
	if err != nil {
		return i, err
	}
	if state != machine.Stopped {
		return i, fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	if to.MemoryMiB != i.Spec.MemoryMiB || to.CPUs != i.Spec.CPUs || to.DiskMiB != i.Spec.DiskMiB {
		if err := d.noMemoryKept(ctx, i); err != nil {
			return i, err
		}
	}
	if err := grow(to.Path(diskFile), to.DiskMiB*mebi); err != nil {
		return i, err
	}
	i.Spec = to
	return i, nil
}

// noMemoryKept refuses where a snapshot holds memory: it loads only into the
// same machine.
func (d *Driver) noMemoryKept(ctx context.Context, i machine.Instance) error {
	all, err := d.Snapshots(ctx, i)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Memory {
			return fail.New(fail.Conflict, "snapshot %q of %q holds the memory of a machine of this size", s.Name, i.Spec.Name).
				Hint("'mica snapshot delete %s %s' makes the way free", i.Spec.Name, s.Name)
		}
	}
	return nil
}

// grow makes a disk larger, if it is smaller.
func grow(path string, size int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("growing disk: %w", err)
	}
	if info.Size() >= size {
		return nil
	}
	if err := os.Truncate(path, size); err != nil {
		return fail.New(fail.Failed, "growing the disk to %d MiB: %w", size/mebi, err).
			Hint("the file system may limit the size of files")
	}
	return nil
}

// Clone implements machine.Cloner.
func (d *Driver) Clone(ctx context.Context, from machine.Instance, s machine.Spec) (machine.Instance, error) {
	state, err := d.settle(ctx, from)
	if err != nil {
		return machine.Instance{}, err
	}
	if state != machine.Stopped {
		return machine.Instance{}, fail.New(fail.Conflict, "%q is %s", from.Spec.Name, state)
	}
	return d.create(ctx, s, func(path string) error {
		if err := sparse.Copy(ctx, from.Spec.Path(diskFile), path); err != nil {
			return err
		}
		return grow(path, s.DiskMiB*mebi)
	})
}
