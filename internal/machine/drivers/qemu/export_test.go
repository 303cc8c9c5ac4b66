package qemu

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/machine"
)

// Dump writes a guest's memory as for a snapshot, and leaves it at that.
func Dump(ctx context.Context, d machine.Driver, i machine.Instance) error {
	return d.(*Driver).dump(ctx, i, i.Spec.Path("dump.json"), i.Spec.Path("dump.bin"))
}

// KVM makes a driver believe that KVM is there and works.
func KVM(d machine.Driver) machine.Driver {
	fine := func() error { return nil }
	d.(*Driver).kvmOpens, d.(*Driver).kvmWorks = fine, fine
	d.(*Driver).goarch = "amd64"
	return d
}

// On makes a driver believe that this computer is of another architecture.
func On(d machine.Driver, goarch string) machine.Driver {
	d.(*Driver).goarch = goarch
	return d
}

// Firmwares makes a driver look for firmware in these folders only.
func Firmwares(d machine.Driver, dirs ...string) machine.Driver {
	d.(*Driver).firmwareDirs = dirs
	return d
}

// AutoArgs is the command line of a machine with the best acceleration that the
// driver has for it.
func AutoArgs(d machine.Driver, s machine.Spec) []string {
	q := d.(*Driver)
	h := q.hardware(s)
	l := launch{Layout: layout, Accel: accelTCG, Machine: h.fresh, hardware: h}
	if q.kvmFor(h) {
		l.Accel = accelKVM
	}
	return l.args(s)
}

// What is tested by itself.
var (
	KVMWorks = kvmWorks
	ReadPPM  = readPPM
	Args     = func(s machine.Spec) []string {
		h := (&Driver{program: program}).hardware(s)
		return launch{Layout: layout, Accel: accelTCG, Machine: h.fresh, Sandbox: true, hardware: h}.args(s)
	}
)

// VirtioDisk is one disk on the PCI bus of a machine that runs.
type VirtioDisk struct {
	Slot   int
	Serial string
}

// VirtioDisks asks QEMU for them, in the order of the bus.
func VirtioDisks(ctx context.Context, t *testing.T, i machine.Instance) []VirtioDisk {
	t.Helper()
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	var buses []struct {
		Devices []struct {
			Slot int
			ID   struct{ Device int }
		}
	}
	if err := m.call(ctx, "query-pci", nil, &buses); err != nil {
		t.Fatal(err)
	}
	const virtioBlock = 0x1001 // as a device that speaks the old protocol, too
	var all []VirtioDisk
	for _, device := range buses[0].Devices {
		if device.ID.Device == virtioBlock {
			all = append(all, VirtioDisk{Slot: device.Slot})
		}
	}
	tree, err := m.human(ctx, "info qtree")
	if err != nil {
		t.Fatal(err)
	}
	for n := range all {
		_, part, ok := strings.Cut(tree, fmt.Sprintf("addr = %02x.0", all[n].Slot))
		if _, serial, found := strings.Cut(part, `serial = "`); ok && found {
			all[n].Serial, _, _ = strings.Cut(serial, `"`)
		}
	}
	return all
}

// Screen reads the text on the screen of a machine that runs its BIOS.
func Screen(ctx context.Context, t *testing.T, i machine.Instance) string {
	t.Helper()
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	dump, err := m.human(ctx, "xp /4000bx 0xb8000") // 80 by 25 characters, each with its colours
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	n := 0
	for _, word := range strings.Fields(dump) {
		var b byte
		if _, err := fmt.Sscanf(word, "0x%02x", &b); err != nil || strings.HasSuffix(word, ":") {
			continue
		}
		if n++; n%2 == 1 {
			text.WriteByte(b)
		}
	}
	return text.String()
}
