package all

import (
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
)

// Default is the driver of machines whose user names none.
const Default = qemu.Name

// Drivers makes every driver.
func Drivers(env machine.Env) *machine.Registry {
	return machine.NewRegistry(env,
		machine.Factory{Name: libvirt.Name, New: libvirt.New},
		machine.Factory{Name: qemu.Name, New: qemu.New},
		machine.Factory{Name: virtualbox.Name, New: virtualbox.New}, // yours goes here, in alphabetical order
	)
}
