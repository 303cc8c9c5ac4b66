package params

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Param is one creation parameter.
type Param struct {
	Name    string // as flag and as key
	Value   string // what it takes, for people: SIZE, PATH; empty for yes or no
	Usage   string
	Default string
	List    bool // several values
	FileKey bool // a key of files only: the command line has an argument for it

	set func(c *Choice, values []string, dir string) error
}

// Variable is the name of the environment variable that sets it.
func (p Param) Variable() string {
	return "MICA_CREATE_" + strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))
}

// Choice is what was chosen.
type Choice struct {
	Spec                  machine.Spec // without ID, Dir, Context, and with the image's Path as the user gave it
	Name                  string
	Context               string // where the context is: a path, - or empty
	ImageFormat, Checksum string // of the image, as the user gave them

	Port   string            // of the guest's SSH: a number, auto or none
	Origin map[string]string // parameter -> where its value came from
}

// All is every parameter, in the order of help.
func All() []Param {
	return []Param{
		{Name: "name", Value: "NAME", Usage: "name of the machine", FileKey: true, set: text(func(c *Choice, v string) { c.Name = v })},
		{Name: "context", Value: "PATH", Usage: "the context", FileKey: true, set: func(c *Choice, v []string, dir string) error {
			c.Context = within(dir, v[0])
			return nil
		}},
		{Name: "image", Value: "PATH|URL", Usage: "boot image, an ISO or disk image; default: MICA_IMAGE, or the newest in mica's images", set: func(c *Choice, v []string, dir string) error {
			if c.Spec.Image.Path = v[0]; !machine.IsURL(v[0]) {
				c.Spec.Image.Path = within(dir, v[0])
			}
			return nil
		}},
		{Name: "image-format", Value: "FORMAT", Usage: "iso, raw, qcow2, vmdk, vdi or vpc; found out unless it is raw", set: text(func(c *Choice, v string) { c.ImageFormat = v })},
		{Name: "checksum", Value: "sha256:HEX", Usage: "what the image must be; needed for one at an http URL", set: text(func(c *Choice, v string) { c.Checksum = v })},
		{Name: "memory", Value: "SIZE", Usage: "memory in MiB, or with M or G", Default: "2048", set: size(func(c *Choice, mib int64) { c.Spec.MemoryMiB = int(mib) })},
		{Name: "cpus", Value: "N", Usage: "processors", Default: "1", set: integer(func(c *Choice, n int) { c.Spec.CPUs = n })},
		{Name: "disk", Value: "SIZE", Usage: "size of the data disk; it takes space as it fills", Default: "20G", set: size(func(c *Choice, mib int64) { c.Spec.DiskMiB = mib })},
		{Name: "add-disk", Value: "SIZE|PATH", Usage: "another disk: an empty one, or a disk image to be used in place", List: true, set: setDisks},
		{Name: "firmware", Value: "KIND", Usage: "what boots the machine: bios or uefi", Default: machine.BIOS, set: text(func(c *Choice, v string) {
			if c.Spec.Firmware = v; v == machine.BIOS {
				c.Spec.Firmware = ""
			}
		})},
		{Name: "arch", Value: "ARCH", Usage: "the machine's architecture: x86_64, or aarch64 with uefi", Default: machine.X86_64, set: text(func(c *Choice, v string) {
			if c.Spec.Arch = v; v == machine.X86_64 {
				c.Spec.Arch = ""
			}
		})},
		{Name: "port", Value: "PORT", Usage: "port of this computer that leads to the machine's SSH, auto or none", Default: "auto", set: setPort},
		{Name: "forward", Value: "HOST:GUEST", Usage: "another port to forward; HOST may be auto", List: true, set: setForwards},
		{Name: "network", Value: "NETWORK", Usage: "nat, or a network that the driver knows", Default: machine.NAT, set: text(func(c *Choice, v string) { c.Spec.Network = v })},
		{Name: "share", Value: "[NAME=]FOLDER[:ro]", Usage: "folder of this computer that the guest sees as /mnt/shared/NAME", List: true, set: setShares},
		{Name: "display", Value: "KIND", Usage: "the machine's screen: none, vnc, or gui for a window", Default: "none", set: text(func(c *Choice, v string) {
			if v != "none" {
				c.Spec.Display = v
			}
		})},
		{Name: "clipboard", Usage: "share the clipboard with this desktop", Default: "false", set: setClipboard},
		{Name: "execution-cap", Value: "PERCENT", Usage: "how much of a processor's time the machine gets at most", Default: "100", set: setCap},
		{Name: "label", Value: "LABEL", Usage: "label, for choosing several machines at once", List: true, set: func(c *Choice, v []string, _ string) error {
			c.Spec.Labels = v
			return nil
		}},
		{Name: "driver", Value: "DRIVER", Usage: "what runs the machine", set: text(func(c *Choice, v string) { c.Spec.Driver = v })},
		{Name: "accel", Value: "ACCEL", Usage: "acceleration: auto, or one that the driver knows, such as kvm or tcg", Default: "auto", set: text(func(c *Choice, v string) { c.Spec.Accel = v })},
		{Name: "medium", Value: "LAYOUT", Usage: "how the context is handed over", Default: "config-2", set: text(func(c *Choice, v string) { c.Spec.Medium = v })},
		{Name: "option", Value: "KEY=VALUE", Usage: "an option of the driver; 'mica doctor' lists them", List: true, set: setOptions},
	}
}

