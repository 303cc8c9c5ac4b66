package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/sparse"
)

// leastUROOT is the smallest disk that a guest takes for its own.
const leastUROOT = 1 << 10 // MiB

// moreFile is the image of the disk number n, from 1 on, that Mica made.
func moreFile(n int) string { return "disk" + strconv.Itoa(n) + ".qcow2" }

// part is the name of a file while it is being copied.
func part(file string) string {
	name, _, _ := strings.Cut(file, ".")
	return name + ".part"
}

// ownDisks are the images in the machine's folder beside the data disk.
func ownDisks(s machine.Spec) []string {
	var files []string
	for n, disk := range s.Disks {
		if disk.Path == "" {
			files = append(files, moreFile(n+1))
		}
	}
	return files
}

// media are all files in the machine's folder that a running guest writes to,
// and so what a snapshot is of. The data disk is the last one.
func media(s machine.Spec) []string {
	files := ownDisks(s)
	if s.Firmware == machine.UEFI {
		files = append(files, varsFile)
	}
	return append(files, diskFile)
}

// moreArgs are the disks beside the data disk. They come after it on the bus, so
// that Linux names them after it, and have no place in the boot order.
func moreArgs(s machine.Spec) []string {
	if len(s.Disks) == 0 {
		return nil
	}
	args := []string{"-boot", "strict=on"} // what has no place is not even tried last
	for n, disk := range s.Disks {
		node := "disk" + strconv.Itoa(n+1)
		path, format := s.Path(moreFile(n+1)), "qcow2"
		if disk.Path != "" {
			path, format = disk.Path, disk.Format
		}
		args = append(args,
			"-blockdev", blockdev(node, format, path, disk.ReadOnly),
			"-device", "virtio-blk-pci,drive="+node+",serial=mica-"+node)
	}
	return args
}

// makeMore makes an empty disk.
func (d *Driver) makeMore(ctx context.Context, path string, mib int64) error {
	// qemu-img would leave it readable for all, were it not there.
	if err := makeDisk(path, 0); err != nil {
		return err
	}
	if err := d.images().Create(ctx, path, mib); err != nil {
		return err
	}
	return syncFile(path)
}

// cloneDisks copies those of another machine. Those of the user's are in the
// other's Spec only, the rest is in the same order.
func cloneDisks(ctx context.Context, from, s machine.Spec) error {
	files := ownDisks(from)
	for n, file := range ownDisks(s) {
		if n >= len(files) {
			return fail.New(fail.Conflict, "%q has only %d disks to clone", from.Name, len(files))
		}
		if err := sparse.Copy(ctx, from.Path(files[n]), s.Path(file)); err != nil {
			return err
		}
	}
	return nil
}

// checkDisks refuses what would lose data, before anything is made.
func (d *Driver) checkDisks(ctx context.Context, s machine.Spec) error {
	for _, disk := range s.Disks {
		if disk.Path == "" {
			if err := d.checkImages(ctx); err != nil {
				return err
			}
		}
		if s.Image.Format == "" && s.DiskMiB < leastUROOT && (disk.Path != "" || disk.MiB >= leastUROOT) {
			// The guest would find its own disk too small, and take a blank one
			// that is not.
			return fail.New(fail.Usage, "with other disks, the data disk cannot have %d MiB: a guest may take another one for it", s.DiskMiB).
				Hint("use --disk %dM or more", leastUROOT)
		}
	}
	return usable(s)
}

// usable says whether the disks of the user's can be used as they are now. The
// image may have been changed since the machine was made, to name other files
// for instance.
func usable(s machine.Spec) error {
	for _, disk := range s.Disks {
		if disk.Path == "" {
			continue
		}
		if _, err := os.Stat(disk.Path); errors.Is(err, fs.ErrNotExist) {
			return fail.New(fail.NotFound, "the disk %s is gone", disk.Path).Hint("put it back, or mount the file system that it is on")
		}
		if err := machine.CheckDiskImage(disk.Path, disk.Format); err != nil {
			return err
		}
		f, err := os.OpenFile(disk.Path, os.O_RDWR, 0)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return fail.New(fail.Failed, "the disk cannot be used: %w", err).Hint("make it a file that you may write to")
		}
	}
	return nil
}

// heldByDisks says whether the guest has disks without which QEMU writes no
// memory: it could not let go of them.
func heldByDisks(s machine.Spec) error {
	for _, disk := range s.Disks {
		switch {
		case disk.Path == "", disk.Format == "raw", disk.Format == "qcow2":
		default:
			return fail.New(fail.Conflict, "memory cannot be saved with %s: QEMU cannot let go of a disk in format %s", disk.Path, disk.Format).
				Hint("'mica stop --shutdown %s' shuts it down instead", s.Name).
				Hint("a machine with a disk in format qcow2 can be saved: 'qemu-img convert -O qcow2 %s NEW.qcow2'", disk.Path)
		}
	}
	return nil
}

// stamp tells whether a disk of the user's was written to.
type stamp struct {
	Path string    `json:"path"`
	Size int64     `json:"size"`
	Time time.Time `json:"time"`
}

// stamps are taken when the guest's memory has been written: the disks belong to
// it as they are then.
func stamps(s machine.Spec) ([]stamp, error) {
	var all []stamp
	for _, disk := range s.Disks {
		if disk.Path == "" {
			continue
		}
		info, err := os.Stat(disk.Path)
		if err != nil {
			return nil, err
		}
		all = append(all, stamp{disk.Path, info.Size(), info.ModTime().UTC()})
	}
	return all, nil
}

// checkStamps refuses memory whose disks have changed: a guest that goes on
// writes what it remembers over what is there.
func checkStamps(s machine.Spec, then []stamp) error {
	now, err := stamps(s)
	if err != nil {
		return err
	}
	for n, disk := range now {
		if n < len(then) && then[n].Path == disk.Path && then[n].Size == disk.Size && then[n].Time.Equal(disk.Time) {
			continue
		}
		return fail.New(fail.Conflict, "the disk %s has changed since the memory of %q was saved: going on would damage what is on it", disk.Path, s.Name).
			Hint("'mica stop --power-off %s' drops the saved memory; the disks stay", s.Name)
	}
	return nil
}
