package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/sparse"
)

const (
	firmwareFile = "firmware.json" // which firmware the machine has
	varsFile     = "vars.fd"       // its variables: the machine's own copy of a template

	optionSecureBoot = "secure-boot"
	maxDescriptor    = 1 << 20
)

// firmware is what a UEFI machine boots with. It is chosen once: the variables
// are laid out for one build of it.
type firmware struct {
	Code       string `json:"code"`
	CodeFormat string `json:"code_format"`
	VarsFormat string `json:"vars_format"`
	Secure     bool   `json:"secure,omitempty"` // it keeps its variables from the guest, by the processor's system management mode
}

// firmwareDirs are the folders with descriptors, the least important first, as
// QEMU's docs/interop/firmware.json has them; /usr/local is where QEMU built
// from its sources puts them.
func firmwareDirs(getenv func(string) string) []string {
	dirs := []string{"/usr/share/qemu/firmware", "/usr/local/share/qemu/firmware", "/etc/qemu/firmware"}
	config := getenv("XDG_CONFIG_HOME")
	if home := getenv("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if filepath.IsAbs(config) {
		dirs = append(dirs, filepath.Join(config, "qemu", "firmware"))
	}
	return dirs
}

// descriptor is one of QEMU's descriptions of firmware, as far as it matters
// here (docs/interop/firmware.json, type Firmware).
type descriptor struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string
		Mode       string
		Executable struct{ Filename, Format string }
		NVRAM      struct{ Filename, Format string } `json:"nvram-template"`
	}
	Targets []struct {
		Architecture string
		Machines     []string
	}
	Features []string
}

// fits reports whether the firmware is one for that hardware, in flash with
// variables beside it.
func (f descriptor) fits(h hardware) bool {
	if !slices.Contains(f.Interfaces, "uefi") || f.Mapping.Device != "flash" || f.Mapping.Mode != "" && f.Mapping.Mode != "split" {
		return false
	}
	for _, format := range []string{f.Mapping.Executable.Format, f.Mapping.NVRAM.Format} {
		if format != "raw" && format != "qcow2" {
			return false
		}
	}
	for _, t := range f.Targets {
		if t.Architecture != h.arch {
			continue
		}
		for _, pattern := range t.Machines {
			if ok, err := path.Match(pattern, h.kind+"0"); err == nil && ok {
				return true
			}
		}
	}
	return false
}

// boots reports whether firmware with these features boots what the machine is
// to boot: only what its owner's keys have signed, or anything.
func (f descriptor) boots(secure, strict bool) bool {
	has := func(feature string) bool { return slices.Contains(f.Features, feature) }
	if secure {
		return has("secure-boot") && has("enrolled-keys")
	}
	// Firmware that could check signatures checks none as long as it has no keys.
	return !has("enrolled-keys") && !has("requires-smm") && (!strict || !has("secure-boot"))
}

// findFirmware chooses firmware, and the template of its variables.
func (d *Driver) findFirmware(h hardware, secure bool) (firmware, string, error) {
	found, err := d.descriptors()
	if err != nil {
		return firmware{}, "", err
	}
	var gone []string
	for _, strict := range []bool{true, false} {
		for _, name := range slices.Sorted(maps.Keys(found)) {
			f := found[name]
			if !f.fits(h) || !f.boots(secure, strict) {
				continue
			}
			m := f.Mapping
			missing := slices.DeleteFunc([]string{m.Executable.Filename, m.NVRAM.Filename}, func(file string) bool {
				info, err := os.Stat(file)
				return err == nil && info.Mode().IsRegular()
			})
			if len(missing) > 0 {
				gone = append(gone, missing...)
				continue
			}
			return firmware{
				Code: m.Executable.Filename, CodeFormat: m.Executable.Format, VarsFormat: m.NVRAM.Format,
				Secure: slices.Contains(f.Features, "requires-smm"),
			}, m.NVRAM.Filename, nil
		}
	}
	what := "UEFI firmware"
	if secure {
		what += " with secure boot"
	}
	lacks := fail.New(fail.HostLacks, "there is no %s for %s: QEMU's descriptions of firmware name none", what, h.arch)
	if len(gone) > 0 {
		lacks = fail.New(fail.HostLacks, "there is no %s for %s: %s is described, and not there", what, h.arch, gone[0])
	}
	return firmware{}, "", lacks.Hint("install it: %s", h.firmware)
}

