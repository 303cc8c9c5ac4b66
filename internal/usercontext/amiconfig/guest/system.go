package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ValidHostname reports whether name can be a host name, with or without a
// domain (RFC 1123).
func ValidHostname(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

// SetHostname names the machine, now and for later boots, and makes the name
// resolve to this machine.
func (r *Root) SetHostname(name string) error {
	if !ValidHostname(name) {
		return fmt.Errorf("host name %q: letters, digits and dashes, in parts of at most 63", name)
	}
	var errs []error
	errs = append(errs, r.WriteFile("/etc/hostname", []byte(name+"\n"), Attr{}))
	if r.Exists("/etc/sysconfig/network") { // EL 6
		errs = append(errs, r.Edit("/etc/sysconfig/network", Attr{}, func(lines []string) []string {
			return SetLine(lines, "HOSTNAME=", "HOSTNAME="+name)
		}))
	}
	errs = append(errs, r.Edit("/etc/hosts", Attr{}, func(lines []string) []string {
		return hostLines(lines, name)
	}))
	if r.Live() {
		if err := unix.Sethostname([]byte(name)); err != nil {
			errs = append(errs, fmt.Errorf("setting the host name: %w", err))
		}
	}
	r.Note(Action{Kind: KindHostname, Target: name})
	return errors.Join(errs...)
}

// hostLines makes 127.0.1.1 stand for the name, as Debian does, so that the
// addresses of localhost stay its own.
func hostLines(lines []string, name string) []string {
	short, _, _ := strings.Cut(name, ".")
	names := name
	if short != name {
		names += " " + short
	}
	if len(lines) == 0 {
		lines = []string{"127.0.0.1 localhost", "::1 localhost"}
	}
	for _, line := range lines {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] != "127.0.1.1" {
			for _, f := range fields[1:] {
				if f == name { // resolves already, by whoever runs this network
					return lines
				}
			}
		}
	}
	return SetLine(lines, "127.0.1.1", "127.0.1.1 "+names)
}

// SetLine replaces the first line that starts with prefix, removes further ones,
// or adds the line at the end.
func SetLine(lines []string, prefix, line string) []string {
	var out []string
	done := false
	for _, l := range lines {
		if !strings.HasPrefix(l, prefix) {
			out = append(out, l)
			continue
		}
		if !done {
			out, done = append(out, line), true
		}
	}
	if !done {
		out = append(out, line)
	}
	return out
}

// Sysctl sets a kernel parameter, such as net.core.rmem_max.
func (r *Root) Sysctl(key, value string) error {
	for _, part := range strings.Split(key, ".") {
		if part == "" || strings.Contains(part, "/") {
			return fmt.Errorf("kernel parameter %q: not a name", key)
		}
	}
	name := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	r.Note(Action{Kind: KindSysctl, Target: key, Detail: value})
	if r.options.Pretend {
		return nil
	}
	at, err := r.resolve(name, true)
	if err != nil {
		return about("setting kernel parameter", name, err)
	}
	f, err := r.dir.OpenFile(at, syscall.O_WRONLY|syscall.O_TRUNC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kernel parameter %q: this kernel does not have it", key)
	}
	if err != nil {
		return about("setting kernel parameter", name, err)
	}
	_, err = f.WriteString(value + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("kernel parameter %q: setting %q: %w", key, value, err)
	}
	return nil
}

// Mounted reports whether something is mounted on target.
func (r *Root) Mounted(target string) bool {
	data, err := r.ReadFile("/proc/self/mounts")
	if err != nil {
		return false
	}
	for _, line := range Lines(data) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == clean(target) {
			return true
		}
	}
	return false
}

// Mount mounts source on target with mount(8), unless something is mounted there
// already. The directory is made.
func (r *Root) Mount(ctx context.Context, source, target string, options ...string) error {
	if r.Mounted(target) {
		return nil
	}
	if err := r.MkdirAll(target, Attr{}); err != nil {
		return err
	}
	r.Note(Action{Kind: KindMount, Target: clean(target), Detail: source})
	args := append(options, "--", source, clean(target))
	res, err := r.start(ctx, Command{Name: "mount", Args: args})
	if err != nil {
		return err
	}
	if res.Code != 0 {
		return fmt.Errorf("mounting %s on %s: %s", source, clean(target), strings.TrimSpace(string(res.Output)))
	}
	return nil
}

// Allocate makes a file of that many bytes, all of them on the disk, 0600.
func (r *Root) Allocate(name string, size int64) error {
	r.Note(Action{Kind: KindFile, Target: clean(name), Mode: "0600", Detail: fmt.Sprintf("%d MiB", size>>20), Secret: true})
	if r.options.Pretend {
		return nil
	}
	if err := r.MkdirAll(path.Dir(clean(name)), Attr{}); err != nil {
		return err
	}
	at, err := r.resolve(name, true)
	if err != nil {
		return about("making", name, err)
	}
	f, err := r.dir.OpenFile(at, syscall.O_RDWR|syscall.O_CREAT|syscall.O_EXCL, 0o600)
	if err != nil {
		return about("making", name, err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = r.dir.Remove(at)
		return fmt.Errorf("making %s of %d MiB: %w", clean(name), size>>20, err)
	}
	return nil
}
