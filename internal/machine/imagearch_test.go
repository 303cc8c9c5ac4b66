package machine_test

import (
	"os"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu/efiguest"
	"github.com/micavm/mica/internal/machine/drivertest"
)

func TestArchOfImage(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	cd := func(arch string) []byte {
		iso, err := efiguest.CD(t.Context(), arch, "")
		if err != nil {
			t.Fatal(err)
		}
		return iso
	}
	// As most images are: the loaders are in the tree, too, in names of any case.
	tree := func(bios, efi bool, loaders ...string) []byte {
		v := iso9660.Volume{Label: "TREE"}
		if bios {
			v.Files = append(v.Files, iso9660.Bytes("isolinux.bin", 0o444, make([]byte, 4096)))
			v.Boot = append(v.Boot, iso9660.BootImage{Platform: iso9660.BIOS, Path: "isolinux.bin"})
		}
		if efi {
			boot := iso9660.Bytes("efi.img", 0o444, make([]byte, 4096))
			v.Boot = append(v.Boot, iso9660.BootImage{Platform: iso9660.EFI, Hidden: &boot})
		}
		for _, name := range loaders {
			v.Files = append(v.Files, iso9660.Bytes(name, 0o444, []byte("MZ")))
		}
		var iso strings.Builder
		if err := iso9660.Write(t.Context(), &iso, v); err != nil {
			t.Fatal(err)
		}
		return []byte(iso.String())
	}
	const x86, arm, both, unknown = "x86_64", "aarch64", "x86_64 aarch64", "x86_64 aarch64"
	for name, c := range map[string]struct {
		image []byte
		runs  string
	}{
		"BIOS":               {tree(true, false), x86},
		"unreadable tree":    {drivertest.BootISO(drivertest.Guest{}), unknown},
		"UEFI":               {cd(efiguest.X86), x86},
		"UEFI of ARM":        {cd(efiguest.ARM), arm},
		"tree":               {tree(true, true, "EFI/boot/bootx64.efi", "EFI/boot/grubx64.efi"), x86},
		"tree of ARM":        {tree(false, true, "efi/boot/bootaa64.efi"), arm},
		"for both":           {tree(true, true, "EFI/BOOT/BOOTAA64.EFI"), both},
		"loader not found":   {tree(false, true), unknown},
		"BIOS and no loader": {tree(true, true), unknown},
		"loader of another":  {tree(false, true, "EFI/BOOT/BOOTRISCV64.EFI"), unknown},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(w.iso, c.image, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, arch := range []string{x86, arm} {
				o := orderOf("m", w.iso)
				o.Spec.Firmware, o.Spec.MemoryMiB = machine.UEFI, 256
				if arch == arm {
					o.Spec.Arch = arm
				}
				_, err := w.Check(t.Context(), &o)
				refused := err != nil && strings.Contains(err.Error(), "is for machines of")
				if runs := strings.Contains(c.runs, arch); runs == refused {
					t.Errorf("Check of a machine of %s = %v; want it refused: %v", arch, err, !runs)
				}
				if refused && (!fail.Is(err, fail.Usage) || len(fail.Hints(err)) != 1) {
					t.Errorf("Check = %v, hints %q; want class Usage and what to do", err, fail.Hints(err))
				}
			}
		})
	}
}
