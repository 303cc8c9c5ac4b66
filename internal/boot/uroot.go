package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/disk"
	"github.com/micavm/mica/internal/fail"
)

// mountUROOT mounts the UROOT of an earlier boot, if there is one. Where there is
// none, what happens depends on the context, which is not known yet.
func mountUROOT(ctx context.Context, s *state, r *report) error {
	if isMountPoint(readWrite) {
		s.mounted = true
		return nil
	}
	choice, err := disk.Choose(s.devices, s.preferences())
	var none *disk.NoDisk
	switch {
	case errors.As(err, &none), err == nil && choice.Action != disk.Reuse:
		return skipped("no disk of an earlier boot")
	case err != nil:
		return err
	}
	return s.mountChoice(ctx, choice, r)
}

// mountChoice prepares what was chosen and mounts it.
func (s *state) mountChoice(ctx context.Context, choice disk.Choice, r *report) error {
	u, err := disk.Prepare(ctx, choice, s.diskTools(), s.log)
	if err != nil {
		return err
	}
	s.load("ext4")
	if u.RAM {
		err = unix.Mount("uroot", readWrite, "tmpfs", unix.MS_NODEV, fmt.Sprintf("mode=0755,size=%d", u.Size))
	} else {
		err = unix.Mount(u.Device, readWrite, "ext4", 0, "")
	}
	if err != nil {
		return fail.New(fail.Failed, "mounting %s: %w", u.Device, err).
			Hint("look at the kernel's messages in the debug shell: dmesg | tail")
	}
	s.uroot, s.mounted, s.fresh = u, true, u.Fresh
	if _, err := os.Stat(s.rw("persistent")); errors.Is(err, fs.ErrNotExist) {
		s.fresh = true // an earlier boot was stopped after formatting
	}
	what := "found"
	if u.Fresh {
		what = "made"
	}
	name := u.Device
	if u.RAM {
		name = "memory"
	}
	r.say("%s %s, %d MB", what, name, u.Size/1000/1000)
	r.fact("uroot", name)
	if err := s.checkLayout(); err != nil {
		_ = unix.Unmount(readWrite, 0)
		s.mounted = false
		return err
	}
	return s.directories()
}

// layout marks how the writable layer is written; a disk without the mark is
// from a boot image that used aufs.
const layout = "overlay-1"

func (s *state) checkLayout() error {
	if s.fresh {
		return nil
	}
	data, err := os.ReadFile(s.rw("aux/layout"))
	if err == nil && string(data) == layout+"\n" {
		return nil
	}
	if _, aufs := os.Lstat(s.rw("persistent/.wh..wh.aufs")); aufs == nil {
		return fail.New(fail.Conflict, "the disk %s was written by a boot image that used aufs, which this one cannot read", s.uroot.Device).
			Hint("give the machine a new disk, or boot it once more with the image it was made with and save your files")
	}
	if err == nil {
		return fail.New(fail.Conflict, "the writable layer on %s has the format %q, which this image does not know", s.uroot.Device, data).
			Hint("boot this machine with a newer image")
	}
	return nil
}

// directories makes the places on UROOT.
//
// Differs: context/ is for root alone; the original left user data, which may
// hold credentials, readable by everyone.
func (s *state) directories() error {
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{
		{"aux", 0o755},
		{"persistent", 0o755},
		{"ovlwork", 0o755},
		{"cache", 0o755},
		{"cvmfs", 0o755},
		{"context", 0o700},
		{"ulogs", 0o755},
		{"aux/safety", 0o755},
	} {
		if err := os.Mkdir(s.rw(d.name), d.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making %s on the disk: %w", d.name, err)
		}
	}
	if err := os.Chmod(s.rw("context"), 0o700); err != nil {
		return fmt.Errorf("closing the context to others: %w", err)
	}
	if err := os.WriteFile(s.rw("aux/layout"), []byte(layout+"\n"), 0o644); err != nil {
		return fmt.Errorf("marking the disk: %w", err)
	}
	return nil
}
