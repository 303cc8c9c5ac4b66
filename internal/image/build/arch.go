package build

import (
	"debug/elf"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
)

// target is what an architecture needs.
type target struct {
	debian  string // what Debian and Go call it
	machine elf.Machine
	bios    bool // it may start by BIOS

	// kernel is Debian's metapackage of the standard kernel. The cloud one
	// lacks AHCI, 9p, VirtualBox's drivers and USB storage.
	kernel string

	loader string // the file of systemd-boot
	efi    string // and the name that firmware looks for

	// compression is what the initramfs is packed with when nobody says. The
	// kernel unpacks xz's filter for x86 programs; for those of ARM, which Linux
	// has since 6.12, and without it xz gains nothing over zstd.
	compression Compression
}

func targetOf(a image.Arch) target {
	if a.Or() == image.ARM {
		return target{"arm64", elf.EM_AARCH64, false, "linux-image-arm64", "systemd-bootaa64.efi", "BOOTAA64.EFI", Zstd}
	}
	return target{"amd64", elf.EM_X86_64, true, "linux-image-amd64", "systemd-bootx64.efi", "BOOTX64.EFI", XZ}
}

// check refuses what does not exist, before anything is downloaded.
func (t target) check(c Compression) error {
	if c == XZ && t.compression != XZ {
		return fail.New(fail.Usage, "compression xz is for x86-64 alone").Hint("use zstd")
	}
	return c.check()
}
