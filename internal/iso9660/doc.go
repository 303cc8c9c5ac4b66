// Package iso9660 writes and reads ISO 9660 images: the primary volume with
// Rock Ridge names, a Joliet twin of it, El Torito boot entries (BIOS and EFI,
// with isolinux's boot information table) and the isohybrid boot sector that
// lets the same file start from a USB stick. A boot image may hold files of the
// volume, whose records then point into it.
//
// The writer streams: it plans every extent from names and sizes, then writes
// the image front to back and holds nothing of a file but one buffer. It knows
// no clock and no random numbers, so equal volumes give equal bytes.
//
// The reader is for inspection and tests. It loads the directory tree once,
// bounded in entries and bytes, refuses extents outside the image and
// directories met twice, and serves the result as an fs.FS.
//
// It follows ECMA-119 (2nd edition), SUSP 1.12 and RRIP 1.12, the Joliet
// specification of 1995, the "El Torito" specification 1.0 and, for the hybrid
// boot sector, isohdpfx and isohybrid of the Syslinux project and chapters 5.2
// and 13.3 of the UEFI specification 2.10.
//
// Left out on purpose: files of 4 GiB and above (multi-extent), directories
// deeper than eight levels (no relocation), hard links, owners other than 0,
// device nodes, multi-session volumes and UDF.
package iso9660
