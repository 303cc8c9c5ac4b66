package libvirt

import (
	"cmp"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

const (
	// namespace marks Mica's element in a domain's metadata.
	namespace = "https://github.com/micavm/mica/machine/1"

	netID = "mica0"
	// The user network's card sits where libvirt, which does not see it, puts
	// nothing: it fills the bus from both ends.
	netSlot = "0x10"

	serialOfDisk = "mica-disk" // by which the guest knows its disk; further ones are mica-disk1 and on, as with the driver qemu
)

// domainName is the domain's name: readable, and unlike any other user's.
func domainName(s machine.Spec) string {
	id, _, _ := strings.Cut(s.ID, "-")
	return "mica-" + s.Name + "-" + id
}

func title(s machine.Spec) string { return "Mica machine " + s.Name }

// mark is what makes a domain Mica's.
func mark(s machine.Spec) string {
	return fmt.Sprintf(`<mica:machine xmlns:mica=%q name=%q/>`, namespace, s.Name)
}

// markPattern finds it again.
var markPattern = regexp.MustCompile(`<mica:machine [^>]*/>`)

// userNet reports whether the machine has QEMU's user network.
func userNet(s machine.Spec) bool { return s.Network == "" || s.Network == machine.NAT }

// media are the paths of a machine's files, as its QEMU sees them.
type media struct {
	image, config, disk, log string
	nvram                    string   // of UEFI
	more                     []string // of Spec.Disks
}

// archOf is the architecture of the guest.
func archOf(s machine.Spec) string { return cmp.Or(s.Arch, machine.X86_64) }

// machineType is what libvirt calls the kind of computer.
func machineType(s machine.Spec) string {
	if archOf(s) == machine.ARM64 {
		return "virt"
	}
	return "q35"
}

// domainXML describes the machine to libvirt.
func domainXML(s machine.Spec, m media, o options, accel string) (string, error) {
	d := &libvirtxml.Domain{
		Type:       "qemu",
		Name:       domainName(s),
		UUID:       s.ID,
		Title:      title(s),
		Metadata:   &libvirtxml.DomainMetadata{XML: mark(s)},
		Memory:     &libvirtxml.DomainMemory{Value: uint(s.MemoryMiB), Unit: "MiB"},
		VCPU:       &libvirtxml.DomainVCPU{Value: uint(s.CPUs)},
		OS:         system(s, m),
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}},
		CPU:        processor(s, accel),
		Clock:      &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "preserve",
		Devices: &libvirtxml.DomainDeviceList{
			Disks:       disks(s, m),
			Serials:     []libvirtxml.DomainSerial{serial(m.log)},
			Videos:      []libvirtxml.DomainVideo{{Model: libvirtxml.DomainVideoModel{Type: "vga"}}},
			Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
			MemBalloon:  &libvirtxml.DomainMemBalloon{Model: "none"},
			RNGs: []libvirtxml.DomainRNG{{
				Model:   "virtio",
				Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}},
			}},
			Filesystems: filesystems(s, o),
		},
	}
	if accel == accelKVM {
		d.Type = "kvm"
	}
	if archOf(s) == machine.ARM64 {
		arm(d, s)
	} else {
		d.Features.APIC = &libvirtxml.DomainFeatureAPIC{}
	}
	if userNet(s) {
		d.QEMUCommandline = &libvirtxml.DomainQEMUCommandline{Args: []libvirtxml.DomainQEMUCommandlineArg{
			{Value: "-netdev"},
			{Value: netdev(s)},
			{Value: "-device"},
			{Value: "virtio-net-pci,netdev=" + netID + ",id=net-" + netID + ",romfile=,mac=" + mac(s.ID) + ",bus=pcie.0,addr=" + netSlot},
		}}
	} else {
		d.Devices.Interfaces = []libvirtxml.DomainInterface{{
			MAC:    &libvirtxml.DomainInterfaceMAC{Address: mac(s.ID)},
			Source: &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: s.Network}},
			Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
			ROM:    &libvirtxml.DomainROM{Enabled: "no"},
		}}
	}
	if s.Display == machine.DisplayVNC {
		const local = "127.0.0.1"
		d.Devices.Graphics = []libvirtxml.DomainGraphic{{VNC: &libvirtxml.DomainGraphicVNC{
			AutoPort: "yes", Listen: local,
			Listeners: []libvirtxml.DomainGraphicListener{{Address: &libvirtxml.DomainGraphicListenerAddress{Address: local}}},
		}}}
		if s.Clipboard {
			d.Devices.Channels = []libvirtxml.DomainChannel{{
				Source: &libvirtxml.DomainChardevSource{QEMUVDAgent: &libvirtxml.DomainChardevSourceQEMUVDAgent{
					ClipBoard: &libvirtxml.DomainChardevSourceQEMUVDAgentClipBoard{CopyPaste: "yes"},
				}},
				Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "com.redhat.spice.0"}},
			}}
		}
	}
	d.MemoryBacking = memoryBacking(s, o)
	if s.ExecutionCap > 0 && s.ExecutionCap < 100 {
		const period = 100000 // microseconds
		d.CPUTune = &libvirtxml.DomainCPUTune{
			Period: &libvirtxml.DomainCPUTunePeriod{Value: period},
			Quota:  &libvirtxml.DomainCPUTuneQuota{Value: period / 100 * int64(s.ExecutionCap)},
		}
	}
	return d.Marshal()
}

