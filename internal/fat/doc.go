// Package fat writes and reads small FAT file systems: those that carry a
// context to a machine without a CD drive, and the one that UEFI firmware
// starts a boot image from. FAT12 and FAT16, long names, folders, no partition
// table.
//
// It is our own because the library at hand stamps the current time and a
// random serial number; here both follow from the content, so that equal
// contents give equal bytes. The layout is that of Microsoft's "FAT: General
// Overview of On-Disk Format" 1.03. Files lie in one piece each, and Pack says
// where, so that another file system may list the same pieces.
//
// The reader loads everything, bounded by the image's size, and refuses chains
// that loop or leave the volume. It reads FAT12, FAT16 and FAT32, since media
// of other makers come in all three.
package fat
