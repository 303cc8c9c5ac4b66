package machine

import (
	"cmp"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/fat"
	"github.com/micavm/mica/internal/iso9660"
)

// checkArch refuses a boot image for machines of another architecture: nothing
// would come of it but a firmware's prompt. Of disk images nothing is known
// without reading each format; one that does not start 'mica why' tells.
func checkArch(s Spec) error {
	if s.Image.Format != "" {
		return nil
	}
	arch := cmp.Or(s.Arch, X86_64)
	are := isoArchs(s.Image.Path)
	if len(are) == 0 || slices.Contains(are, arch) {
		return nil
	}
	err := fail.New(fail.Usage, "boot image %s is for machines of %s, and this one is of %s", s.Image.Path, are[0], arch)
	if are[0] == ARM64 {
		return err.Hint("pass --arch aarch64, or use an image for x86_64")
	}
	return err.Hint("leave out --arch, or use an image for %s", arch)
}

// loaderArchs is where UEFI firmware looks for a boot loader (UEFI 2.10, section
// 3.5.1.1), and on machines of which architecture.
var loaderArchs = map[string]string{"EFI/BOOT/BOOTX64.EFI": X86_64, "EFI/BOOT/BOOTAA64.EFI": ARM64} //nolint:gochecknoglobals // a constant table

// isoArchs returns the architectures that an ISO image has a boot loader for;
// none where it cannot be told. A boot entry for a BIOS is for x86_64. The
// loaders of UEFI are in the file system that its boot entry names, and most
// images have them in their own tree, too.
func isoArchs(file string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	image, err := iso9660.Open(f, info.Size(), iso9660.Auto)
	if err != nil {
		return nil
	}
	var archs []string
	for _, b := range image.Boot {
		if b.Platform == iso9660.BIOS {
			archs = append(archs, X86_64)
		}
	}
	for _, b := range image.Boot {
		if b.Platform != iso9660.EFI {
			continue
		}
		names, _ := fs.Glob(image, "[Ee][Ff][Ii]/[Bb][Oo][Oo][Tt]/*") // the pattern is well formed
		if !slices.ContainsFunc(names, isLoader) {
			at := int64(b.Sector) * iso9660.SectorSize
			volume, err := fat.Read(io.NewSectionReader(f, at, info.Size()-at), info.Size()-at)
			if err != nil {
				return nil // firmware may know what it is
			}
			for _, inside := range volume.Files {
				names = append(names, inside.Path)
			}
		}
		for _, name := range names {
			if isLoader(name) {
				archs = append(archs, loaderArchs[strings.ToUpper(name)])
			}
		}
	}
	return archs
}

func isLoader(name string) bool { return loaderArchs[strings.ToUpper(name)] != "" }