// Named returns the parameter of that name.
func Named(name string) (Param, bool) {
	for _, p := range All() {
		if p.Name == name {
			return p, true
		}
	}
	return Param{}, false
}

func text(put func(*Choice, string)) func(*Choice, []string, string) error {
	return func(c *Choice, v []string, _ string) error {
		put(c, v[0])
		return nil
	}
}

func size(put func(*Choice, int64)) func(*Choice, []string, string) error {
	return func(c *Choice, v []string, _ string) error {
		mib, err := machine.ParseMiB(v[0])
		if err == nil {
			put(c, mib)
		}
		return err
	}
}

func integer(put func(*Choice, int)) func(*Choice, []string, string) error {
	return func(c *Choice, v []string, _ string) error {
		n, err := strconv.Atoi(v[0])
		if err != nil {
			return fail.New(fail.Usage, "%q is no number", v[0])
		}
		put(c, n)
		return nil
	}
}

func setPort(c *Choice, v []string, _ string) error {
	c.Port = v[0]
	if c.Port == "none" {
		return nil
	}
	f, err := machine.ParseForward(c.Port + ":22")
	if err != nil {
		return fail.New(fail.Usage, "cannot read port %q", c.Port).Hint("write a number, auto or none")
	}
	c.Spec.Forwards = append([]machine.Forward{f}, c.Spec.Forwards...)
	return nil
}

func setForwards(c *Choice, v []string, _ string) error {
	for _, one := range v {
		f, err := machine.ParseForward(one)
		if err != nil {
			return err
		}
		c.Spec.Forwards = append(c.Spec.Forwards, f)
	}
	return nil
}

func setClipboard(c *Choice, v []string, _ string) error {
	yes, err := strconv.ParseBool(v[0])
	if err != nil {
		return fail.New(fail.Usage, "%q is neither true nor false", v[0])
	}
	c.Spec.Clipboard = yes
	return nil
}

func setCap(c *Choice, v []string, _ string) error {
	n, err := strconv.Atoi(strings.TrimSuffix(v[0], "%"))
	if err != nil || n < 1 || n > 100 {
		return fail.New(fail.Usage, "%q is no percentage", v[0]).Hint("use 1 to 100")
	}
	if n < 100 {
		c.Spec.ExecutionCap = n
	}
	return nil
}

func setOptions(c *Choice, v []string, _ string) error {
	c.Spec.Options = map[string]string{}
	for _, one := range v {
		key, value, ok := strings.Cut(one, "=")
		if !ok || key == "" {
			return fail.New(fail.Usage, "cannot read option %q", one).Hint("write KEY=VALUE")
		}
		if _, twice := c.Spec.Options[key]; twice {
			return fail.New(fail.Usage, "option %q is given twice", key)
		}
		c.Spec.Options[key] = value
	}
	return nil
}

func setDisks(c *Choice, v []string, dir string) error {
	for _, one := range v {
		disk, err := ParseDisk(one, dir)
		if err != nil {
			return err
		}
		c.Spec.Disks = append(c.Spec.Disks, disk)
	}
	return nil
}

