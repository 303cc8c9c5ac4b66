package machine

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// Limits of a Spec.
const (
	maxName         = 64
	minMemoryMiB    = 64
	minDiskMiB      = 64
	maxDiskMiB      = 64 << 20
	maxCPUs         = 255
	guestSSH        = 22
	maxContext      = 4 << 20 // what a config drive carries without anyone noticing
	portableContext = 16384   // what every cloud takes
	maxDisks        = 16      // beside the data disk: every platform's bus has that many places
	mebi            = 1 << 20
)

// Spec is a machine as its user wants it. It does not change after create,
// the automatic host ports excepted.
type Spec struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"` // a UUID, made by create
	Driver    string    `json:"driver"`
	MemoryMiB int       `json:"memory_mib"`
	CPUs      int       `json:"cpus"`
	DiskMiB   int64     `json:"disk_mib"`
	Image     Image     `json:"image"`
	Forwards  []Forward `json:"forwards"`
	Accel     string    `json:"accel,omitempty"` // auto or empty, or one the driver knows

	Firmware string `json:"firmware,omitempty"` // empty is bios; else uefi
	Arch     string `json:"arch,omitempty"`     // of the guest: empty is x86_64; else aarch64, whose Firmware is uefi
	Disks    []Disk `json:"disks,omitempty"`    // more disks beside the data disk

	Network      string            `json:"network,omitempty"`       // empty is nat; else a network the driver knows
	Display      string            `json:"display,omitempty"`       // empty is none; vnc, or gui for a window of this desktop
	Shares       []Share           `json:"shares,omitempty"`        // folders of this computer the guest sees
	ExecutionCap int               `json:"execution_cap,omitempty"` // percent of a processor's time; 0 is all
	Clipboard    bool              `json:"clipboard,omitempty"`     // shared with the desktop, drag and drop too
	Options      map[string]string `json:"options,omitempty"`       // the driver's own; it refuses those it does not know
	Labels       []string          `json:"labels,omitempty"`        // for choosing several machines
	Medium       string            `json:"medium,omitempty"`        // layout of the CD with the context, as package delivery names it; empty is its config drive

	// What is kept beside the record, not in it.
	Dir        string   `json:"-"` // the machine's folder, absolute; the driver may keep files there
	Context    []byte   `json:"-"` // handed to the guest; only set for Create, Clone and a Change of Shares
	PublicKeys []string `json:"-"` // lines for authorized_keys; set where Context is
}

// Disk is one more disk of a machine. It has either a size or a path. The guest
// sees the disks in the order of Spec.Disks, after the data disk.
type Disk struct {
	MiB    int64  `json:"mib,omitempty"`    // size of an empty one that the driver makes and Destroy removes
	Path   string `json:"path,omitempty"`   // or a disk image of the user's, absolute, used in place: never copied, changed in size or deleted
	Format string `json:"format,omitempty"` // of Path: raw, qcow2, vmdk, vdi, vpc; found out by create

	// ReadOnly is set by create for a slice of a repository at Path: the guest
	// reads it only, and any number of machines may do so at a time.
	ReadOnly bool `json:"read_only,omitempty"`
}

// String returns the disk as the --add-disk flag takes it.
func (d Disk) String() string {
	if d.Path != "" {
		return d.Path
	}
	return strconv.FormatInt(d.MiB, 10) + "M"
}

// Share is a folder of this computer that the guest mounts at
// /mnt/shared/<Name>.
type Share struct {
	Name     string `json:"name"`
	Path     string `json:"path"` // absolute, without symbolic links
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Image is the boot image a machine was created with.
type Image struct {
	// Format is empty for an ISO image, which the machine boots beside an empty
	// data disk. Else it names the format of a disk image (raw, qcow2, vmdk,
	// vdi, vpc), of which the machine gets and boots its own copy.
	Format string `json:"format,omitempty"`

	Path   string `json:"path"`   // where it came from
	SHA256 string `json:"sha256"` // of its content, in hex
	Size   int64  `json:"size"`

	// Verified is set by whoever chose the image and knows its digest is right.
	Verified bool `json:"verified"`
}

// Forward lets a port of this computer, on 127.0.0.1, lead to one of the guest.
type Forward struct {
	Host  int  `json:"host"`
	Guest int  `json:"guest"`
	Auto  bool `json:"auto,omitempty"` // Host was chosen for the user, and may be chosen again
}

// String returns the forward as the --forward flag takes it.
func (f Forward) String() string { return fmt.Sprintf("%d:%d", f.Host, f.Guest) }

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// CheckName says whether a machine may have that name: it becomes a folder, a
// host name's first part and an argument of commands.
func CheckName(name string) error {
	switch {
	case name == "":
		return fail.New(fail.Usage, "a machine needs a name")
	case len(name) > maxName:
		return fail.New(fail.Usage, "name %q has %d characters", name, len(name)).Hint("use at most %d", maxName)
	case !namePattern.MatchString(name):
		return fail.New(fail.Usage, "%q is no name for a machine", name).
			Hint("start with a letter or digit, go on with letters, digits, '-', '_' and '.'")
	}
	return nil
}

// Hostname is the name the guest is told: the machine's, as host names allow.
func (s Spec) Hostname() string {
	return strings.Trim(strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(s.Name)), "-")
}

