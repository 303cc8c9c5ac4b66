package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/boot/network"
	"github.com/micavm/mica/internal/boot/switchroot"
	"github.com/micavm/mica/internal/boot/units"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/rc"
)

// adapt tells the operating system what it must know about its unusual root, so
// that a plain tree boots. Everything it writes is in /run or in the machine's
// own writable layer. Each step is tried whatever became of the others.
func adapt(s *state, r *report) error {
	root := targetRoot
	errs := []error{
		places(root),
		bindStores(root, s.rw()),
		postModules(root, s.rw(), s.rec),
		writePIDs(filepath.Join(root, ".cvmfs_pids"), s.ready.PID),
		fstab(root),
		resolvConf(root, s),
	}
	if s.newSelf {
		errs = append(errs, forgetIdentity(root))
	}
	if systemd(root) {
		errs = append(errs, writeUnits("/run", s))
	} else {
		s.noteShares()
		kind, err := startScripts(root)
		r.fact("init_system", kind)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// startScripts has a system without systemd apply its context.
func startScripts(root string) (kind string, err error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return "other", fmt.Errorf("installing start scripts: %w", err)
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	kind, err = rc.Install(dir)
	if errors.Is(err, rc.ErrUnknown) {
		return "other", fmt.Errorf("%w: its context is not applied by itself; run /run/initramfs/bin/mica-guest apply from its start scripts", err)
	}
	return kind, err
}

// places makes what every system expects. Compat: cernvm-micro: 97hotfixes.
func places(root string) error {
	var errs []error
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "cvmfs", "mnt"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, fmt.Errorf("making /%s: %w", d, err))
		}
	}
	// A changed mode is copied into the writable layer: only if it is needed.
	tmp := filepath.Join(root, "tmp")
	if fi, err := os.Stat(tmp); err == nil && fi.Mode()&(fs.ModePerm|fs.ModeSticky) != 0o777|fs.ModeSticky {
		if err := os.Chmod(tmp, 0o777|fs.ModeSticky); err != nil {
			errs = append(errs, fmt.Errorf("opening /tmp: %w", err))
		}
	}
	return errors.Join(errs...)
}

// bindStores puts the folders that cannot live on a union on UROOT itself: mount
// points of further repositories, and the stores of container engines, whose own
// overlays need a real file system as their upper side.
func bindStores(root, rw string) error {
	var errs []error
	for _, b := range []struct{ from, to, onlyWith string }{
		{"cvmfs", "cvmfs", ""},
		{"docker", "var/lib/docker", "usr/bin/dockerd"},
		{"docker", "var/lib/docker", "usr/sbin/dockerd"},
		{"containers", "var/lib/containers", "usr/bin/podman"},
	} {
		if b.onlyWith != "" {
			if _, err := os.Lstat(filepath.Join(root, b.onlyWith)); err != nil {
				continue
			}
		}
		from, err := filepath.Join(rw, b.from), error(nil)
		to, err := inside(root, b.to)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if sameFolder(from, to) {
			continue // an earlier try
		}
		for _, dir := range []string{from, to} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				errs = append(errs, fmt.Errorf("making %s: %w", dir, err))
			}
		}
		if err := again(func() error { return unix.Mount(from, to, "", unix.MS_BIND, "") }); err != nil {
			errs = append(errs, fmt.Errorf("putting /%s on the disk: %w", b.to, err))
		}
	}
	return errors.Join(errs...)
}

func sameFolder(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// inside returns the place of a file in a tree, with the links of its folder
// followed as inside the tree: /etc of a system may be a link.
func inside(root, name string) (string, error) {
	dir, base := filepath.Split(filepath.Clean("/" + name))
	place, err := switchroot.Resolve(root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		place, err = filepath.Join(root, dir), nil
	}
	if err != nil {
		return "", fmt.Errorf("finding /%s of the operating system: %w", name, err)
	}
	return filepath.Join(place, base), nil
}

// postModules gives a system that has no modules for the running kernel at least
// those of the boot image. They lie on UROOT and are mounted into place, so that
// the writable layer does not fill with modules of kernels that are long gone.
func postModules(root, rw string, rec *Record) error {
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	target, err := inside(root, "lib/modules/"+release)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(target, "modules.dep")); err == nil {
		return nil
	}
	source := filepath.Join("/lib/modules", release)
	if _, err := os.Stat(source); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	kept := filepath.Join(rw, "modules", release)
	if _, err := os.Stat(filepath.Join(kept, "modules.dep")); err != nil {
		part := kept + ".part"
		if err := os.RemoveAll(part); err != nil {
			return fmt.Errorf("posting kernel modules: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
			return fmt.Errorf("posting kernel modules: %w", err)
		}
		if err := os.CopyFS(part, os.DirFS(source)); err != nil {
			return fmt.Errorf("posting kernel modules: %w", err)
		}
		if err := os.Rename(part, kept); err != nil {
			return fmt.Errorf("posting kernel modules: %w", err)
		}
		rec.note("the operating system has no modules for kernel %s; it gets those of the boot image", release)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("posting kernel modules: %w", err)
	}
	if err := again(func() error { return unix.Mount(kept, target, "", unix.MS_BIND, "") }); err != nil {
		return fmt.Errorf("posting kernel modules: %w", err)
	}
	return nil
}

// fstab comments out the entry for the root file system: it describes the disk
// that the tree was made for, and systemd would try to check and remount it.
func fstab(root string) error {
	file, err := inside(root, "etc/fstab")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the system's fstab: %w", err)
	}
	text, changed := withoutRoot(string(data))
	if !changed {
		return nil
	}
	return atomicfile.Write(file, []byte(text), 0o644)
}