func system(s machine.Spec, m media) *libvirtxml.DomainOS {
	o := &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: archOf(s), Machine: machineType(s), Type: "hvm"}}
	if s.Firmware == machine.UEFI {
		// Left alone, libvirt takes the build with Secure Boot, which says nothing
		// when it refuses a loader.
		o.Firmware = "efi"
		o.FirmwareInfo = &libvirtxml.DomainOSFirmwareInfo{Features: []libvirtxml.DomainOSFirmwareFeature{
			{Enabled: "no", Name: "secure-boot"}, {Enabled: "no", Name: "enrolled-keys"},
		}}
		// In a place of its own libvirt names it after the domain, and loses it when
		// that is renamed.
		o.NVRam = &libvirtxml.DomainNVRam{NVRam: m.nvram}
	}
	return o
}

// processor is the best one there is, but for what only slows emulation:
// five-level paging of x86, and the signed pointers of newer ARM.
func processor(s machine.Spec, accel string) *libvirtxml.DomainCPU {
	switch {
	case accel == accelKVM:
		return &libvirtxml.DomainCPU{Mode: "host-passthrough", Check: "none"}
	case archOf(s) == machine.ARM64:
		return &libvirtxml.DomainCPU{Mode: "custom", Match: "exact", Check: "none", Model: &libvirtxml.DomainCPUModel{Value: "cortex-a72"}}
	}
	return &libvirtxml.DomainCPU{
		Mode: "maximum", Check: "none",
		Features: []libvirtxml.DomainCPUFeature{{Policy: "disable", Name: "la57"}},
	}
}

// arm gives the domain what the machine type virt has not, or has of another kind.
func arm(d *libvirtxml.Domain, s machine.Spec) {
	const gic2 = 8 // processors that the interrupt controller of version 2 can serve
	if s.CPUs > gic2 {
		d.Features.GIC = &libvirtxml.DomainFeatureGIC{Version: "3"}
	}
	first := uint(0)
	d.Devices.Videos[0].Model = libvirtxml.DomainVideoModel{Type: "virtio"}
	d.Devices.Controllers = []libvirtxml.DomainController{{Type: "usb", Model: "none"}, {Type: "scsi", Index: &first, Model: "virtio-scsi"}}
	if s.Display == machine.DisplayVNC { // there is no other keyboard
		d.Devices.Controllers[0].Model = "qemu-xhci"
		d.Devices.Inputs = []libvirtxml.DomainInput{{Type: "keyboard", Bus: "usb"}, {Type: "tablet", Bus: "usb"}}
	}
}

func memoryBacking(s machine.Spec, o options) *libvirtxml.DomainMemoryBacking {
	if o.shares != sharesVirtio || len(s.Shares) == 0 {
		return nil
	}
	return &libvirtxml.DomainMemoryBacking{
		MemorySource: &libvirtxml.DomainMemorySource{Type: "memfd"},
		MemoryAccess: &libvirtxml.DomainMemoryAccess{Mode: "shared"},
	}
}

