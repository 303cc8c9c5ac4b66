package format

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/micavm/mica/internal/fat"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/iso9660"
)

const loader = image.LoaderDir + "/isolinux.bin"

// ISO starts from a CD and, with a hybrid boot sector, from a disk: by BIOS and
// by UEFI.
//
// Kernel and initramfs are there once. What UEFI firmware starts is a FAT volume
// at the end of the image; those of its files that the ISO 9660 tree lists, which
// are all, are listed where they lie in that volume. This is why its clusters are
// sectors of the image, or a multiple.
//
// Compat: cernvm-micro Makefile, target iso: the same boot loader and tree.
// Differs: it has a volume label, Joliet names, the hybrid sector and the part
// for UEFI.
var ISO = Format{
	Name: "iso",
	Ext:  "iso",
	Magic: func(r io.ReaderAt) bool {
		b := make([]byte, 5)
		_, err := r.ReadAt(b, 16*iso9660.SectorSize+1)
		return err == nil && string(b) == "CD001"
	},
	Open: func(r io.ReaderAt, size int64) (Contents, error) {
		img, err := iso9660.Open(r, size, iso9660.Auto)
		if err != nil {
			return Contents{}, fmt.Errorf("%w: %w", image.ErrFormat, err)
		}
		c := Contents{Label: img.Label, Files: img}
		names := map[iso9660.Platform]string{iso9660.BIOS: "BIOS", iso9660.EFI: "EFI"}
		for _, b := range img.Boot {
			if name := names[b.Platform]; name != "" {
				c.Firmware = append(c.Firmware, name)
			}
		}
		for _, p := range img.Disk {
			c.Firmware = append(c.Firmware, names[p]+" from a disk")
		}
		return c, nil
	},
	Write: func(ctx context.Context, w io.Writer, t image.Tree, p image.Platform) error {
		files, err := t.Files(p)
		if err != nil {
			return err
		}
		v := iso9660.Volume{
			Label: image.Label, Publisher: "MICA", Files: files, Time: t.Time, RockRidge: true, Joliet: true,
			HybridMBR: t.HybridMBR, Catalog: "boot.cat",
		}
		if len(t.Loader) > 0 {
			v.Boot = append(v.Boot, iso9660.BootImage{Path: loader, InfoTable: true})
			v.Catalog = image.LoaderDir + "/" + v.Catalog
		}
		if len(t.EFI) > 0 {
			efi, err := systemPartition(files)
			if err != nil {
				return err
			}
			v.Boot = append(v.Boot, efi)
		}
		return iso9660.Write(ctx, w, v)
	},
}

// systemPartition makes the volume that UEFI firmware starts. It is in memory,
// as its parts are when an image is built.
func systemPartition(files []iso9660.File) (iso9660.BootImage, error) {
	v := fat.Volume{Label: image.Label + "-EFI"}
	for _, f := range files {
		if !image.OnSystemPartition(f.Path) {
			continue
		}
		data, err := content(f)
		if err != nil {
			return iso9660.BootImage{}, fmt.Errorf("file %q: %w", f.Path, err)
		}
		v.Files = append(v.Files, fat.File{Path: f.Path, Data: data})
	}
	data, at, err := fat.Pack(v, iso9660.SectorSize)
	if err != nil {
		return iso9660.BootImage{}, err
	}
	hidden := iso9660.Bytes("EFI system partition", 0o444, data)
	return iso9660.BootImage{Platform: iso9660.EFI, Hidden: &hidden, Holds: at}, nil
}

// content reads a file, which must have the length it says.
func content(f iso9660.File) ([]byte, error) {
	if f.Size == 0 {
		return nil, nil
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, f.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	if n, err := r.Read(make([]byte, 1)); n > 0 {
		return nil, fmt.Errorf("is longer than the %d bytes announced", f.Size)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}
