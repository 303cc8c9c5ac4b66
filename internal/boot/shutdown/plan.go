package shutdown

import (
	"bytes"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Mount is one line of /proc/self/mountinfo.
type Mount struct {
	ID, Parent int
	Point      string
	Type       string
	Source     string
}

// ParseMountinfo reads /proc/self/mountinfo (proc_pid_mountinfo(5)). Lines that
// cannot be understood are skipped.
func ParseMountinfo(data []byte) []Mount {
	var mounts []Mount
	for line := range bytes.Lines(data) {
		left, right, ok := strings.Cut(strings.TrimRight(string(line), "\n"), " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		id, err1 := strconv.Atoi(f[0])
		parent, err2 := strconv.Atoi(f[1])
		if err1 != nil || err2 != nil {
			continue
		}
		mounts = append(mounts, Mount{ID: id, Parent: parent, Point: unescape(f[4]), Type: g[0], Source: unescape(g[1])})
	}
	return mounts
}

// unescape undoes the octal escapes of blanks and backslashes.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// Below returns the mount points at and below a folder in the order in which to
// unmount them: what was mounted last comes first.
func Below(mounts []Mount, folder string) []Mount {
	var list []Mount
	for _, m := range mounts {
		if m.Point == folder || strings.HasPrefix(m.Point, strings.TrimSuffix(folder, "/")+"/") {
			list = append(list, m)
		}
	}
	slices.Reverse(list) // mountinfo lists in the order of mounting, parents first
	return list
}

// Verb is how the machine is to end.
type Verb string

// The verbs of systemd-shutdown. Anything else is a reboot, as in the original.
const (
	Reboot   Verb = "reboot"
	PowerOff Verb = "poweroff"
	Halt     Verb = "halt"
	Kexec    Verb = "kexec"
)

// ParseVerb reads the verb from the arguments.
func ParseVerb(args []string) Verb {
	if len(args) > 0 {
		switch v := Verb(path.Base(args[0])); v {
		case PowerOff, Halt, Kexec:
			return v
		}
	}
	return Reboot
}