// disks are the disks and drives: the boot image, where it is no disk image,
// which the data disk then has the content of; the medium with the context; the
// data disk; the further ones.
func disks(s machine.Spec, m media) []libvirtxml.DomainDisk {
	file := func(path string) *libvirtxml.DomainDiskSource {
		return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}}
	}
	cdrom := func(path, target string) libvirtxml.DomainDisk {
		bus := "sata"
		if archOf(s) == machine.ARM64 { // whose computers have none
			bus = "scsi"
		}
		return libvirtxml.DomainDisk{
			Device: "cdrom", Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"}, Source: file(path),
			Target: &libvirtxml.DomainDiskTarget{Dev: target, Bus: bus}, ReadOnly: &libvirtxml.DomainDiskReadOnly{},
		}
	}
	// What clouds and KVM run may have no drivers but virtio's; what VMware,
	// VirtualBox and Hyper-V ran may have none of these.
	bus, prefix, second := "virtio", "vd", 'b'
	switch s.Image.Format {
	case "", "raw", formatQcow2:
	default:
		if archOf(s) == machine.X86_64 {
			bus, prefix, second = "sata", "sd", 'c' // sdb is the medium with the context
		}
	}
	disk := func(path, format, target, serial string) libvirtxml.DomainDisk {
		return libvirtxml.DomainDisk{
			Device: "disk", Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: format, Discard: "unmap"}, Source: file(path),
			Target: &libvirtxml.DomainDiskTarget{Dev: target, Bus: bus}, Serial: serial,
		}
	}
	var all []libvirtxml.DomainDisk
	order := uint(0)
	boots := func(d libvirtxml.DomainDisk) {
		order++
		d.Boot = &libvirtxml.DomainDeviceBoot{Order: order}
		all = append(all, d)
	}
	if s.Image.Format == "" {
		boots(cdrom(m.image, "sda"))
	}
	all = append(all, cdrom(m.config, "sdb"))
	boots(disk(m.disk, formatQcow2, prefix+"a", serialOfDisk))
	for n, d := range s.Disks {
		target := prefix + string(second+rune(n)) // there are fewer than letters
		more := disk(m.more[n], cmp.Or(d.Format, formatQcow2), target, fmt.Sprintf("%s%d", serialOfDisk, n+1))
		if d.ReadOnly {
			more.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
		}
		all = append(all, more)
	}
	return all
}

func serial(log string) libvirtxml.DomainSerial {
	port := uint(0)
	return libvirtxml.DomainSerial{
		Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
		Target: &libvirtxml.DomainSerialTarget{Port: &port},
		// Appended to, since going on from saved memory opens it again; each boot
		// begins a fresh file.
		Log: &libvirtxml.DomainChardevLog{File: log, Append: "on"},
	}
}

func filesystems(s machine.Spec, o options) []libvirtxml.DomainFilesystem {
	var all []libvirtxml.DomainFilesystem
	for n, share := range s.Shares {
		fs := libvirtxml.DomainFilesystem{
			// Files the guest makes belong to whom QEMU runs as; links stay links.
			AccessMode: "squash",
			Source:     &libvirtxml.DomainFilesystemSource{Mount: &libvirtxml.DomainFilesystemSourceMount{Dir: share.Path}},
			Target:     &libvirtxml.DomainFilesystemTarget{Dir: s.ShareTag(n, maxTag)},
		}
		if o.shares == sharesVirtio {
			fs.AccessMode, fs.Driver = "passthrough", &libvirtxml.DomainFilesystemDriver{Type: "virtiofs"}
		}
		if share.ReadOnly {
			fs.ReadOnly = &libvirtxml.DomainFilesystemReadOnly{}
		}
		all = append(all, fs)
	}
	return all
}

// netdev is QEMU's description of the user network.
func netdev(s machine.Spec) string {
	var b strings.Builder
	b.WriteString("user,id=" + netID + ",hostname=" + s.Hostname())
	for _, f := range s.Forwards {
		fmt.Fprintf(&b, ",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	return b.String()
}

// netdevArg finds the user network in a domain's XML, and only that: what
// people have changed with libvirt's own tools stays.
var netdevArg = regexp.MustCompile(`(<(?:\w+:)?arg value=)(['"])user,id=` + netID + `,[^'"]*['"]`)

// withForwards returns the domain's XML with the machine's forwards as they are now.
func withForwards(doc string, s machine.Spec) string {
	return netdevArg.ReplaceAllString(doc, "${1}${2}"+netdev(s)+"${2}")
}

// mac is an address of QEMU's range that stays with the machine.
func mac(id string) string {
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", sum[0], sum[1], sum[2])
}

// live is what is read from the XML of a domain.
type live struct {
	XMLName xml.Name `xml:"domain"`
	Type    string   `xml:"type,attr"`
	Machine struct {
		Name string `xml:"machine,attr"`
	} `xml:"os>type"`
	Graphics []struct {
		Type string `xml:"type,attr"`
		Port int    `xml:"port,attr"`
	} `xml:"devices>graphics"`
}

func readLive(doc string) (live, error) {
	var l live
	if err := xml.Unmarshal([]byte(doc), &l); err != nil {
		return l, fail.New(fail.Failed, "reading the domain's XML: %w", err)
	}
	return l, nil
}
