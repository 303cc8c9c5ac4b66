package libvirt

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// capabilities are what is asked of libvirt's capabilities.
type capabilities struct {
	virt    map[string]virt // by architecture of the guest
	qemuUID int             // whom QEMU runs as; -1 is whom the daemon runs as
}

// virt is how guests of an architecture run.
type virt struct {
	emulated bool // by QEMU alone
	kvm      bool
}

// look asks a daemon what it is. One that has just started runs each of its QEMUs
// first to find out.
func (d *Driver) look(ctx context.Context, c *conn) (uint64, capabilities, error) {
	var version uint64
	var doc string
	err := c.callUntil(ctx, longPatience, askPatience, "asking libvirt what it can do", func() (err error) {
		if version, err = c.ConnectGetLibVersion(); err != nil {
			return err
		}
		doc, err = c.ConnectGetCapabilities()
		return err
	})
	if err != nil {
		return 0, capabilities{}, err
	}
	caps, err := readCapabilities(doc)
	return version, caps, err
}

func readCapabilities(doc string) (capabilities, error) {
	caps := capabilities{virt: map[string]virt{}, qemuUID: -1}
	var x libvirtxml.Caps
	if err := x.Unmarshal(doc); err != nil {
		return caps, fmt.Errorf("reading libvirt's capabilities: %w", err)
	}
	for _, g := range x.Guests {
		if g.OSType != "hvm" {
			continue
		}
		v := caps.virt[g.Arch.Name]
		for _, dom := range g.Arch.Domains {
			v.emulated = v.emulated || dom.Type == "qemu"
			v.kvm = v.kvm || dom.Type == "kvm"
		}
		caps.virt[g.Arch.Name] = v
	}
	for _, model := range x.Host.SecModel {
		for _, label := range model.Labels {
			if uid, ok := qemuUser(label.Value); ok && model.Name == "dac" {
				caps.qemuUID = uid
			}
		}
	}
	return caps, nil
}

// qemuUser reads the uid of the daemon's QEMU from a label of the security
// model dac: "+64055:+64055".
func qemuUser(label string) (int, bool) {
	user, _, _ := strings.Cut(label, ":")
	uid, err := strconv.Atoi(strings.TrimPrefix(user, "+"))
	return uid, err == nil
}

// has refuses an architecture that the daemon has no QEMU for.
func (caps capabilities) has(arch, uri string) error {
	if caps.virt[arch].emulated {
		return nil
	}
	err := fail.New(fail.HostLacks, "libvirt at %s has no QEMU for %s", uri, arch)
	if arch == machine.ARM64 {
		return err.Hint("install it there: packages qemu-system-arm and qemu-efi-aarch64 on Debian and Ubuntu, qemu-system-aarch64 and edk2-aarch64 on Fedora")
	}
	return err.Hint("install it there: package qemu-system-x86 on Debian and Ubuntu, qemu-kvm on Fedora and RHEL")
}

// checkFirmware refuses UEFI where the daemon knows no build of it that fits.
func (c *conn) checkFirmware(ctx context.Context, s machine.Spec) error {
	if s.Firmware != machine.UEFI {
		return nil
	}
	var doc string
	err := c.callUntil(ctx, longPatience, askPatience, "asking libvirt for its firmware", func() (err error) {
		doc, err = c.ConnectGetDomainCapabilities(nil, rpc.OptString{archOf(s)}, rpc.OptString{machineType(s)}, rpc.OptString{"qemu"}, 0)
		return err
	})
	if err != nil {
		return err
	}
	var x libvirtxml.DomainCaps
	if err := x.Unmarshal(doc); err != nil {
		return fmt.Errorf("reading libvirt's capabilities: %w", err)
	}
	if x.OS == nil {
		return noFirmware(s, c.uri)
	}
	for _, e := range x.OS.Enums {
		if e.Name == "firmware" && slices.Contains(e.Values, "efi") {
			return nil
		}
	}
	return noFirmware(s, c.uri)
}

func noFirmware(s machine.Spec, uri string) error {
	err := fail.New(fail.HostLacks, "libvirt at %s has no UEFI firmware for %s", uri, archOf(s))
	if archOf(s) == machine.ARM64 {
		return err.Hint("install it there: package qemu-efi-aarch64 on Debian and Ubuntu, edk2-aarch64 on Fedora")
	}
	return err.Hint("install it there: package ovmf on Debian and Ubuntu, edk2-ovmf on Fedora and RHEL")
}
