package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/sparse"
)

// Change implements machine.Changer. Nothing but the size of the disk, and what
// the guest is told of its shares, is kept outside the Spec.
func (d *Driver) Change(ctx context.Context, i machine.Instance, to machine.Spec) (machine.Instance, error) {
	i.Spec.Dir = to.Dir
	state, err := d.settle(ctx, i)
	if err != nil {
		return i, err
	}
	if state != machine.Stopped {
		return i, fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	shares := !slices.Equal(to.Shares, i.Spec.Shares)
	if shares || to.MemoryMiB != i.Spec.MemoryMiB || to.CPUs != i.Spec.CPUs || to.DiskMiB != i.Spec.DiskMiB {
		if err := d.noMemoryKept(ctx, i); err != nil {
			return i, err
		}
	}
	var medium *atomicfile.File
	if shares {
		if err := d.mayShare(to); err != nil {
			return i, err
		}
		if medium, err = prepareConfigDrive(ctx, to); err != nil {
			return i, err
		}
		defer medium.Close() //nolint:errcheck // Commit reports
	}
	before, err := grow(to.Path(diskFile), to.DiskMiB*mebi)
	if err != nil {
		return i, err
	}
	if medium != nil {
		if err := medium.Commit(); err != nil {
			return i, errors.Join(err, os.Truncate(to.Path(diskFile), before)) // nobody has written to it since
		}
	}
	to.Context, to.PublicKeys = nil, nil
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
			return fail.New(fail.Conflict, "snapshot %q of %q holds the memory of the machine as it is", s.Name, i.Spec.Name).
				Hint("'mica snapshot delete %s %s' makes the way free", i.Spec.Name, s.Name)
		}
	}
	return nil
}

// grow makes a disk larger, if it is smaller, and returns the size it had.
func grow(path string, size int64) (before int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("growing disk: %w", err)
	}
	if info.Size() >= size {
		return info.Size(), nil
	}
	if err := os.Truncate(path, size); err != nil {
		return info.Size(), fail.New(fail.Failed, "growing the disk to %d MiB: %w", size/mebi, err).
			Hint("the file system may limit the size of files")
	}
	return info.Size(), nil
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
	return d.create(ctx, s, content{
		disk: func(path string) error {
			if err := sparse.Copy(ctx, from.Spec.Path(diskFile), path); err != nil {
				return err
			}
			_, err := grow(path, s.DiskMiB*mebi)
			return err
		},
		more:     func() error { return cloneDisks(ctx, from.Spec, s) },
		firmware: func() error { return cloneFirmware(ctx, from.Spec, s) },
	})
}
