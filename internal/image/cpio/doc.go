// Package cpio writes archives in the "newc" format, the one the Linux kernel
// unpacks an initramfs from (Documentation/driver-api/early-userspace/buffer-format.rst).
//
// The archive depends on nothing but its entries: they are sorted by path, inode
// numbers count from one, every time is the one given, everything belongs to
// root, and parents that are not listed are made. Hard links are left out.
package cpio
