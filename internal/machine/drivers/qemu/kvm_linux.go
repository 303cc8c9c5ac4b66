package qemu

import (
	"bytes"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
)

const (
	kvmGetAPIVersion = 0xae00
	kvmAPIVersion    = 12
)

// kvmOpens says whether KVM answers at all: what --accel kvm insists on.
func kvmOpens(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		e := fail.New(fail.HostLacks, "KVM is not usable: %w", err)
		if errors.Is(err, fs.ErrPermission) {
			e = e.Hint("add yourself to the group of %s (often kvm), then log in again", device)
		} else {
			e = e.Hint("switch virtualization on in the firmware, and load kvm_intel or kvm_amd")
		}
		return e.Hint("or pass --accel tcg to run by emulation, several times slower")
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil || version != kvmAPIVersion {
		return fail.New(fail.HostLacks, "%s does not speak KVM's interface %d", device, kvmAPIVersion).Hint("pass --accel tcg")
	}
	return nil
}

// kvmWorks says whether KVM runs real kernels. That the device opens, and even
// that a virtual machine can be made, is no proof: hosts that are virtual
// machines themselves may offer a KVM without virtualization in the processor,
// which gets no further than the boot loader. Such there are of x86 only.
func kvmWorks(device, cpuinfo string) error {
	if err := kvmOpens(device); err != nil {
		return err
	}
	info, err := os.ReadFile(cpuinfo)
	if err != nil {
		return fail.New(fail.HostLacks, "KVM is not usable: %w", err)
	}
	for line := range bytes.Lines(info) {
		if !bytes.HasPrefix(line, []byte("flags")) {
			continue
		}
		for _, flag := range bytes.Fields(line) {
			if string(flag) == "vmx" || string(flag) == "svm" {
				return nil
			}
		}
		break
	}
	return fail.New(fail.HostLacks, "KVM is not usable: %s is there, but the processor offers no virtualization (vmx, svm)", device).
		Hint("pass --accel tcg to run by emulation, several times slower")
}
