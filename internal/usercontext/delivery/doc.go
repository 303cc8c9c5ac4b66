// Package delivery hands a machine its context, on the host's side: it makes
// the media a guest looks for (config drive, NoCloud, OpenNebula's context.sh,
// vSphere's user-data.txt, Azure's environment document) as ISO 9660 or FAT
// images, and the floppy disk of CernVM-Launch, and tells which of them a given
// image is.
//
// The same context and the same metadata give the same bytes. No medium mixes
// two kinds, because boot loader, amiconfig and cloud-init would each prefer
// another one of them.
//
// Azure's own media are UDF. Mica writes ISO 9660, which cloud-init reads just as
// well; the µCernVM boot loader looked at UDF volumes only, and Mica's guest looks
// at both.
//
// File names and keys follow the consumers: cloud-init (DataSourceConfigDrive,
// DataSourceNoCloud, DataSourceOpenNebula, DataSourceAltCloud, DataSourceAzure),
// amiconfig (hepix/commands/amiconfig.sh), cernvm-micro (scripts.d/06context),
// and libcernvm (src/contextiso.cpp), whose fixed-size image is replaced by one
// with correct sizes and an identity of its own for each machine.
package delivery
