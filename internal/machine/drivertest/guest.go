package drivertest

import "github.com/micavm/mica/internal/machine/bootsector"

// Guest is what the boot sector of BootISO does.
type Guest = bootsector.Guest

// BootISO returns a bootable ISO image of one small program.
func BootISO(g Guest) []byte { return bootsector.ISO(g) }

// BootDisk returns a disk to boot from. A real computer says that it booted the
// data disk, a fake one does what g says.
func BootDisk(g Guest) []byte {
	const program, size = 20 * 2048, 1 << 20
	disk := make([]byte, size)
	copy(disk, bootsector.DataSector())
	copy(disk[program:], bootsector.ISO(g)[program:])
	return disk
}

// DataSector returns a boot sector for a data disk, which a machine must not
// start from: it says so on the serial port.
func DataSector() []byte { return bootsector.DataSector() }