// withoutRoot returns the text of an fstab without its entry for "/".
func withoutRoot(text string) (string, bool) {
	changed := false
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) >= 2 && !strings.HasPrefix(f[0], "#") && f[1] == "/" {
			lines[i] = "# not the root of this machine: " + line
			changed = true
		}
	}
	return strings.Join(lines, ""), changed
}

// resolvConf gives the system name servers, unless its administrator has.
//
// A file in the tree comes from wherever the tree was made; a link into /run
// belongs to a daemon that will replace the file, but may not be running.
func resolvConf(root string, s *state) error {
	if !s.online() {
		return nil
	}
	file, err := inside(root, "etc/resolv.conf")
	if err != nil {
		return err
	}
	text := []byte(network.ResolvConf(s.configs))
	fi, err := os.Lstat(file)
	if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(file)
		if err != nil {
			return fmt.Errorf("reading the link /etc/resolv.conf: %w", err)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join("/etc", target)
		}
		target = filepath.Clean(target)
		if strings.HasPrefix(target, "/var/run/") {
			target = strings.TrimPrefix(target, "/var")
		}
		if !strings.HasPrefix(target, "/run/") {
			return nil // the tree's own arrangement
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("writing name servers: %w", err)
		}
		return atomicfile.Write(target, text, 0o644)
	}
	if own, err := os.ReadFile(filepath.Join(s.rw("persistent/etc/resolv.conf"))); err == nil && !strings.HasPrefix(string(own), network.Marker) {
		return nil
	}
	return atomicfile.Write(file, text, 0o644)
}

// forgetIdentity makes a machine a new one: what identifies it must not come
// from the tree, or from the machine whose disk was copied. An empty machine-id is
// filled by systemd; a missing one would make it apply its presets to every unit.
func forgetIdentity(root string) error {
	id, err := inside(root, "etc/machine-id")
	if err != nil {
		return err
	}
	errs := []error{atomicfile.Write(id, nil, 0o444)}
	if dbus, err := inside(root, "var/lib/dbus/machine-id"); err == nil {
		// Usually a link to the other one; a file of its own would be everyone's.
		if fi, err := os.Lstat(dbus); err == nil && fi.Mode().IsRegular() {
			errs = append(errs, os.Remove(dbus))
		}
	}
	if ssh, err := inside(root, "etc/ssh/x"); err == nil {
		keys, _ := filepath.Glob(filepath.Join(filepath.Dir(ssh), "ssh_host_*_key*"))
		for _, key := range keys {
			errs = append(errs, os.Remove(key))
		}
	}
	if seed, err := inside(root, "var/lib/systemd/random-seed"); err == nil {
		if err := os.Remove(seed); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("giving the machine an identity of its own: %w", err)
	}
	return nil
}

// systemd reports whether the tree runs systemd.
func systemd(root string) bool {
	for _, name := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := switchroot.Resolve(root, name); err == nil {
			return true
		}
	}
	return false
}

// forCloudInit reports whether a context has a part that only cloud-init reads. A
// plain context is not one, even if it begins with a script, which cloud-init
// would run as well: the context agent runs it, and once is enough.
func forCloudInit(c *usercontext.Context) bool {
	if c == nil {
		return false
	}
	return slices.ContainsFunc(c.Parts, func(p usercontext.Part) bool {
		return p.Kind != usercontext.Empty && p.Kind != usercontext.Plain && p.Kind != usercontext.Unknown
	})
}

// writeUnits writes the units, and the network files of networkd, below run.
func writeUnits(run string, s *state) error {
	var errs []error
	plan := units.Plan{CloudInit: forCloudInit(s.context), Shares: s.sharedFolders()}
	dir := filepath.Join(run, strings.TrimPrefix(units.Dir, "/run"))
	for _, f := range units.Files(plan) {
		file := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		if f.Link != "" {
			if err := os.Symlink(f.Link, file); err != nil && !errors.Is(err, fs.ErrExist) {
				errs = append(errs, err)
			}
			continue
		}
		if err := os.WriteFile(file, []byte(f.Text), 0o644); err != nil {
			errs = append(errs, err)
		}
	}
	nets := filepath.Join(run, "systemd/network")
	if err := os.MkdirAll(nets, 0o755); err != nil {
		errs = append(errs, err)
	}
	for i, c := range s.configs {
		name := "10-mica.network"
		if i > 0 {
			name = fmt.Sprintf("10-mica-%s.network", c.Interface)
		}
		if err := os.WriteFile(filepath.Join(nets, name), []byte(c.Networkd()), 0o644); err != nil {
			errs = append(errs, err)
		}
	}
	// The interface keeps the name under which it is in use.
	for _, c := range s.configs {
		text := fmt.Sprintf("%s\n[Match]\nMACAddress=%s\nType=ether\n\n[Link]\nNamePolicy=keep\nMACAddressPolicy=none\n", network.Marker, c.MAC)
		if err := os.WriteFile(filepath.Join(nets, "10-mica-"+c.Interface+".link"), []byte(text), 0o644); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("telling systemd about the boot: %w", err)
	}
	return nil
}
