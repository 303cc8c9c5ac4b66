package drivertest

import "github.com/micavm/mica/internal/machine/bootsector"

// Guest is what the boot sector of BootISO does.
type Guest = bootsector.Guest

// BootISO returns a bootable ISO image of one small program.
func BootISO(g Guest) []byte { return bootsector.ISO(g) }

// DataSector returns a boot sector for a data disk, which a machine must not
// start from: it says so on the serial port.
func DataSector() []byte { return bootsector.DataSector() }
