package qemu

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/run"
)

// hardware is what depends on the processor of the guest.
type hardware struct {
	arch     string // as QEMU and the descriptors of firmware name it
	goarch   string // as Go names it
	kind     string // what the names of its machine types begin with
	fresh    string // machine type of a machine that starts anew
	programs string // the packages with QEMU
	firmware string // and with firmware
	program  string
}

const armProgram = "qemu-system-aarch64"

// hardware returns that of the machine.
func (d *Driver) hardware(s machine.Spec) hardware {
	if s.Arch == machine.ARM64 {
		return hardware{
			arch: machine.ARM64, goarch: "arm64", kind: "virt-", fresh: "virt", program: d.armProgram,
			programs: "package qemu-system-arm on Debian and Ubuntu, qemu-system-aarch64 on Fedora, qemu elsewhere",
			firmware: "package qemu-efi-aarch64 on Debian and Ubuntu, edk2-aarch64 on Fedora and RHEL",
		}
	}
	return hardware{
		arch: machine.X86_64, goarch: "amd64", kind: "pc-q35-", fresh: "q35", program: d.program,
		programs: "package qemu-system-x86 on Debian, Ubuntu and Fedora, qemu-kvm on RHEL, qemu elsewhere",
		firmware: "package ovmf on Debian and Ubuntu, edk2-ovmf on Fedora, RHEL and Arch",
	}
}

// native reports whether this computer's processors could run the guest's code.
func (d *Driver) native(h hardware) bool { return h.goarch == d.goarch }

// kvmFor reports whether guests of that hardware run by KVM unless told not to.
func (d *Driver) kvmFor(h hardware) bool { return d.native(h) && d.kvmWorks() == nil }

func (h hardware) isARM() bool { return h.arch == machine.ARM64 }

// cpuArg is the best processor there is.
func (h hardware) cpuArg(accel string) string {
	switch {
	case !h.isARM():
		return "max,la57=off" // five-level paging only slows emulation
	case accel == accelKVM:
		return "host"
	}
	// Pointers are signed by a function of QEMU's own: to emulate the
	// architecture's makes a guest several times slower.
	return "max,pauth-impdef=on"
}

// machineArg is the machine type with what it needs.
func (h hardware) machineArg(l launch) string {
	arg := l.Machine
	if h.isARM() {
		if l.Accel == accelKVM {
			arg += ",gic-version=host"
		} else {
			arg += ",gic-version=3" // 2 serves eight processors at most
		}
	}
	return arg + l.firmware.machineArg()
}

// cdArgs is a drive that only reads. On machines without IDE it is one of SCSI.
func (h hardware) cdArgs(node, path string, bus int, boot string) []string {
	device := "ide-cd,bus=ide." + strconv.Itoa(bus)
	if h.isARM() {
		device = "scsi-cd,bus=scsi0.0,scsi-id=" + strconv.Itoa(bus)
	}
	return []string{"-blockdev", blockdev(node, "raw", path, true), "-device", device + ",drive=" + node + boot}
}

// probe says whether the program for the guest is there, and its version.
func (d *Driver) probe(ctx context.Context, h hardware) (string, error) {
	out, err := d.run.Run(ctx, run.Command{Name: h.program, Args: []string{"--version"}, Timeout: 10 * time.Second})
	if err != nil {
		e := fail.New(fail.HostLacks, "QEMU cannot be run: %w", err)
		if fail.Is(err, fail.HostLacks) || errors.Is(err, fs.ErrNotExist) {
			e = e.Hint("install it: %s", h.programs).Hint("or name the program in %s", h.variable())
		}
		return "", e
	}
	found := versionPattern.FindSubmatch(out.Stdout)
	if found == nil {
		return "", fail.New(fail.HostLacks, "%s is not QEMU: it says %.80q", h.program, out.Stdout)
	}
	version := string(found[1])
	oldest := 5
	if h.isARM() {
		oldest = 6 // the first with pauth-impdef
	}
	if major, err := strconv.Atoi(string(found[2])); err != nil || major < oldest {
		return version, fail.New(fail.HostLacks, "QEMU %s is too old", version).Hint("install version %d.0 or newer", oldest)
	}
	return version, nil
}

// variable names the program in the environment.
func (h hardware) variable() string {
	if h.isARM() {
		return "MICA_QEMU_AARCH64"
	}
	return "MICA_QEMU"
}

// leastARM is the memory that the firmware of machine virt starts with.
const leastARM = 128

// checkHardware says whether this computer has what a machine's architecture
// needs.
func (d *Driver) checkHardware(ctx context.Context, s machine.Spec) error {
	h := d.hardware(s)
	if s.Accel == accelKVM && !d.native(h) {
		return foreign(h)
	}
	if !h.isARM() {
		return nil // Probe has
	}
	if s.MemoryMiB < leastARM {
		return fail.New(fail.Usage, "%d MiB of memory are too few for UEFI on %s", s.MemoryMiB, h.arch).Hint("use at least %d", leastARM)
	}
	_, err := d.probe(ctx, h)
	return err
}

// foreign is the error for KVM where the host is of another architecture.
func foreign(h hardware) error {
	return fail.New(fail.HostLacks, "KVM of this computer runs no guests of %s", h.arch).
		Hint("leave --accel out to run by emulation, several times slower")
}
