package test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/stage"
)

// TestUEFI boots the demo's image by UEFI firmware: as a CD beside an empty disk,
// up to the operating system's own init, and as a USB stick, until the rest of it
// is the root disk. The stick must still be one to boot from, by either firmware.
func TestUEFI(t *testing.T) {
	server := newRepositoryServer(t)
	server.start()
	booted := func(t *testing.T, v *vm) {
		if text := v.text(); !strings.Contains(text, "UEFI") || !strings.Contains(text, "(debug)") { // of the firmware; of the menu
			t.Errorf("the console does not show UEFI firmware and the boot menu:\n%s", text[:min(len(text), 3000)])
		}
		v.stop()
	}
	t.Run("CD", func(t *testing.T) {
		v := boot(t, append(uefi(t), "-drive", "if=virtio,format=raw,file="+disk(t, "empty", 4096, nil),
			"-netdev", userNetwork, "-device", "virtio-net-pci,netdev=n")...)
		v.event(stage.HandOver, stage.Done)
		booted(t, v)
	})
	t.Run("USB stick", func(t *testing.T) {
		image, err := os.ReadFile(filepath.Join(assets(t), "mica.iso"))
		if err != nil {
			t.Fatal(err)
		}
		stick := disk(t, "stick", 4096, func(path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // a test's own file
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write(image); err != nil {
				t.Fatal(err)
			}
		})
		v := power(t, append(uefi(t), "-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,file="+stick,
			"-device", "usb-storage,drive=stick,removable=on,bootindex=0")...)
		if e := v.event("disk", stage.Done); !strings.Contains(e.Detail, "sda3") {
			t.Errorf("disk stage: %q, want the third partition of the stick", e.Detail)
		}
		booted(t, v)

		f, err := os.Open(stick) //nolint:gosec // a test's own file
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		now := make([]byte, len(image))
		if _, err := io.ReadFull(f, now); err != nil {
			t.Fatal(err)
		}
		added := now[478:494] // the third entry of the partition table
		if start := binary.LittleEndian.Uint32(added[8:]); added[4] != 0x83 || int64(start)*512 < int64(len(image)) {
			t.Errorf("the root disk's partition has type %#x and begins at sector %d, inside the image of %d bytes", added[4], start, len(image))
		}
		copy(added, make([]byte, 16))
		if !bytes.Equal(now, image) {
			t.Error("the machine changed more of the image than the free entry of its partition table")
		}
	})
}

// uefi are QEMU's arguments for UEFI firmware with variables of its own, from
// Debian's package ovmf.
func uefi(t *testing.T) []string {
	t.Helper()
	const code, template = "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"
	data, err := os.ReadFile(template)
	if err != nil {
		t.Fatalf("%v (package ovmf; scripts/setup.sh installs it)", err)
	}
	vars := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(vars, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + code, "-drive", "if=pflash,unit=1,format=raw,file=" + vars}
}
