package iso9660

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	infoOffset   = 8  // where isolinux keeps the boot information table
	infoEnd      = 64 // and where the bytes under its checksum begin
	maxBootImage = 64 << 20

	hybridCode = 432 // bytes of boot sector code

	// The geometry of a hybrid image, whose partitions are whole cylinders: old
	// firmware takes it from where they end. It is isohybrid's with -h 16, not
	// its 64 heads: a cylinder is 256 KiB, so there is less to pad.
	hybridHeads = 16
	hybridTrack = 32 // sectors of 512 bytes
	hybridUnit  = hybridHeads * hybridTrack * 512 / SectorSize

	efiSystem = 0xef // type of a partition
)

// infoTable is the boot information table of an image placed at extent: the
// sector of the primary descriptor, its own sector, length and checksum, and
// reserved zeros.
func infoTable(n *node) ([]byte, error) {
	if n.file.Size < infoEnd || n.file.Size > maxBootImage {
		return nil, fmt.Errorf("boot image %q of %d bytes cannot take a boot information table", n.file.Path, n.file.Size)
	}
	r, err := n.file.Open()
	if err != nil {
		return nil, fmt.Errorf("boot image %q: %w", n.file.Path, err)
	}
	defer r.Close()
	image := make([]byte, (n.file.Size+3)/4*4)
	if _, err := io.ReadFull(r, image[:n.file.Size]); err != nil {
		return nil, fmt.Errorf("boot image %q: %w", n.file.Path, err)
	}
	var sum uint32
	for at := infoEnd; at < len(image); at += 4 {
		sum += binary.LittleEndian.Uint32(image[at:])
	}
	table := make([]byte, 0, infoEnd-infoOffset)
	for _, v := range []uint32{primarySector, n.extent, uint32(n.file.Size), sum} {
		table = binary.LittleEndian.AppendUint32(table, v)
	}
	return table[:cap(table)], nil
}

// bootCatalog is the El Torito catalogue: a validation entry, the default entry
// and a section for each further one.
func bootCatalog(boot []BootImage, nodes []*node) []byte {
	b := make([]byte, SectorSize)
	b[0], b[1] = 1, byte(boot[0].Platform)
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum)
	entry := func(at int, img BootImage, n *node) {
		b[at] = 0x88 // bootable
		binary.LittleEndian.PutUint16(b[at+6:], loadSectors(img, n))
		binary.LittleEndian.PutUint32(b[at+8:], n.extent)
	}
	entry(32, boot[0], nodes[0])
	at := 64
	for i := 1; i < len(boot); i++ {
		b[at] = 0x90 // a section header, more follow
		if i == len(boot)-1 {
			b[at] = 0x91
		}
		b[at+1] = byte(boot[i].Platform)
		binary.LittleEndian.PutUint16(b[at+2:], 1)
		entry(at+32, boot[i], nodes[i])
		at += 64
	}
	return b
}

func loadSectors(img BootImage, n *node) uint16 {
	switch {
	case img.Sectors != 0:
		return img.Sectors
	case img.Platform == BIOS:
		return 4
	}
	if count := (n.file.Size + 511) / 512; count <= 0xffff {
		return uint16(count)
	}
	return 0 // UEFI 2.10, 13.3.2.1: to the end of the medium
}

// bootRecord is the descriptor that points to the catalogue.
func bootRecord(catalog uint32) []byte {
	b := make([]byte, SectorSize)
	copy(b, "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(b[71:], catalog)
	return b
}

var errHybrid = errors.New("hybrid boot sector code must come with a boot image for BIOS, the first, and have at most 432 bytes")

// hybrid says that the image is a disk with partitions too.
func (p *plan) hybrid() bool { return p.v.HybridMBR != nil || p.efi() != nil }

// efi is the image that EFI firmware starts, nil for none.
func (p *plan) efi() *node {
	for i, img := range p.v.Boot {
		if img.Platform == EFI {
			return p.boot[i]
		}
	}
	return nil
}

// hybridSector is the boot sector of the image as a disk: isohdpfx, told where
// the boot image is, and the partitions that isohybrid makes: one of the image
// and, where there is one, one of the EFI image.
//
// Differs: isohybrid's first partition spans the second. Firmware must refuse
// partitions that overlap (UEFI 2.10, 5.2.1), and a first one of type 0x00, as
// some make it for that reason, is free space to partitioners. Here the first
// ends where the second begins, which ends with the image.
func (p *plan) hybridSector() []byte {
	b := make([]byte, 512)
	const hiddenNTFS, active, blocks = 0x17, 0x80, SectorSize / 512
	copy(b, p.v.HybridMBR)
	end, entry := p.sectors, b[446:]
	efi := p.efi()
	if efi != nil {
		end = efi.extent
	}
	if p.v.HybridMBR != nil {
		binary.LittleEndian.PutUint64(b[hybridCode:], uint64(p.boot[0].extent)*blocks)
		partition(entry, active, hiddenNTFS, 0, end*blocks)
		entry = entry[16:]
	}
	if efi != nil {
		partition(entry, 0, efiSystem, efi.extent*blocks, (p.sectors-efi.extent)*blocks)
	}
	binary.LittleEndian.PutUint32(b[440:], crc32.ChecksumIEEE(fmt.Appendf(nil, "%s\x00%d\x00%d", p.v.Label, p.v.Time.Unix(), p.sectors)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func partition(b []byte, flags, kind byte, start, count uint32) {
	b[0], b[4] = flags, kind
	chs(b[1:], start)
	chs(b[5:], start+count-1)
	binary.LittleEndian.PutUint32(b[8:], start)
	binary.LittleEndian.PutUint32(b[12:], count)
}

// chs writes a block's address in the old geometry, or the highest one there is.
func chs(b []byte, block uint32) {
	cylinder, head, sector := block/(hybridHeads*hybridTrack), block/hybridTrack%hybridHeads, block%hybridTrack+1
	if cylinder > 1023 {
		cylinder, head, sector = 1023, hybridHeads-1, hybridTrack
	}
	b[0], b[1], b[2] = byte(head), byte(sector|cylinder>>8<<6), byte(cylinder)
}
