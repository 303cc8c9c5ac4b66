package qemu

import (
	"context"

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
	return d
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
