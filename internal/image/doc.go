// Package image is the boot image as a value: the files of its boot tree, one
// kernel command line with what each platform changes in it, and the manifest
// that says what an image was made from. Package image/build makes such a value,
// package image/format writes it in a format, and Check looks at a finished
// image before anything starts it.
//
// The layout of the tree is that of cernvm-micro (iso_dir of its Makefile), so
// that documentation and habits carry over: /cernvm/vmlinuz.xz,
// /cernvm/initrd.img, /isolinux, /version and the sentinel
// /.ucernvm_boot_loader by which a boot disk is known. For UEFI firmware there is
// systemd-boot in /EFI/BOOT with its menu in /loader.
package image
