// Package build makes boot images: Debian's kernel, a choice of its modules, busybox,
// e2fsprogs with their libraries and the guest binary become an initramfs; with
// isolinux and systemd-boot they become a boot tree; the tree is written in a
// format.
//
// It installs nothing, needs no root and no loop devices, runs no foreign code,
// and asks apt only for what its cache does not have. Equal inputs give equal
// bytes, in whatever folder and whenever it runs: every time in the image is
// SOURCE_DATE_EPOCH, or a fixed one.
//
// The kernel finds its modules by name and release, so both come from one
// package. Libraries are found by following DT_NEEDED through the packages that
// e2fsprogs depends on.
package build
