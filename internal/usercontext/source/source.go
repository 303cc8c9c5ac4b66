package source

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"time"
)

// Limits of what is read.
const (
	MaxUserData = 1 << 20
	maxMeta     = 256 << 10
	maxPickup   = 64 << 20
)

// Device is a block device that may carry a context, as the boot found it.
type Device struct {
	Name  string // the kernel's name, "sr0"
	Path  string // device file
	Type  string // file system: "iso9660", "vfat", "udf", "ext4", …; empty if none was recognised
	Label string
	Size  int64 // bytes

	Floppy bool // a floppy drive, whose raw sectors may be the user data
	Boot   bool // the boot partition: may carry extra context
}

// Mounter opens the file system of a device, read-only.
type Mounter interface {
	// Mount returns the files of the device and how to let go of it.
	Mount(ctx context.Context, d Device) (files fs.FS, done func() error, err error)
	// ReadRaw reads from the device itself, at most limit bytes from its start.
	ReadRaw(ctx context.Context, d Device, limit int) ([]byte, error)
}

// Env is what a search may look at. The zero value of each field switches the
// sources off that need it.
type Env struct {
	Devices    []Device
	Mounter    Mounter
	HTTP       *http.Client // nil keeps the search off the network; see NewClient
	DMI        DMI
	Cmdline    string     // the kernel command line
	DHCPServer netip.Addr // the server that gave the lease
	FWCfg      string     // directory of QEMU's firmware configuration files, /sys/firmware/qemu_fw_cfg/by_name
	GuestInfo  GuestInfo  // VMware's channel; nil if there is none
	Platform   string     // forces the platform instead of asking DMI (kernel word cvm_platform=)

	Sleep func(ctx context.Context, d time.Duration) error // nil waits for real
	Log   *slog.Logger
}

// GuestInfo reads a variable of the VMware configuration ("guestinfo.userdata").
// It is asked only on that platform.
type GuestInfo interface {
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
}

// Meta is what a platform says about the machine besides the user data.
type Meta struct {
	InstanceID string
	Hostname   string
	PublicKeys []string // lines of an authorized_keys file

	// Values are others that plugins of amiconfig ask for, by the names of EC2's
	// tree: ami-launch-index, public-ipv4, block-device-mapping/ephemeral0 …
	Values map[string]string

	Shares []Share // folders of the host, in the order of the platform
}

func (m Meta) empty() bool { return m.InstanceID == "" && m.Hostname == "" && len(m.PublicKeys) == 0 }

// Found is the context of this machine.
type Found struct {
	Source   string // "ConfigDrive", "EC2", …; empty if no source answered
	UserData []byte // as it was delivered: perhaps compressed
	Present  bool   // the source has user data, perhaps empty; false: it has metadata only
	Meta     Meta
	Origin   string    // device or URL
	Tried    []Attempt // every source that was asked, in order
}

// Attempt is what became of one source.
type Attempt struct {
	Source string
	Result string // "found", "metadata only", "nothing", "skipped: …", or the error
}

// Find looks at every source in the order of the list and returns the first
// that has user data; if none has, the first that has metadata; else a Found
// without source. A source that fails is recorded and passed over: the error is
// only for a cancelled ctx.
//
// Media and firmware come first, one after the other; then the network sources
// that the platform may have, all at once.
func Find(ctx context.Context, env Env) (Found, error) {
	return newSearch(env).find(ctx, env.HTTP != nil)
}

// FindLocal is Find without the sources that need the network.
func FindLocal(ctx context.Context, env Env) (Found, error) {
	return newSearch(env).find(ctx, false)
}
