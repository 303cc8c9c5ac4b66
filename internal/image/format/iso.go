package format

import (
	"context"
	"fmt"
	"io"

	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/iso9660"
)

const loader = image.LoaderDir + "/isolinux.bin"

// ISO starts from a CD by BIOS and, with a hybrid boot sector, from a disk.
//
// Compat: cernvm-micro Makefile, target iso: the same boot loader and tree.
// Differs: it has a volume label, Joliet names and the hybrid sector.
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
		return iso9660.Write(ctx, w, iso9660.Volume{
			Label: image.Label, Publisher: "MICA", Files: files, Time: t.Time, RockRidge: true, Joliet: true,
			Boot: []iso9660.BootImage{{Path: loader, InfoTable: true}}, HybridMBR: t.HybridMBR,
		})
	},
}
