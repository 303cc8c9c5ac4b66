package machine

import (
	"maps"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// Values of a Spec that every part of Mica knows by name.
const (
	NAT        = "nat"
	DisplayVNC = "vnc"
	DisplayGUI = "gui"

	BIOS   = "bios" // as the user names it; empty in a Spec
	UEFI   = "uefi"
	X86_64 = "x86_64" //nolint:revive,staticcheck // the name of the architecture; empty in a Spec
	ARM64  = "aarch64"
)

// wanted lists what the Spec asks for beyond a plain machine, each with the
// words for it on a command line.
func (s Spec) wanted() map[Feature]string {
	asks := map[Feature]string{}
	if s.Network != "" && s.Network != NAT {
		asks[Networks] = "--network " + s.Network
	}
	switch s.Display {
	case DisplayVNC:
		asks[VNC] = "--display vnc"
	case DisplayGUI:
		asks[GUI] = "--display gui"
	}
	if len(s.Shares) > 0 {
		asks[SharedFolders] = "--share"
	}
	if s.ExecutionCap != 0 && s.ExecutionCap != 100 {
		asks[ExecutionCaps] = "--execution-cap"
	}
	if s.Clipboard {
		asks[Clipboards] = "--clipboard"
	}
	if s.Firmware != "" {
		asks[Firmwares] = "--firmware " + s.Firmware
	}
	if s.Arch != "" {
		asks[Architectures] = "--arch " + s.Arch
	}
	if len(s.Disks) > 0 {
		asks[MoreDisks] = "--add-disk"
	}
	if s.Image.Format != "" {
		asks[DiskImages] = "a boot image in format " + s.Image.Format
	}
	return asks
}

// Supports says whether the driver that made the report can do all that the
// Spec asks for. The error names the first thing it cannot, and what it can.
func (r Report) Supports(s Spec) error {
	asks := s.wanted()
	for _, feature := range slices.Sorted(maps.Keys(asks)) {
		if !slices.Contains(r.Features, feature) {
			return fail.New(fail.Usage, "driver %q cannot do %s", r.Driver, asks[feature]).
				Hint("leave it out, or choose another --driver; 'mica doctor' lists what each can do")
		}
	}
	names := slices.Sorted(maps.Keys(r.Options))
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		if _, known := r.Options[name]; known {
			continue
		}
		err := fail.New(fail.Usage, "driver %q has no option %q", r.Driver, name)
		if near := Nearest(name, names); near != "" {
			return err.Hint("did you mean %q?", near)
		}
		if len(names) == 0 {
			return err.Hint("it has none at all")
		}
		return err.Hint("its options are: %s", strings.Join(names, ", "))
	}
	return nil
}
