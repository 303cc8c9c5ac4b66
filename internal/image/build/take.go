package build

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/iso9660"
)

// loaderModules are the parts of Syslinux that the boot menu takes, from a BIOS.
var loaderModules = []string{"ldlinux.c32", "menu.c32", "libutil.c32", "libcom32.c32"}

func (r *ramdisk) takeTools(ctx context.Context, name string) error {
	files, err := read(ctx, name, func(p string) bool {
		_, tool := fileSystemTools[path.Base(p)]
		return tool || p == "etc/mke2fs.conf"
	})
	if err != nil {
		return err
	}
	r.programs = map[string][]byte{}
	for tool := range fileSystemTools {
		if r.programs[tool], err = files.find(tool, programDirs...); err != nil {
			return err
		}
	}
	r.mkeConfig, err = files.get("etc/mke2fs.conf")
	return err
}

func (r *ramdisk) takeBusybox(ctx context.Context, name string) error {
	files, err := read(ctx, name, func(p string) bool { return path.Base(p) == "busybox" })
	if err != nil {
		return err
	}
	if r.busybox, err = files.find("busybox", programDirs...); err != nil {
		return err
	}
	p, err := readProgram(r.busybox)
	if err == nil && p.interp != "" {
		return fmt.Errorf("busybox of %s is not static", path.Base(name))
	}
	return err
}

func (p *packer) take(ctx context.Context, name string) error {
	files, err := read(ctx, name, func(p string) bool { return path.Base(p) == "xz" })
	if err != nil {
		return err
	}
	p.program, err = files.find("xz", programDirs...)
	return err
}

// takeCAs joins the certificates of the package into one bundle.
func (r *ramdisk) takeCAs(ctx context.Context, name string) error {
	files, err := read(ctx, name, func(p string) bool {
		return strings.HasPrefix(p, "usr/share/ca-certificates/mozilla/") && strings.HasSuffix(p, ".crt")
	})
	if err != nil {
		return err
	}
	var bundle bytes.Buffer
	for _, p := range sortedKeys(files) {
		bundle.Write(bytes.TrimSpace(files[p].data))
		bundle.WriteByte('\n')
	}
	r.bundle = bundle.Bytes()
	return nil
}

func (p *parts) takeIsolinux(ctx context.Context, name string) error {
	const dir = "usr/lib/ISOLINUX"
	files, err := read(ctx, name, func(p string) bool { return path.Dir(p) == dir })
	if err != nil {
		return err
	}
	if p.mbr, err = files.find("isohdpfx.bin", dir); err != nil {
		return err
	}
	return p.load(files, dir, "isolinux.bin")
}

func (p *parts) takeSyslinux(ctx context.Context, name string) error {
	const dir = "usr/lib/syslinux/modules/bios"
	files, err := read(ctx, name, func(p string) bool { return path.Dir(p) == dir })
	if err != nil {
		return err
	}
	return p.load(files, dir, loaderModules...)
}

// takeSystemdBoot takes the loader for UEFI firmware.
func (p *parts) takeSystemdBoot(ctx context.Context, name string, t target) error {
	const dir = "usr/lib/systemd/boot/efi"
	files, err := read(ctx, name, func(p string) bool { return path.Dir(p) == dir })
	if err != nil {
		return err
	}
	data, err := files.find(t.loader, dir)
	if err != nil {
		return err
	}
	p.efi = append(p.efi, iso9660.Bytes(path.Join(image.EFIDir, t.efi), 0o444, data))
	return nil
}

func (p *parts) load(files content, dir string, names ...string) error {
	for _, n := range names {
		data, err := files.find(n, dir)
		if err != nil {
			return err
		}
		p.loader = append(p.loader, iso9660.Bytes(path.Join(image.LoaderDir, n), 0o444, data))
	}
	return nil
}
