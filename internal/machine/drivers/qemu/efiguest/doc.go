// Package efiguest is the smallest UEFI guest there is: one application of some
// four hundred bytes for each architecture, on a disk or a CD. Tests only.
//
// It counts its boots in a variable of the firmware, so that a test can tell
// one variable store from another, and then counts on the serial port as the
// guest of package bootsector does.
//
// The application's format is that of Microsoft's PE Format (PE32+).
package efiguest
