package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/micavm/mica/internal/image/cpio"
)

// guestPath is where the guest binary lies; /init links to it.
const guestPath = "bin/mica-guest"

// applets are the busybox commands of the debug shell.
var applets = []string{
	"[", "ash", "awk", "basename", "blkid", "blockdev", "cat", "chmod", "chown", "chroot", "clear", "cmp", "cp", "cpio", "cut", "date",
	"dd", "depmod", "df", "diff", "dirname", "dmesg", "du", "echo", "env", "expr", "false", "fdisk", "find", "free", "fuser", "grep", "gunzip", "gzip",
	"halt", "head", "hexdump", "hostname", "id", "ifconfig", "insmod", "ip", "kill", "killall", "less", "ln", "losetup", "ls", "lsmod", "md5sum",
	"mkdir", "mknod", "mkswap", "modinfo", "modprobe", "more", "mount", "mountpoint", "mv", "nc", "netstat", "nslookup", "od", "pidof", "ping",
	"poweroff", "printf", "ps", "pwd", "readlink", "reboot", "reset", "rm", "rmdir", "rmmod", "route", "sed", "seq", "setsid", "sh", "sha256sum",
	"sleep", "sort", "stat", "strings", "stty", "swapoff", "swapon", "sync", "sysctl", "tail", "tar", "tee", "telnet", "test", "time", "timeout", "top", "touch",
	"tr", "traceroute", "true", "tty", "udhcpc", "umount", "uname", "uniq", "unxz", "uptime", "vi", "wc", "wget", "which", "xargs", "xzcat", "yes", "zcat",
}

// ramdisk is the content of an initramfs.
type ramdisk struct {
	version   string
	epoch     int64
	guest     []byte
	busybox   []byte
	programs  map[string][]byte // file system tools by name
	libraries map[string][]byte // by path
	mkeConfig []byte            // mke2fs.conf
	kernel    kernel
	keys      map[string][]byte // file name → PEM text
	keyFolder string            // name of the repository the keys are for
	bundle    []byte            // certificate authorities, nil for none
}

// entries lays the initramfs out: everything but the kernel's modules, and
// those.
func (r ramdisk) entries() (list, mods []cpio.Entry) {
	file := func(p string, mode fs.FileMode, data []byte) {
		list = append(list, cpio.Entry{Path: p, Mode: mode, Data: data})
	}
	link := func(p, target string) {
		list = append(list, cpio.Entry{Path: p, Mode: fs.ModeSymlink | 0o777, Link: target})
	}
	for p, mode := range map[string]fs.FileMode{
		"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "mnt": 0o755, "etc": 0o755, "var": 0o755, "root": 0o700, "tmp": 0o777 | fs.ModeSticky,
	} {
		list = append(list, cpio.Entry{Path: p, Mode: fs.ModeDir | mode})
	}
	// The kernel opens /dev/console before anything could mount devtmpfs.
	const device = fs.ModeDevice | fs.ModeCharDevice
	list = append(list,
		cpio.Entry{Path: "dev/console", Mode: device | 0o600, Major: 5, Minor: 1},
		cpio.Entry{Path: "dev/null", Mode: device | 0o666, Major: 1, Minor: 3})

	file(guestPath, 0o755, r.guest)
	link("init", guestPath)
	file("version", 0o444, []byte(r.version+"\n"))
	file("etc/mica/build-time", 0o444, []byte(strconv.FormatInt(r.epoch, 10)+"\n"))
	file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"))
	file("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	link("etc/mtab", "/proc/self/mounts")
	for name, text := range r.keys {
		file(path.Join("etc/cvmfs/keys", r.keyFolder, name), 0o444, text)
	}
	if r.bundle != nil {
		file("etc/ssl/certs/ca-certificates.crt", 0o444, r.bundle)
	}

	file("bin/busybox", 0o755, r.busybox)
	for _, name := range applets {
		if bytes.Contains(r.busybox, []byte("\x00"+name+"\x00")) {
			link(path.Join("bin", name), "busybox")
		}
	}
	for name, data := range r.programs {
		file(path.Join("sbin", name), 0o755, data)
		for _, other := range fileSystemTools[name] {
			link(path.Join("sbin", other), name)
		}
	}
	for p, data := range r.libraries {
		file(p, 0o755, data)
	}
	file("etc/mke2fs.conf", 0o644, r.mkeConfig)

	tree := path.Join("lib/modules", r.kernel.release)
	for _, m := range r.kernel.modules.Modules {
		mods = append(mods, cpio.Entry{Path: path.Join(tree, m.Path), Mode: 0o644, Data: m.Data})
	}
	for name, data := range r.kernel.modules.Index() {
		mods = append(mods, cpio.Entry{Path: path.Join(tree, name), Mode: 0o644, Data: data})
	}
	return list, mods
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// total is how many bytes the values of m have.
func total(m map[string][]byte) (n int64) {
	for _, b := range m {
		n += int64(len(b))
	}
	return n
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
