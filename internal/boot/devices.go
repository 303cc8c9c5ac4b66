package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/usercontext/amiconfig"
)

// mountAPI mounts what even the first line of output needs. It may be called
// again: what is mounted stays.
func mountAPI() error {
	var errs []error
	for _, m := range []struct {
		point, fstype, data string
		flags               uintptr
	}{
		{"/proc", "proc", "", unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID},
		{"/sys", "sysfs", "", unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID},
		{"/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
	} {
		if err := os.Mkdir(m.point, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
		err := unix.Mount(m.fstype, m.point, m.fstype, m.flags, m.data)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m.point, err))
		}
	}
	return errors.Join(errs...)
}

// takeConsole puts the standard files of this process on the console: the kernel
// opened them on the initramfs's own device file, or not at all.
func takeConsole(dev string) error {
	f, err := os.OpenFile(filepath.Join(dev, "console"), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("opening the console: %w", err)
	}
	defer f.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: it is that very file
			return fmt.Errorf("taking the console: %w", err)
		}
	}
	return nil
}

// devices makes the rest of what programs expect, and puts this program where it
// will be found for the whole life of the machine: on a file system that moves
// along to the operating system.
func devices(_ context.Context, s *state, _ *report) error {
	errs := []error{mountAPI()}
	for _, dir := range []string{"/dev/pts", "/run", targetRoot, readWrite, readOnly, "/tmp", "/etc", "/bin", "/var/log"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			errs = append(errs, err)
		}
	}
	for _, m := range []struct {
		point, fstype, data string
		flags               uintptr
	}{
		{"/dev/pts", "devpts", "gid=5,mode=0620,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC},
		// Executable on purpose: the guest binary and the tools of the shutdown run
		// from here.
		{"/run", "tmpfs", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_STRICTATIME},
	} {
		if isMountPoint(m.point) {
			continue
		}
		if err := unix.Mount(m.fstype, m.point, m.fstype, m.flags, m.data); err != nil {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m.point, err))
		}
	}
	if err := os.Symlink("/proc/self/mounts", "/etc/mtab"); err != nil && !errors.Is(err, fs.ErrExist) {
		errs = append(errs, err)
	}
	if err := installSelf(s.self); err != nil {
		errs = append(errs, err)
	} else {
		s.self = guestFile
	}
	return errors.Join(errs...)
}

// installSelf copies the guest binary, and busybox for the shell and the
// shutdown, below /run/initramfs, with the names under which they are called.
func installSelf(self string) error {
	bin := filepath.Join(runDir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return fmt.Errorf("making the folder for the shutdown: %w", err)
	}
	if err := copyFile(self, guestFile, 0o755); err != nil {
		return err
	}
	for _, from := range []string{"/bin/busybox", "/sbin/busybox", "/usr/bin/busybox"} {
		if _, err := os.Stat(from); err == nil {
			if err := copyFile(from, filepath.Join(bin, "busybox"), 0o755); err != nil {
				return err
			}
			break
		}
	}
	links := map[string]string{
		filepath.Join(runDir, "shutdown"):         "bin/mica-guest",
		filepath.Join(bin, "reset_root_password"): "mica-guest",
		filepath.Join(bin, "sh"):                  "busybox",
	}
	for _, name := range amiconfig.Names() {
		links[filepath.Join(bin, name)] = "mica-guest"
	}
	for name, target := range links {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making the folder for the shutdown: %w", err)
		}
	}
	return nil
}

// copyFile copies a file unless the target is there with the same size: an
// earlier try of the stage made it.
func copyFile(from, to string, perm fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	defer in.Close()
	if a, err := in.Stat(); err == nil {
		if b, err := os.Stat(to); err == nil && a.Size() == b.Size() {
			return nil
		}
	}
	part := to + ".part"
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		_ = os.Remove(part)
		return fmt.Errorf("copying %s to %s: %w", from, to, err)
	}
	return nil
}

// isMountPoint reports whether a folder is the root of a mount.
func isMountPoint(dir string) bool {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev || here.Ino == above.Ino
}
