package bootsector

import (
	"encoding/binary"
)

// Guest is what the boot sector of ISO does.
type Guest struct {
	// Says is written to the first serial port when the guest starts, at most
	// some seven thousand bytes. After that the guest counts: "#0001" and so
	// on, nine lines a second, and writes back what it reads from the port.
	Says string
	// Obeys makes the guest switch itself off when the power button is pressed.
	Obeys bool
}

const (
	sector   = 2048
	textAt   = 0x100
	flagAt   = 0xff
	loaded   = 16 // sectors of 512 bytes that the BIOS loads
	program  = 20 // the ISO's sector the program is in
	total    = program + loaded*512/sector
	maxGuest = loaded*512 - textAt - 1
)

// ISO returns a bootable ISO image: El Torito without emulation, of one
// program in 16-bit code.
func ISO(g Guest) []byte {
	iso := make([]byte, total*sector)
	primary := iso[16*sector:]
	copy(primary, "\x01CD001\x01")
	both32(primary[80:], total)
	both16(primary[120:], 1)
	both16(primary[124:], 1)
	both16(primary[128:], sector)
	copy(primary[156:], []byte{34}) // the root folder: empty, and of no use to the BIOS
	primary[881] = 1
	boot := iso[17*sector:]
	copy(boot, "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(boot[71:], 19)
	copy(iso[18*sector:], "\xffCD001\x01")

	catalog := iso[19*sector:]
	catalog[0] = 1 // validation entry, platform x86
	catalog[30], catalog[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(catalog[i:])
	}
	binary.LittleEndian.PutUint16(catalog[28:], -sum)
	catalog[32] = 0x88 // bootable, no emulation
	binary.LittleEndian.PutUint16(catalog[38:], loaded)
	binary.LittleEndian.PutUint32(catalog[40:], program)

	code := iso[program*sector:]
	copy(code, sectorProgram)
	if g.Obeys {
		code[flagAt] = 1
	}
	copy(code[textAt:textAt+maxGuest], g.Says)
	return iso
}

// DataSector returns a boot sector for a data disk, which a machine must not
// start from: it says so on the serial port.
func DataSector() []byte {
	disk := make([]byte, 512)
	copy(disk, sectorProgram)
	// The text is within the one sector that the BIOS loads.
	const near = 0xa0
	binary.LittleEndian.PutUint16(disk[textOperand:], 0x7c00+near)
	copy(disk[near:flagAt], "booted from the data disk\r\n\x00")
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}

func both16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}

func both32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}

// textOperand is where sectorProgram holds the address of its text.
const textOperand = 0x21

// sectorProgram is this, made with GNU as (.code16, at 0x7c00):
//
//	_start:
//	  cli
//	  xorw %ax,%ax
//	  movw %ax,%ds
//	  movw %ax,%ss
//	  movw $0x7c00,%sp
//	  xorw %bx,%bx
//	  ljmp $0,$(0x7c00+start-_start)
//	start:
//	  sti
//	  cmpb $0, 0x7cff        # does this guest listen to the power button?
//	  je text
//	  movw $0x602,%dx        # PM1 enable: power button
//	  movw $0x100,%ax
//	  outw %ax,%dx
//	text:
//	  movw $0x7d00,%si
//	print:
//	  lodsb
//	  testb %al,%al
//	  jz tick
//	  call put
//	  jmp print
//	tick:
//	  hlt                    # until the timer, 18.2 times a second
//	  movw $0x600,%dx        # PM1 status
//	  inw %dx,%ax
//	  testb $1,%ah           # power button pressed
//	  jz serial
//	  movw $0x604,%dx        # PM1 control: sleep type 0 (S5), sleep enable
//	  movw $0x2000,%ax
//	  outw %ax,%dx
//	serial:
//	  movw $0x3fd,%dx
//	  inb %dx,%al
//	  testb $1,%al
//	  jz count
//	  movw $0x3f8,%dx
//	  inb %dx,%al
//	  call put
//	  jmp serial
//	count:
//	  incw %bx
//	  testb $1,%bl
//	  jnz tick
//	  movb $'#',%al
//	  call put
//	  movw %bx,%cx
//	  movw $4,%bp
//	digit:
//	  rolw $4,%cx
//	  movb %cl,%al
//	  andb $15,%al
//	  addb $'0',%al
//	  cmpb $'9',%al
//	  jbe show
//	  addb $39,%al
//	show:
//	  call put
//	  decw %bp
//	  jnz digit
//	  movb $13,%al
//	  call put
//	  movb $10,%al
//	  call put
//	  jmp tick
//	put:
//	  pushw %dx
//	  movb %al,%ah
//	  movw $0x3fd,%dx
//	wait:
//	  inb %dx,%al
//	  testb $0x20,%al
//	  jz wait
//	  movb %ah,%al
//	  movw $0x3f8,%dx
//	  outb %al,%dx
//	  popw %dx
//	  ret
var sectorProgram = []byte{
	0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x31, 0xdb,
	0xea, 0x11, 0x7c, 0x00, 0x00, 0xfb, 0x80, 0x3e, 0xff, 0x7c, 0x00, 0x74,
	0x07, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xbe, 0x00, 0x7d, 0xac,
	0x84, 0xc0, 0x74, 0x05, 0xe8, 0x55, 0x00, 0xeb, 0xf6, 0xf4, 0xba, 0x00,
	0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0x07, 0xba, 0x04, 0x06, 0xb8, 0x00,
	0x20, 0xef, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0x09, 0xba, 0xf8,
	0x03, 0xec, 0xe8, 0x33, 0x00, 0xeb, 0xef, 0x43, 0xf6, 0xc3, 0x01, 0x75,
	0xd8, 0xb0, 0x23, 0xe8, 0x26, 0x00, 0x89, 0xd9, 0xbd, 0x04, 0x00, 0xc1,
	0xc1, 0x04, 0x88, 0xc8, 0x24, 0x0f, 0x04, 0x30, 0x3c, 0x39, 0x76, 0x02,
	0x04, 0x27, 0xe8, 0x0f, 0x00, 0x4d, 0x75, 0xeb, 0xb0, 0x0d, 0xe8, 0x07,
	0x00, 0xb0, 0x0a, 0xe8, 0x02, 0x00, 0xeb, 0xad, 0x52, 0x88, 0xc4, 0xba,
	0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x88, 0xe0, 0xba, 0xf8, 0x03,
	0xee, 0x5a, 0xc3,
}
