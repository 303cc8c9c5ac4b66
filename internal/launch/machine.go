package launch

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// The bits of the key "flags".
//
// Compat: libcernvm: include/CernVM/Hypervisor.h.
const (
	flag64Bit     = 1
	flagDiskURL   = 2
	flagAdditions = 4
	flagFloppy    = 8
	flagHeadful   = 16
	flagGraphical = 32
	flagDualNIC   = 64
	flagSerialLog = 128
	flagDiskLocal = 256
	flagOVA       = 512
	flagISO       = 1024

	allFlags  = 2*flagISO - 1
	bootFlags = flagDiskURL | flagDiskLocal | flagOVA | flagISO // at most one of them
)

// The limits of the numbers in a configuration.
const (
	maxCPUs   = 255
	minMemory = 64
	maxMemory = 16 << 20
	maxDisk   = 64 << 20
	maxVRAM   = 256
	maxPort   = 65535
)

const (
	defaultDriver = "virtualbox"
	noShare       = "none"
	guestSSH      = 22
)

func (r *record) driver() string {
	if name := r.values[micaDriver]; name != "" {
		return name
	}
	return defaultDriver // the only one the original has
}

// checkNumbers says whether every number of a new machine is one, before
// anything is made.
//
// Differs: the original passes sizes to VirtualBox as they are written, and takes
// flags that are no number for 0.
func checkNumbers(v settings) (flags int64, err error) {
	limits := []struct {
		key       string
		low, high int64
	}{
		{keyCPUs, 1, maxCPUs}, {keyMemory, minMemory, maxMemory}, {keyDisk, 0, maxDisk}, {keyAPIPort, 1, maxPort},
		{keyCap, 1, 100}, {keyFlags, 0, allFlags}, {keyVRAM, 1, maxVRAM},
	}
	for _, l := range limits {
		if l.key == keyVRAM && v[keyVRAM] == "" {
			continue
		}
		n, err := v.number(l.key, l.low, l.high)
		if err != nil {
			return 0, err
		}
		if l.key == keyFlags {
			flags = n
		}
	}
	return flags, nil
}

// checkFlags says whether what the flags ask for is there.
//
// Differs: the original lets several boot media be asked for, and then boots from
// one and sets the boot order for another.
func checkFlags(v settings, flags int64) error {
	if boot := flags & bootFlags; boot&(boot-1) != 0 {
		return fail.New(fail.Usage, "Invalid value of flags: %d asks for more than one boot medium", flags).
			Hint("set at most one of 2 (disk by URL), 256 (disk by path), 512 (OVA) and 1024 (ISO image)")
	}
	switch {
	case flags&flagDiskLocal != 0 && v[keyDiskPath] == "":
		return fail.New(fail.Usage, "Flag 256 is set, but there is no %s", keyDiskPath)
	case flags&flagISO != 0 && v[keyISO] == "":
		return fail.New(fail.Usage, "Flag 1024 is set, but there is no %s", keyISO)
	case flags&flagDiskURL != 0 && (v[keyDiskURL] == "" || v[keyDiskSum] == ""):
		return fail.New(fail.Usage, "Flag 2 is set, but there is no %s and %s", keyDiskURL, keyDiskSum)
	case flags&flagOVA != 0 && v[keyOVAPath] == "":
		return fail.New(fail.Usage, "Flag 512 is set, but there is no %s", keyOVAPath).Hint("use 'cernvm-launch import OVA_FILE'")
	}
	return nil
}

// spec is the machine of a record as its driver is to have it.
//
// Differs: the execution cap is applied; it was stored and listed only. With a
// second network card the guest's port is forwarded all the same, so that ssh
// reaches the guest; the original then reaches this computer's own SSH server.
// The serial port is always logged, whatever flag 128 says. A context never goes
// on a floppy, which no guest reads.
func (r *record) spec() (machine.Spec, error) {
	v := settings{}
	v.fill(r.values)
	v.fill(settings{keyAPIPort: "80", keyCPUs: "1", keyMemory: "512", keyDisk: "1024", keyCap: "100", keyFlags: "0"}) // the driver's own defaults
	flags, err := checkNumbers(v)
	if err != nil {
		return machine.Spec{}, err
	}
	number := func(key string) int {
		n, _ := strconv.Atoi(v[key]) // checked above
		return n
	}
	s := machine.Spec{
		Name: r.name(), ID: v[keyVBoxID], Driver: r.driver(), Dir: r.folder(),
		CPUs: number(keyCPUs), MemoryMiB: number(keyMemory), DiskMiB: int64(number(keyDisk)),
		Image: machine.Image{Format: v[micaFormat], Path: v[micaImage], SHA256: v[micaDigest], Verified: v[micaDigest] != ""},
	}
	s.Image.Size, _ = strconv.ParseInt(v[micaSize], 10, 64) // for people
	if s.Image.Format == "" && flags&(flagDiskURL|flagDiskLocal|flagOVA) != 0 {
		s.Image.Format = "vdi" // made by the original: it boots from a disk
	}
	host, _ := v.number(localPort, 1, maxPort) // 0 before the first start
	s.Forwards = []machine.Forward{{Host: int(host), Guest: number(keyAPIPort), Auto: true}}
	if execution := number(keyCap); execution < 100 {
		s.ExecutionCap = execution
	}
	if dir := v[keyShared]; dir != "" && dir != noShare {
		s.Shares = []machine.Share{{Name: s.Name + "_sf", Path: dir}}
	}
	if s.Driver == defaultDriver {
		desktop(&s, flags, v)
	}
	return s, nil
}

// desktop sets what only VirtualBox has.
func desktop(s *machine.Spec, flags int64, v settings) {
	s.Options = map[string]string{"ostype": "Linux26", "additions": "off"}
	if flags&flag64Bit != 0 {
		s.Options["ostype"] = "Linux26_64"
	}
	if flags&flagAdditions != 0 {
		s.Options["additions"] = "auto"
	}
	for key, option := range map[string]string{keyVRAM: "vram", "graphics": "graphics", "natDns": "natdns"} {
		if v[key] != "" {
			s.Options[option] = v[key]
		}
	}
	if flags&flagHeadful != 0 {
		s.Display = "gui"
	}
	s.Clipboard = flags&flagGraphical != 0
	if flags&flagDualNIC != 0 {
		s.Network = "hostonly"
	}
}

// instance is the machine of a record as its driver knows it.
func (r *record) instance() (machine.Instance, error) {
	s, err := r.spec()
	if err != nil {
		return machine.Instance{}, fmt.Errorf("the record of %q: %w", r.name(), err)
	}
	i := machine.Instance{Spec: s}
	if text := r.values[micaHandle]; text != "" {
		if err := json.Unmarshal([]byte(text), &i.Handle); err != nil {
			return i, fmt.Errorf("the record of %q: reading %s: %w", r.name(), micaHandle, err)
		}
	}
	if s.ID == "" {
		return i, fail.New(fail.NotFound, "the machine %q was never made", r.name()).Hint("'cernvm-launch destroy %s' clears its record", r.name())
	}
	return i, nil
}

// setHandle keeps the driver's notes.
func (r *record) setHandle(handle map[string]string) {
	delete(r.values, micaHandle)
	if len(handle) > 0 {
		text, _ := json.Marshal(handle) // a map of strings
		r.values[micaHandle] = string(text)
	}
}

// canonicalFolder returns a folder's absolute path without symbolic links.
//
// Differs: the original refuses any other spelling of it, even in the
// configuration it wrote itself.
func canonicalFolder(path string) (string, error) {
	path, err := canonical(path)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%s is no directory", path)
	}
	return path, nil
}

func canonical(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
