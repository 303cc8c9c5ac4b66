package image

import (
	"fmt"
	"strings"
	"time"

	"github.com/micavm/mica/internal/iso9660"
)

// Paths in the boot tree.
const (
	KernelPath    = "cernvm/vmlinuz.xz"
	InitramfsPath = "cernvm/initrd.img"
	VersionPath   = "version"
	SentinelPath  = ".ucernvm_boot_loader"
	LoaderDir     = "isolinux"
	LoaderConfig  = "isolinux/isolinux.cfg"

	EFIDir       = "EFI/BOOT" // where firmware looks on media
	EFIConfigDir = "loader"   // of systemd-boot
)

// Label is the volume label of every boot image.
const Label = "UCERNVM"

// Tree is a boot image before it has a format.
type Tree struct {
	Title   string // shown in the boot menu
	Version string // content of the version file, one line
	Time    time.Time
	Command CommandLine

	Kernel    iso9660.File // the paths are set by Files
	Initramfs iso9660.File
	Loader    []iso9660.File // of LoaderDir: isolinux.bin and its modules; none leaves BIOS out
	HybridMBR []byte         // isohdpfx.bin, may be nil
	EFI       []iso9660.File // of EFIDir: systemd-boot by the name that firmware looks for; none leaves UEFI out
}

// Files returns the whole tree as it is on the platform p.
func (t Tree) Files(p Platform) ([]iso9660.File, error) {
	kernel, initramfs := t.Kernel, t.Initramfs
	kernel.Path, initramfs.Path = KernelPath, InitramfsPath
	files := []iso9660.File{
		iso9660.Bytes(SentinelPath, 0o444, nil),
		iso9660.Bytes(VersionPath, 0o444, []byte(t.Version+"\n")),
		kernel, initramfs,
	}
	if len(t.Loader) > 0 {
		config, err := t.Command.isolinux(t.Title, p)
		if err != nil {
			return nil, fmt.Errorf("writing boot menu: %w", err)
		}
		files = append(append(files, t.Loader...), iso9660.Bytes(LoaderConfig, 0o444, config))
	}
	if len(t.EFI) > 0 {
		more, err := t.Command.systemdBoot(t.Title, p)
		if err != nil {
			return nil, fmt.Errorf("writing boot menu: %w", err)
		}
		files = append(append(files, t.EFI...), more...)
	}
	return files, nil
}

// OnSystemPartition says that UEFI firmware, or the loader it starts, reads the
// file with that path.
func OnSystemPartition(p string) bool {
	return p == KernelPath || p == InitramfsPath || strings.HasPrefix(p, EFIDir+"/") || strings.HasPrefix(p, EFIConfigDir+"/")
}
