package efiguest

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/micavm/mica/internal/fat"
	"github.com/micavm/mica/internal/iso9660"
)

// The architectures, as QEMU names them.
const (
	X86 = "x86_64"
	ARM = "aarch64"
)

const (
	sector    = 512
	headers   = sector // of the application, in its file
	loadedAt  = 0x1000 // where its one section is in memory
	textAt    = 0x200  // in the section
	maxText   = 0x1000
	subsystem = 10         // EFI application
	section   = 0xe0000020 // code; to be executed, read and written
)

// App returns the application: it writes says and a line "boot N", N being how
// often it has run on this variable store, and then "#0001" and so on, ten times
// a second.
func App(arch, says string) []byte {
	code, machine := x86Program(), uint16(0x8664)
	if arch == ARM {
		code, machine = armProgram(), 0xaa64
	}
	body := make([]byte, textAt+maxText)
	copy(body, code)
	copy(body[textAt:textAt+maxText-1], says)

	le := binary.LittleEndian
	file := make([]byte, headers, headers+len(body))
	copy(file, "MZ")
	const peAt = 0x40
	le.PutUint32(file[0x3c:], peAt)
	copy(file[peAt:], "PE\x00\x00")
	coff := file[peAt+4:]
	le.PutUint16(coff, machine)
	le.PutUint16(coff[2:], 1)      // sections
	le.PutUint16(coff[16:], 240)   // bytes of the optional header
	le.PutUint16(coff[18:], 0x022) // executable, large addresses; it runs wherever it is
	opt := coff[20:]
	le.PutUint16(opt, 0x20b) // PE32+
	le.PutUint32(opt[4:], uint32(len(body)))
	le.PutUint32(opt[16:], loadedAt) // entry point
	le.PutUint32(opt[20:], loadedAt) // code
	le.PutUint32(opt[32:], loadedAt) // alignment in memory
	le.PutUint32(opt[36:], sector)   // and in the file
	le.PutUint32(opt[56:], loadedAt+uint32(len(body)+loadedAt-1)&^(loadedAt-1))
	le.PutUint32(opt[60:], headers)
	le.PutUint16(opt[68:], subsystem)
	le.PutUint32(opt[108:], 16) // data directories, all empty
	table := opt[240:]
	copy(table, ".text")
	le.PutUint32(table[8:], uint32(len(body)))
	le.PutUint32(table[12:], loadedAt)
	le.PutUint32(table[16:], uint32(len(body)))
	le.PutUint32(table[20:], headers)
	le.PutUint32(table[36:], section)
	return append(file, body...)
}

// Disk returns a FAT file system with the application where firmware looks for
// it: a disk without partitions, or the boot image of a CD.
func Disk(arch, says string) ([]byte, error) {
	name := map[string]string{X86: "BOOTX64.EFI", ARM: "BOOTAA64.EFI"}[arch]
	image, _, err := fat.Pack(fat.Volume{Files: []fat.File{{Path: "EFI/BOOT/" + name, Data: App(arch, says)}}}, sector)
	return image, err
}

// CD returns an ISO image that boots the file system of Disk.
func CD(ctx context.Context, arch, says string) ([]byte, error) {
	disk, err := Disk(arch, says)
	if err != nil {
		return nil, err
	}
	boot := iso9660.Bytes("efi.img", 0o444, disk)
	var iso bytes.Buffer
	err = iso9660.Write(ctx, &iso, iso9660.Volume{Label: "EFIGUEST", Boot: []iso9660.BootImage{{Platform: iso9660.EFI, Hidden: &boot}}})
	return iso.Bytes(), err
}
