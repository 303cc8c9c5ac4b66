package test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/tier"
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

// TestUEFIOnARM builds an image for ARM machines and boots it, as a CD, until the
// guest has looked at the machine. The kernel is some 60 MB to fetch at first.
func TestUEFIOnARM(t *testing.T) {
	dir := assets(t)
	qemu := tier.Tool(t, "qemu-system-aarch64")
	guest, iso := filepath.Join(t.TempDir(), "mica-guest"), filepath.Join(t.TempDir(), "arm.iso")
	build := exec.CommandContext(t.Context(), "../scripts/build-guest.sh", guest)
	build.Env = append(os.Environ(), "GOARCH=arm64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the guest: %v\n%s", err, out)
	}
	m := newMica(t)
	m.run("image", "build", "--arch", "aarch64", "-o", iso, "--guest", guest, "--repository", repositoryName,
		"--key", filepath.Join(dir, "keys", repositoryName+".pub"), "--server", "127.0.0.1", "--cache", "../build/packages-arm")
	shown := m.run("image", "show", iso)
	if !strings.Contains(shown, "starts by EFI, EFI from a disk") {
		t.Errorf("image show:\n%s", shown)
	}
	v := emulate(t, qemu, append(flash(t, "/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
		"-machine", "virt", "-cpu", "cortex-a72", "-device", "virtio-scsi-pci",
		"-drive", "if=none,id=boot,media=cdrom,format=raw,readonly=on,file="+iso, "-device", "scsi-cd,drive=boot,bootindex=0",
		"-drive", "if=none,id=disk,format=raw,file="+disk(t, "empty", 4096, nil), "-device", "virtio-blk-pci,drive=disk")...)
	if e := v.event("modules", stage.Done); !strings.Contains(e.Detail, "arm64") {
		t.Errorf("modules stage: %q, want those of a kernel for ARM", e.Detail)
	}
	if e := v.event("scan", stage.Done); !strings.Contains(e.Detail, "sr0") || !strings.Contains(e.Detail, "vda") {
		t.Errorf("scan stage: %q, want the CD drive and the disk", e.Detail)
	}
	v.stop()
}

// uefi are QEMU's arguments for UEFI firmware with variables of its own, from
// Debian's package ovmf.
func uefi(t *testing.T) []string {
	t.Helper()
	return flash(t, "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd")
}

// flash are the arguments for firmware with a copy of those variables.
func flash(t *testing.T, code, template string) []string {
	t.Helper()
	data, err := os.ReadFile(template) //nolint:gosec // of a package
	if err != nil {
		t.Fatalf("%v (scripts/setup.sh installs it)", err)
	}
	vars := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(vars, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + code, "-drive", "if=pflash,unit=1,format=raw,file=" + vars}
}