// descriptors reads all descriptions, by the names of their files: the one in
// the most important folder counts, and an empty one hides those of its name.
func (d *Driver) descriptors() (map[string]descriptor, error) {
	files := map[string]string{}
	for _, dir := range d.firmwareDirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking for firmware: %w", err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".json") {
				files[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	found := map[string]descriptor{}
	for name, file := range files {
		var f descriptor
		info, err := os.Stat(file)
		switch {
		case err == nil && info.Size() == 0:
			continue
		case err == nil && info.Size() > maxDescriptor:
			err = errors.New("it is too large")
		case err == nil:
			err = readJSON(file, &f)
		}
		if err != nil {
			d.log.Warn("a description of firmware cannot be read", "file", file, "error", err)
			continue
		}
		found[name] = f
	}
	return found, nil
}

// wantsSecureBoot reads the option.
func wantsSecureBoot(s machine.Spec) (bool, error) {
	switch s.Options[optionSecureBoot] {
	case "", "off":
		return false, nil
	case "on":
	default:
		return false, fail.New(fail.Usage, "option %s cannot be %q", optionSecureBoot, s.Options[optionSecureBoot]).Hint("use on or off")
	}
	if s.Firmware != machine.UEFI {
		return false, fail.New(fail.Usage, "only UEFI has secure boot").Hint("use --firmware uefi")
	}
	return true, nil
}

// checkFirmware says whether there is firmware for the machine.
func (d *Driver) checkFirmware(s machine.Spec) error {
	secure, err := wantsSecureBoot(s)
	if err != nil || s.Firmware != machine.UEFI {
		return err
	}
	_, _, err = d.findFirmware(d.hardware(s), secure)
	return err
}

// giveFirmware gives a machine that is being made its firmware.
func (d *Driver) giveFirmware(ctx context.Context, s machine.Spec) error {
	secure, err := wantsSecureBoot(s)
	if err != nil {
		return err
	}
	f, template, err := d.findFirmware(d.hardware(s), secure)
	if err != nil {
		return err
	}
	if err := sparse.Copy(ctx, template, s.Path(varsFile)); err != nil {
		return fmt.Errorf("copying the firmware's variables: %w", err)
	}
	return writeJSON(s.Path(firmwareFile), f)
}

// cloneFirmware gives it that of another machine: what is on the disk may boot
// by what is in the variables.
func cloneFirmware(ctx context.Context, from, s machine.Spec) error {
	var f firmware
	if err := readJSON(from.Path(firmwareFile), &f); err != nil {
		return err
	}
	if err := sparse.Copy(ctx, from.Path(varsFile), s.Path(varsFile)); err != nil {
		return err
	}
	return writeJSON(s.Path(firmwareFile), f)
}

// loadFirmware returns that of a machine that is to start; nil is the BIOS that
// QEMU brings along.
func (d *Driver) loadFirmware(s machine.Spec) (*firmware, error) {
	if s.Firmware != machine.UEFI {
		return nil, nil //nolint:nilnil // as documented
	}
	var f firmware
	if err := readJSON(s.Path(firmwareFile), &f); err != nil {
		return nil, fmt.Errorf("starting %q: %w", s.Name, err)
	}
	if _, err := os.Stat(f.Code); err != nil {
		return nil, fail.New(fail.HostLacks, "starting %q: its firmware is gone: %w", s.Name, err).
			Hint("install it again: %s", d.hardware(s).firmware)
	}
	return &f, nil
}

// machineArg is what the machine type is told of flash.
func (f *firmware) machineArg() string {
	switch {
	case f == nil:
		return ""
	case f.Secure:
		return ",smm=on,pflash0=code,pflash1=vars"
	}
	return ",pflash0=code,pflash1=vars"
}

// args are the images of the two flash chips.
func (f *firmware) args(s machine.Spec) []string {
	if f == nil {
		return nil
	}
	args := []string{
		"-blockdev", blockdev("code", f.CodeFormat, f.Code, true),
		"-blockdev", blockdev("vars", f.VarsFormat, s.Path(varsFile), false),
	}
	if f.Secure {
		// The guest's kernel cannot write to flash, only its firmware can.
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	return args
}
