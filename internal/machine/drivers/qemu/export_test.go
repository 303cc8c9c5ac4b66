package qemu

import "github.com/micavm/mica/internal/machine"

// KVM makes a driver believe that KVM is there and works.
func KVM(d machine.Driver) machine.Driver {
	fine := func() error { return nil }
	d.(*Driver).kvmOpens, d.(*Driver).kvmWorks = fine, fine
	return d
}

// What is tested by itself.
var (
	KVMWorks = kvmWorks
	Args     = func(s machine.Spec) []string {
		return launch{Accel: accelTCG, Machine: freshMachine, Sandbox: true}.args(s)
	}
)
