// Package qemuimg reads disk images of any format with qemu-img, QEMU's own
// program for them.
//
// Whether an image is complete in itself, so that reading it opens no other
// file of this computer, is for machine.CheckDiskImage to say before: nothing
// here looks at that.
//
// Errors are of class fail.HostLacks where the program is missing, and
// fail.Unverified where the image is damaged.
package qemuimg