// ParseDisk reads SIZE or PATH. What reads as a size is one: a file of that
// name is ./20G. The file must exist; its path becomes absolute and loses its
// symbolic links, which could lead elsewhere by the next start.
func ParseDisk(text, dir string) (machine.Disk, error) {
	if mib, err := machine.ParseMiB(text); err == nil {
		return machine.Disk{MiB: mib}, nil
	}
	if text == "" {
		return machine.Disk{}, fail.New(fail.Usage, "a disk needs a size or a path").Hint("write SIZE or PATH, for instance 20G or ./data.qcow2")
	}
	full, err := filepath.Abs(within(dir, text))
	if err == nil {
		full, err = filepath.EvalSymlinks(full)
	}
	if err != nil {
		return machine.Disk{}, fail.New(fail.Usage, "disk %q is neither a size nor a file: %w", text, err).
			Hint("write SIZE or PATH, for instance 20G or ./data.qcow2")
	}
	return machine.Disk{Path: full}, nil
}

func setShares(c *Choice, v []string, dir string) error {
	for _, one := range v {
		share, err := ParseShare(one, dir)
		if err != nil {
			return err
		}
		c.Spec.Shares = append(c.Spec.Shares, share)
	}
	return nil
}

// ParseShare reads [NAME=]FOLDER[:ro]. The folder must exist; its path becomes
// absolute and loses its symbolic links. Without a name it goes by its own.
func ParseShare(text, dir string) (machine.Share, error) {
	var s machine.Share
	path, readOnly := strings.CutSuffix(text, ":ro")
	s.ReadOnly = readOnly
	if name, rest, named := strings.Cut(path, "="); named && !strings.Contains(name, "/") {
		s.Name, path = name, rest
	}
	if path == "" {
		return s, fail.New(fail.Usage, "cannot read share %q", text).Hint("write [NAME=]FOLDER[:ro], for instance data=/srv/data:ro")
	}
	full, err := filepath.Abs(within(dir, path))
	if err == nil {
		full, err = filepath.EvalSymlinks(full)
	}
	if err != nil {
		return s, fail.New(fail.Usage, "sharing %q: %w", path, err)
	}
	if info, err := os.Stat(full); err != nil || !info.IsDir() {
		return s, fail.New(fail.Usage, "sharing %q: it is no folder", path)
	}
	s.Path = full
	if s.Name == "" {
		s.Name = filepath.Base(full)
	}
	return s, nil
}

// within makes a path in a file relative to the file's folder.
func within(dir, path string) string {
	if dir == "" || path == "-" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// given is the values of one parameter in one place.
type given struct {
	values []string
	origin string
	dir    string // of the file
}

const byDefault = "default"

// Sources is where parameters come from.
type Sources struct {
	Flags  map[string][]string      // those on the command line, by name
	Getenv func(name string) string // nil finds nothing set
	File   *File                    // nil is none
}

// Resolve takes each parameter from the first source that has it. The error
// says which source it was.
func (s Sources) Resolve() (Choice, error) {
	c := Choice{Origin: map[string]string{}}
	for _, p := range All() {
		g, ok := s.find(p)
		if !ok {
			continue
		}
		if err := p.set(&c, g.values, g.dir); err != nil {
			return c, fail.New(fail.ClassOf(err), "%s: %w", g.origin, err)
		}
		c.Origin[p.Name] = g.origin
	}
	if c.Spec.Arch == machine.ARM64 && c.Origin["firmware"] == byDefault { // it has no other
		c.Spec.Firmware = machine.UEFI
	}
	return c, nil
}

func (s Sources) find(p Param) (given, bool) {
	if values, ok := s.Flags[p.Name]; ok {
		if p.FileKey {
			return given{values: values, origin: "the command line"}, true
		}
		return given{values: values, origin: "--" + p.Name}, true
	}
	if s.Getenv != nil && !p.FileKey {
		if value := s.Getenv(p.Variable()); value != "" {
			values := []string{value}
			if p.List {
				values = strings.Split(value, ",")
			}
			return given{values: values, origin: p.Variable()}, true
		}
	}
	if s.File != nil {
		if e, ok := s.File.entries[p.Name]; ok {
			return given{values: e.values, origin: fmt.Sprintf("%s:%d: %s", s.File.name, e.line, p.Name), dir: s.File.dir}, true
		}
	}
	if p.Default != "" {
		return given{values: []string{p.Default}, origin: byDefault}, true
	}
	return given{}, false
}
