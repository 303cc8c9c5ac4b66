package libvirt

import (
	"bytes"
	"errors"
	"os"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// The accelerations.
const (
	accelAuto = "auto"
	accelKVM  = "kvm"
	accelTCG  = "tcg"
)

// kvmWorks says whether the daemon's KVM runs real kernels. libvirt offers KVM
// where the device opens, which is no proof: hosts that are virtual machines
// themselves may have one without virtualization in the processor, which gets
// no further than the boot loader. Of another computer, and of processors that
// do not tell, libvirt's word is all there is.
func (d *Driver) kvmWorks(e endpoint, caps capabilities, arch string) error {
	if !caps.virt[arch].kvm {
		return fail.New(fail.HostLacks, "KVM is not usable: libvirt at %s does not offer it for %s", e.uri, arch).
			Hint("switch virtualization on in the firmware, load kvm_intel or kvm_amd, and let libvirt's users open /dev/kvm").
			Hint("or pass --accel tcg to run by emulation, several times slower")
	}
	if e.remote() || arch != machine.X86_64 {
		return nil
	}
	return d.virtualizes()
}

// virtualizes says whether this computer's processor has virtualization.
func (d *Driver) virtualizes() error {
	info, err := os.ReadFile(d.cpuinfo)
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
	return fail.New(fail.HostLacks, "KVM is not usable: the processor offers no virtualization (vmx, svm)").
		Hint("pass --accel tcg to run by emulation, several times slower")
}

// choose is the acceleration of a new machine.
func (d *Driver) choose(e endpoint, caps capabilities, s machine.Spec) (string, error) {
	arch := archOf(s)
	if err := caps.has(arch, e.uri); err != nil {
		return "", err
	}
	switch s.Accel {
	case accelKVM:
		if !caps.virt[arch].kvm {
			return "", d.kvmWorks(e, caps, arch)
		}
		return accelKVM, nil
	case accelTCG:
		return accelTCG, nil
	}
	if d.kvmWorks(e, caps, arch) == nil {
		return accelKVM, nil
	}
	return accelTCG, nil
}

// errInternal says that the accelerator gave up on the guest.
var errInternal = errors.New("the virtual processor stopped with an internal error")
