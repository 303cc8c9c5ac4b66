package disk

import (
	"fmt"
	"strings"
)

// Rejected is a device that was not used.
type Rejected struct {
	Device string // device file or name
	Size   int64
	Reason string
}

// NoDisk says that no device may become UROOT, and why for each.
type NoDisk struct {
	Devices []Rejected
	Remedy  string
}

// Error lists the devices, one a line.
func (e *NoDisk) Error() string {
	if len(e.Devices) == 0 {
		return "no disk for UROOT: the machine has no block devices"
	}
	var b strings.Builder
	b.WriteString("no disk may be used for UROOT:")
	for _, d := range e.Devices {
		fmt.Fprintf(&b, "\n  %s (%s): %s", d.Device, amount(d.Size), d.Reason)
	}
	return b.String()
}

// Ambiguous says that several devices are UROOT.
type Ambiguous struct {
	Devices []string // with the identifier of each
	Remedy  string
}

// Error names the devices.
func (e *Ambiguous) Error() string {
	return "more than one disk is a UROOT: " + strings.Join(e.Devices, ", ")
}

// amount writes bytes for people.
func amount(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
