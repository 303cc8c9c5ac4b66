package build

import (
	"log/slog"
	"strconv"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/run"
)

// Options are what an image is made from.
type Options struct {
	Output      string            // path of the image
	Command     image.CommandLine // repository, servers, path, tag and further words
	Keys        []string          // paths of the repository's master public keys, at least one
	Guest       string            // path of mica-guest, an executable for the image's architecture
	Kernel      string            // kernel package or metapackage; empty is Debian's standard one
	Modules     []string          // modules besides the boot set
	Compression Compression       // of the initramfs; empty is xz for x86-64 and zstd for others
	CAs         bool              // put Debian's bundle of certificate authorities in, for https servers
	Cache       string            // folder for packages
	Refresh     bool              // ask apt for the newest packages even if the cache would do
	Epoch       time.Time         // every time in the image; zero is DefaultEpoch

	Run      run.Runner
	Log      *slog.Logger  // nil discards
	Progress progress.Sink // nil discards
}

// DefaultEpoch is the time of an image when SOURCE_DATE_EPOCH does not say
// another.
var DefaultEpoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// ParseEpoch reads SOURCE_DATE_EPOCH; empty is DefaultEpoch.
func ParseEpoch(text string) (time.Time, error) {
	if text == "" {
		return DefaultEpoch, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	t := time.Unix(n, 0).UTC()
	if err != nil || t.Year() < 1980 || t.Year() > 2100 {
		return t, fail.New(fail.Usage, "SOURCE_DATE_EPOCH %q is not a number of seconds between 1980 and 2100", text)
	}
	return t, nil
}

// bootSet are the modules a machine may need until its own operating system
// runs, on every platform an image is for. Names a kernel does not have are
// passed over: they are built in, or it is another kernel.
var bootSet = []string{
	// virtio: QEMU, clouds
	"virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "virtio_console", "virtio_rng", "virtio_balloon", "virtio_mmio",
	"9p", "9pnet_virtio", "virtiofs", "qemu_fw_cfg",
	// disks and CD drives
	"ata_piix", "ata_generic", "ahci", "nvme", "sd_mod", "sr_mod", "floppy", "mptspi",
	// file systems
	"ext4", "crc32c_generic", "crc32c_intel", "isofs", "udf", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859_1",
	"fuse", "overlay", "loop",
	// network cards that hypervisors emulate
	"e1000", "e1000e", "8139cp", "8139too", "pcnet32",
	// VMware, Hyper-V, Xen, VirtualBox, Amazon, Google
	"vmxnet3", "vmw_pvscsi", "hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils", "hv_balloon", "hyperv_keyboard", "hid_hyperv",
	"xen_blkfront", "xen_netfront", "vboxguest", "vboxsf", "ena", "gve",
	// USB sticks and keyboards, mice of the desktop's session
	"xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci", "usb_storage", "uas", "usbhid", "hid_generic",
}
