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
	maxDigits = 12
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
		{keyCPUs, 1, maxCPUs},
		{keyMemory, minMemory, maxMemory},
		{keyDisk, 0, maxDisk},
		{keyAPIPort, 1, maxPort},
		{keyCap, 1, 100},
		{keyFlags, 0, allFlags},
		{keyVRAM, 1, maxVRAM},
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
//
// The record of a new machine has been checked. In older ones a number is what
// the digits it begins with say, as the original read it.
func (r *record) spec() machine.Spec {
	v := r.values
	number := func(key string, fallback int64) int64 {
		text := v[key]
		if text == "" {
			return fallback
		}
		end := 0
		for end < len(text) && end < maxDigits && text[end] >= '0' && text[end] <= '9' {
			end++
		}
		n, _ := strconv.ParseInt(text[:end], 10, 64) // few digits, or none: 0
		return n
	}
	flags := number(keyFlags, 0)
	s := machine.Spec{
		Name: r.name(), ID: v[keyVBoxID], Driver: r.driver(), Dir: r.folder(),
		CPUs: int(number(keyCPUs, 1)), MemoryMiB: int(number(keyMemory, 512)), DiskMiB: number(keyDisk, 1024), // the original's
		Image: machine.Image{Format: v[micaFormat], Path: v[micaImage], SHA256: v[micaDigest], Size: number(micaSize, 0), Verified: v[micaVerified] != ""},
		Forwards: []machine.Forward{{
			Host:  int(number(localPort, 0)), // 0 before the first start
			Guest: int(number(keyAPIPort, 80)), Auto: true,
		}},
	}
	if s.Image.Format == "" && flags&(flagDiskURL|flagDiskLocal|flagOVA) != 0 {
		s.Image.Format = "vdi" // made by the original: it boots from a disk
	}
	if execution := number(keyCap, 100); execution > 0 && execution < 100 {
		s.ExecutionCap = int(execution)
	}
	if dir := v[keyShared]; dir != "" && dir != noShare {
		s.Shares = []machine.Share{{Name: s.Name + "_sf", Path: dir}}
	}
	if s.Driver == defaultDriver {
		desktop(&s, flags, v)
	}
	return s
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
	i := machine.Instance{Spec: r.spec()}
	if text := r.values[micaHandle]; text != "" {
		if err := json.Unmarshal([]byte(text), &i.Handle); err != nil {
			return i, fmt.Errorf("the record of %q: reading %s: %w", r.name(), micaHandle, err)
		}
	}
	if i.Spec.ID == "" {
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