// SSHPort returns the port of this computer that leads to the guest's SSH, or 0.
func (s Spec) SSHPort() int {
	for _, f := range s.Forwards {
		if f.Guest == guestSSH {
			return f.Host
		}
	}
	return 0
}

// Path returns the absolute path of a file in the machine's folder.
func (s Spec) Path(name string) string { return filepath.Join(s.Dir, name) }

// ImagePath is where the boot image of the machine is.
func (s Spec) ImagePath() string {
	if s.Image.Format != "" {
		return s.Path("image." + s.Image.Format)
	}
	return s.Path("image.iso")
}

// Validate checks everything a user can set.
func (s Spec) Validate() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	switch {
	case s.MemoryMiB < minMemoryMiB:
		return fail.New(fail.Usage, "%d MiB of memory are too few", s.MemoryMiB).Hint("use at least %d", minMemoryMiB)
	case s.CPUs < 1 || s.CPUs > maxCPUs:
		return fail.New(fail.Usage, "a machine cannot have %d processors", s.CPUs).Hint("use 1 to %d", maxCPUs)
	case s.DiskMiB < minDiskMiB || s.DiskMiB > maxDiskMiB:
		return fail.New(fail.Usage, "a disk cannot have %d MiB", s.DiskMiB).Hint("use %d MiB to 64 TiB, for instance --disk 20G", minDiskMiB)
	}
	host := map[int]bool{}
	for _, f := range s.Forwards {
		if f.Guest < 1 || f.Guest > 65535 || f.Host < 0 || f.Host > 65535 || f.Host == 0 && !f.Auto {
			return fail.New(fail.Usage, "cannot forward %s: ports go from 1 to 65535", f)
		}
		if f.Host != 0 && host[f.Host] {
			return fail.New(fail.Usage, "port %d of this computer is forwarded twice", f.Host)
		}
		host[f.Host] = true
	}
	return s.validateRest()
}

