package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/run"
)

const (
	imageProgram    = "qemu-img"
	imagePatience   = 10 * time.Second
	convertPatience = time.Hour
	maxDisk         = 64 << 40 // as a Spec has it
)

// checkImages says whether disk images can be read here.
func (d *Driver) checkImages(ctx context.Context) error {
	_, err := d.run.Run(ctx, run.Command{Name: imageProgram, Args: []string{"--version"}, Timeout: imagePatience})
	return lacksImages(err)
}

// lacksImages gives the error of a missing program its remedy.
func lacksImages(err error) error {
	if err == nil || !fail.Is(err, fail.HostLacks) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fail.New(fail.HostLacks, "disk images cannot be read: %w", err).
		Hint("install qemu-img: package qemu-utils on Debian and Ubuntu, qemu-img on Fedora and RHEL")
}

// copyImage makes the machine's disk of its disk image: raw, as every machine's
// is, so that all that is done with disks is done in one way. It returns the
// size of the disk in MiB, which is larger than what was asked for where the
// image is.
func (d *Driver) copyImage(ctx context.Context, s machine.Spec, path string) (int64, error) {
	image := s.ImagePath()
	if err := machine.CheckDiskImage(image, s.Image.Format); err != nil {
		return 0, err
	}
	out, err := d.run.Run(ctx, run.Command{
		Name: imageProgram, Args: []string{"info", "--output=json", "-f", s.Image.Format, image}, Timeout: imagePatience,
	})
	if err != nil {
		return 0, broken(s, err)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(out.Stdout, &info); err != nil {
		return 0, fmt.Errorf("reading what %s says of %s: %w", imageProgram, s.Image.Path, err)
	}
	if info.Size <= 0 || info.Size > maxDisk {
		return 0, fail.New(fail.Unverified, "disk image %s is of a disk of %d bytes", s.Image.Path, info.Size)
	}
	if err := d.wholeImage(ctx, s); err != nil {
		return 0, err
	}
	// A file that is there keeps its permissions: nobody else may look into it.
	if err := makeDisk(path, info.Size); err != nil {
		return 0, err
	}
	_, err = d.run.Run(ctx, run.Command{
		Name: imageProgram, Args: []string{"convert", "-n", "--target-is-zero", "-f", s.Image.Format, "-O", "raw", image, path}, Timeout: convertPatience,
	})
	if err != nil {
		return 0, broken(s, err)
	}
	mib := max(s.DiskMiB, (info.Size+mebi-1)/mebi)
	if _, err := grow(path, mib*mebi); err != nil {
		return 0, err
	}
	return mib, syncFile(path)
}

// wholeImage refuses an image that lacks a part: what is beyond the end of a file
// reads as zeros, so that half a download would pass for a disk.
func (d *Driver) wholeImage(ctx context.Context, s machine.Spec) error {
	const leaks, unknown = 3, 63 // space that nobody uses; a format without marks to check
	_, err := d.run.Run(ctx, run.Command{
		Name: imageProgram, Args: []string{"check", "-q", "-f", s.Image.Format, s.ImagePath()}, Timeout: convertPatience,
	})
	var bad *run.Error
	if errors.As(err, &bad) && (bad.Result.Code == leaks || bad.Result.Code == unknown) {
		return nil
	}
	if err != nil {
		return broken(s, err)
	}
	return nil
}

// broken explains why an image was not read.
func broken(s machine.Spec, err error) error {
	var bad *run.Error
	if !errors.As(err, &bad) {
		return lacksImages(err)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(bad.Result.Stderr)), "\n") // a check may say a lot
	if text == "" {
		text = "it is damaged"
	}
	if strings.Contains(text, "No space left on device") {
		return fail.New(fail.Failed, "copying disk image %s: %s", s.Image.Path, text)
	}
	return fail.New(fail.Unverified, "disk image %s: %s", s.Image.Path, text).Hint("fetch it again")
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// imageArgs are the devices a machine boots from: the boot image in a drive
// that only reads, and its empty disk; or its own copy of a disk image, alone.
func imageArgs(h hardware, s machine.Spec) []string {
	var args []string
	if h.isARM() { // no IDE
		args = append(args, "-device", "virtio-scsi-pci,id=scsi0")
	}
	order := "1"
	if s.Image.Format == "" {
		args = append(args, h.cdArgs("image", s.ImagePath(), 0, ",bootindex=1")...)
		args = append(args, h.cdArgs("config", s.Path(configFile), 1, "")...)
		order = "2"
	}
	device := "virtio-blk-pci"
	switch s.Image.Format {
	case "", "raw", "qcow2": // what clouds and KVM run: their kernels may have no drivers but virtio's
	default: // of VMware, VirtualBox and Hyper-V, whose guests may have no virtio
		if !h.isARM() {
			device = "ide-hd,bus=ide.0"
		}
	}
	args = append(args,
		"-blockdev", blockdev("disk", "raw", s.Path(diskFile), false), "-device", device+",drive=disk,bootindex="+order+",serial=mica-disk")
	if s.Image.Format != "" {
		args = append(args, h.cdArgs("config", s.Path(configFile), 1, "")...)
	}
	return args
}
