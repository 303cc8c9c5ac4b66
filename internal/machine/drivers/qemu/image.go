package qemu

import (
	"context"
	"os"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/qemuimg"
)

// checkImages says whether disk images can be read here.
func (d *Driver) checkImages(ctx context.Context) error { return d.images().Usable(ctx) }

func (d *Driver) images() qemuimg.Tool { return qemuimg.Tool{Run: d.run} }

// copyImage makes the machine's disk of its disk image: raw, as every machine's
// is, so that all that is done with disks is done in one way. It returns the
// size of the disk in MiB, which is larger than what was asked for where the
// image is.
func (d *Driver) copyImage(ctx context.Context, s machine.Spec, path string) (int64, error) {
	image := qemuimg.Image{Path: s.ImagePath(), Format: s.Image.Format, Name: s.Image.Path}
	if err := machine.CheckDiskImage(image.Path, image.Format); err != nil {
		return 0, err
	}
	size, err := d.images().Size(ctx, image)
	if err != nil {
		return 0, err
	}
	if err := d.images().Whole(ctx, image); err != nil {
		return 0, err
	}
	// A file that is there keeps its permissions: nobody else may look into it.
	if err := makeDisk(path, size); err != nil {
		return 0, err
	}
	if err := d.images().Fill(ctx, qemuimg.Image{Path: path, Format: "raw"}, image); err != nil {
		return 0, err
	}
	mib := max(s.DiskMiB, (size+mebi-1)/mebi)
	if _, err := grow(path, mib*mebi); err != nil {
		return 0, err
	}
	return mib, syncFile(path)
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
