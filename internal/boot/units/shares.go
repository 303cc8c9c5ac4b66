package units

import (
	"fmt"
	"strings"
)

// Shared is the folder that shared folders are mounted in.
//
// Compat: cernvm-config: S11vboxtools.sh mounts them there.
const Shared = "/mnt/shared"

// Share is a folder of the host to mount at Shared/Name.
type Share struct {
	Name     string
	Type     string // of the file system: 9p, virtiofs, vboxsf
	Tag      string // what the device calls it; empty is Name
	ReadOnly bool
}

// Where is the mount point.
func (s Share) Where() string { return Shared + "/" + s.Name }

// Command is how a person mounts the share.
func (s Share) Command() string {
	return fmt.Sprintf("mount -t %s -o %s %s %s", s.Type, strings.Join(s.options(), ","), s.tag(), s.Where())
}

func (s Share) tag() string {
	if s.Tag != "" {
		return s.Tag
	}
	return s.Name
}

// options are those that the file system needs.
func (s Share) options() []string {
	o := []string{"rw"}
	if s.ReadOnly {
		o[0] = "ro"
	}
	o = append(o, "nosuid", "nodev")
	if s.Type == "9p" {
		// cache=mmap caches nothing but what a program maps, so that both sides
		// see each other's changes at once, and databases and linkers work.
		o = append(o, "trans=virtio", "version=9p2000.L", "msize=262144", "cache=mmap")
	}
	return o
}

// text is the mount unit. With nofail local-fs.target does not wait for it: a
// share that is gone must not stop the boot. The context is applied after it has
// been tried, because scripts in a context read and write there.
func (s Share) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=Shared folder %s\n", s.Name)
	if s.Type == "9p" {
		// A system whose udev does not load it by itself; others do nothing here.
		b.WriteString("Wants=modprobe@9pnet_virtio.service\nAfter=modprobe@9pnet_virtio.service\n")
	}
	fmt.Fprintf(&b, "After=local-fs.target\nBefore=cloud-config.service cloud-final.service mica-apply.service\n\n")
	fmt.Fprintf(&b, "[Mount]\nWhat=%s\nWhere=%s\nType=%s\nOptions=%s\nTimeoutSec=30\n", s.tag(), s.Where(), s.Type, strings.Join(append(s.options(), "nofail"), ","))
	return b.String()
}

// unit is the name of the mount unit, which systemd wants to follow from the
// mount point: see systemd.unit(5), "String escaping".
func (s Share) unit() string {
	var b strings.Builder
	for i, part := range strings.Split(strings.Trim(s.Where(), "/"), "/") {
		if i > 0 {
			b.WriteByte('-')
		}
		for _, c := range []byte(part) {
			switch {
			case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == ':', c == '_', c == '.':
				b.WriteByte(c)
			default:
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
	}
	return b.String() + ".mount"
}