// word is what labels, names of shares and keys of options are made of.
var word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._=+@-]*$`)

// validateRest checks what plain machines do not have.
func (s Spec) validateRest() error {
	if s.ExecutionCap < 0 || s.ExecutionCap > 100 {
		return fail.New(fail.Usage, "%d%% is no execution cap", s.ExecutionCap).Hint("use 1 to 100")
	}
	switch s.Display {
	case "", DisplayVNC, DisplayGUI:
	default:
		return fail.New(fail.Usage, "unknown display %q", s.Display).Hint("use none, vnc or gui")
	}
	if err := s.validateHardware(); err != nil {
		return err
	}
	for _, label := range s.Labels {
		if err := CheckLabel(label); err != nil {
			return err
		}
	}
	for key := range s.Options {
		if !word.MatchString(key) {
			return fail.New(fail.Usage, "%q cannot be the name of an option", key)
		}
	}
	seen := map[string]bool{}
	for _, share := range s.Shares {
		switch {
		case !word.MatchString(share.Name) || len(share.Name) > maxName:
			return fail.New(fail.Usage, "%q is no name for a shared folder", share.Name).
				Hint("write NAME=FOLDER, with a name of letters, digits, '-', '_' and '.'")
		case seen[share.Name]:
			return fail.New(fail.Usage, "two shared folders are named %q", share.Name).Hint("write NAME=FOLDER")
		case !filepath.IsAbs(share.Path):
			return fail.New(fail.Usage, "shared folder %q is not an absolute path", share.Path)
		}
		seen[share.Name] = true
	}
	return nil
}

// validateHardware checks firmware, architecture and the disks beside the first.
func (s Spec) validateHardware() error {
	switch {
	case s.Firmware != "" && s.Firmware != UEFI:
		return fail.New(fail.Usage, "unknown firmware %q", s.Firmware).Hint("use bios or uefi")
	case s.Arch != "" && s.Arch != ARM64:
		return fail.New(fail.Usage, "unknown architecture %q", s.Arch).Hint("use x86_64 or aarch64")
	case s.Arch == ARM64 && s.Firmware != UEFI:
		return fail.New(fail.Usage, "a machine of %s has no BIOS", ARM64).Hint("use --firmware uefi")
	case len(s.Disks) > maxDisks:
		return fail.New(fail.Usage, "%d disks are too many", len(s.Disks)).Hint("add at most %d", maxDisks)
	}
	paths := map[string]bool{}
	for _, d := range s.Disks {
		switch {
		case (d.MiB != 0) == (d.Path != ""):
			return fail.New(fail.Usage, "a disk has either a size or a path")
		case d.Path == "" && (d.MiB < 1 || d.MiB > maxDiskMiB):
			return fail.New(fail.Usage, "a disk cannot have %d MiB", d.MiB).Hint("use 1 MiB to 64 TiB, for instance --add-disk 20G")
		case d.Path != "" && !filepath.IsAbs(d.Path):
			return fail.New(fail.Usage, "disk %q is not an absolute path", d.Path)
		case d.Path != "" && paths[d.Path]:
			return fail.New(fail.Usage, "disk %s is added twice", d.Path)
		}
		paths[d.Path] = true
	}
	return nil
}

// CheckLabel says whether a machine may have that label.
func CheckLabel(label string) error {
	if !word.MatchString(label) || len(label) > maxName {
		return fail.New(fail.Usage, "%q is no label", label).
			Hint("use letters, digits, '-', '_', '.', '=', '+' and '@', at most %d, a letter or digit first", maxName)
	}
	return nil
}

// CheckContext says whether a context of that many bytes may be used.
// Contexts over 16 KiB work here, but on no public cloud.
func CheckContext(size int, allowLarge bool) error {
	switch {
	case size > maxContext:
		return fail.New(fail.Usage, "the context has %d bytes, at most %d can be delivered", size, maxContext).
			Hint("have the context fetch large files instead of carrying them")
	case size > portableContext && !allowLarge:
		return fail.New(fail.Usage, "the context has %d bytes, clouds deliver at most %d", size, portableContext).
			Hint("compress it: 'gzip -9 CONTEXT', guests unpack it by themselves").
			Hint("or shorten it, or pass --allow-large where it never goes to a cloud")
	}
	return nil
}

// ParseForward reads HOST:GUEST; HOST may be "auto" or empty for a free port.
func ParseForward(text string) (Forward, error) {
	bad := func() (Forward, error) {
		return Forward{}, fail.New(fail.Usage, "cannot read forward %q", text).Hint("write HOST:GUEST, for instance 8080:80 or auto:80")
	}
	host, guest, ok := strings.Cut(text, ":")
	if !ok {
		return bad()
	}
	var f Forward
	var err error
	if f.Guest, err = strconv.Atoi(guest); err != nil {
		return bad()
	}
	if host == "" || host == "auto" {
		f.Auto = true
		return f, nil
	}
	if f.Host, err = strconv.Atoi(host); err != nil {
		return bad()
	}
	return f, nil
}

// ParseMiB reads a size such as 2048 (MiB), 512M, 20G or 1T.
func ParseMiB(text string) (int64, error) {
	digits, factor := strings.ToUpper(strings.TrimSpace(text)), int64(1)
	for _, unit := range []struct {
		suffix string
		mib    int64
	}{{"TIB", 1 << 20}, {"GIB", 1 << 10}, {"MIB", 1}, {"T", 1 << 20}, {"G", 1 << 10}, {"M", 1}} {
		if cut, ok := strings.CutSuffix(digits, unit.suffix); ok {
			digits, factor = cut, unit.mib
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > 1<<40/factor {
		return 0, fail.New(fail.Usage, "cannot read size %q", text).Hint("write mebibytes, or a number with M, G or T: 2048, 512M, 20G")
	}
	return n * factor, nil
}
