package image

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
)

// maxCommandLine is COMMAND_LINE_SIZE of x86 and ARM, less the ending NUL.
const maxCommandLine = 2047

// CommandLine is the one template of the kernel's command line. The boot menu
// has two entries made from it.
type CommandLine struct {
	Arch       Arch     // of the machine, which decides on its consoles
	Repository string   // cvmfs_repos
	Servers    []string // host names: cvmfs_server
	URLs       []string // whole base URLs: cvmfs_url; either Servers or URLs
	CDN        []string // cvmfs_cdn
	Path       string   // cernvm_path: the OS's folder in the repository; empty is its root
	Tag        string   // cvmfs_repository_tag
	Proxy      string   // cvmfs_proxy
	Append     []string // words added at the end
}

// Entry is one entry of the boot menu.
type Entry string

// The entries.
const (
	Normal Entry = "normal"
	Debug  Entry = "debug"
)

// Platform is what an image is for, as far as the command line cares.
type Platform struct {
	Name string
	drop []string
	add  []string // replaces the anchor lastarg
}

// Platforms returns the platforms with their overlays. The first is the general
// one.
//
// Compat: cernvm-micro Makefile, targets vhd, tar.gz and hvm, which edit the
// boot loader's configuration in the same way.
func Platforms() []Platform {
	return []Platform{
		{Name: "generic"},
		{Name: "azure", drop: []string{"console=tty0", "quiet", "loglevel=3"}, add: []string{"earlyprintk=ttyS0", "rootdelay=300", "numa=off"}},
		{Name: "ec2", drop: []string{"console=tty0"}},
		{Name: "gce", drop: []string{"console=tty0"}},
	}
}

// Words returns the words of the command line of an entry on a platform.
// The serial console comes last, which makes it /dev/console.
func (c CommandLine) Words(p Platform, e Entry) ([]string, error) {
	words := []string{"initrd=/" + InitramfsPath}
	add := func(key string, values ...string) error {
		value := strings.Join(values, ",")
		if value == "" {
			return nil
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			return fail.New(fail.Usage, "%s: %q cannot stand on a kernel command line", key, value).Hint("use no blanks and no quotes")
		}
		words = append(words, key+"="+value)
		return nil
	}
	for _, w := range []struct {
		key    string
		values []string
	}{
		{"cernvm_path", []string{c.Path}},
		{"cvmfs_repos", []string{c.Repository}},
		{"cvmfs_server", c.Servers},
		{"cvmfs_url", c.URLs},
		{"cvmfs_cdn", c.CDN},
		{"cvmfs_repository_tag", []string{c.Tag}},
		{"cvmfs_proxy", []string{c.Proxy}},
	} {
		if err := add(w.key, w.values...); err != nil {
			return nil, err
		}
	}
	words = append(words, "net.ifnames=0", "selinux=0", "consoleblank=0")
	switch e {
	case Normal:
		// Compat: cernvm-micro isolinux.cfg: lastarg marks where platforms add.
		words = append(words, "quiet", "systemd.show_status=1", "loglevel=3", "lastarg")
	case Debug:
		words = append(words, "cvmdebug", "lastarg")
	}
	words = append(words, c.Arch.consoles()...)
	for _, w := range c.Append {
		if strings.ContainsAny(w, "\r\n\x00") {
			return nil, fail.New(fail.Usage, "%q cannot stand on a kernel command line", w)
		}
		words = append(words, w)
	}
	words = slices.DeleteFunc(words, func(w string) bool { return slices.Contains(p.drop, w) })
	if len(p.add) > 0 {
		if i := slices.Index(words, "lastarg"); i >= 0 {
			words = slices.Replace(words, i, i+1, p.add...)
		}
	}
	if n := len(strings.Join(words, " ")); n > maxCommandLine {
		return nil, fail.New(fail.Usage, "kernel command line of %d bytes, the kernel takes %d", n, maxCommandLine).Hint("name fewer servers")
	}
	return words, nil
}

// isolinux is the boot menu, for screen and serial line alike.
//
// Compat: cernvm-micro isolinux.cfg has the same two entries and the same two
// seconds. Differs: the text menu, which a serial line can show.
func (c CommandLine) isolinux(title string, p Platform) ([]byte, error) {
	if strings.ContainsAny(title, "\r\n") {
		return nil, fmt.Errorf("title %q is not one line", title)
	}
	var b bytes.Buffer
	b.WriteString("serial 0 115200\nui menu.c32\nprompt 0\ntimeout 20\nmenu title " + title + "\n")
	for _, e := range []Entry{Normal, Debug} {
		words, err := c.Words(p, e)
		if err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(&b, "\nlabel %s\n", e)
		if e == Normal {
			b.WriteString("  menu label " + title + "\n  menu default\n")
		} else {
			b.WriteString("  menu label " + title + " (debug)\n")
		}
		b.WriteString("  kernel /" + KernelPath + "\n  append " + strings.Join(words, " ") + "\n")
	}
	return b.Bytes(), nil
}

// systemdBoot is the same menu for UEFI firmware: entries of the Boot Loader
// Specification, type 1. The words are the same, too: the kernel's own initrd=
// is for a loader that passes no initramfs, and the kernel passes over it.
//
// Differs: cernvm-micro starts by UEFI on aarch64 alone, from a startup.nsh, and
// has no menu there.
func (c CommandLine) systemdBoot(title string, p Platform) ([]iso9660.File, error) {
	if strings.ContainsAny(title, "\r\n") {
		return nil, fmt.Errorf("title %q is not one line", title)
	}
	files := []iso9660.File{iso9660.Bytes(EFIConfigDir+"/loader.conf", 0o444,
		fmt.Appendf(nil, "timeout 2\ndefault %s.conf\nauto-entries no\nauto-firmware no\n", Normal))}
	for i, e := range []Entry{Normal, Debug} {
		words, err := c.Words(p, e)
		if err != nil {
			return nil, err
		}
		shown := title
		if e == Debug {
			shown += " (debug)"
		}
		text := fmt.Appendf(nil, "title %s\nsort-key %d\nlinux /%s\ninitrd /%s\noptions %s\n", shown, i+1, KernelPath, InitramfsPath, strings.Join(words, " "))
		files = append(files, iso9660.Bytes(fmt.Sprintf("%s/entries/%s.conf", EFIConfigDir, e), 0o444, text))
	}
	return files, nil
}
