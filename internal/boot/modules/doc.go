// Package modules loads kernel modules from an initramfs without modprobe: it
// resolves names and hardware aliases through depmod's modules.dep,
// modules.alias and modules.softdep, and hands each file to the kernel.
//
// The kernel decompresses modules itself where it was built to; elsewhere the
// package does it for gzip and xz, and refuses zstd by name: Debian's kernels with
// compressed modules unpack them, and the decoder would cost the image 0.2 MB. Blacklists and options in /etc/modprobe.d are
// not read: a boot image has none.
//
// The files come from the image's own module tree, which depmod wrote. They are
// parsed defensively all the same, since a truncated initramfs must give an
// error and not a panic of PID 1.
package modules
