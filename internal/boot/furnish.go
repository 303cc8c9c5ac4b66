package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/disk"
)

// furnish does everything on UROOT that is not the file system itself. None of
// it is worth stopping a boot for.
func (s *state) furnish(ctx context.Context, _ *report) error {
	var errs []error
	if s.keep {
		errs = append(errs, s.keepContext())
	}
	errs = append(errs, reserve(s.rw("aux/safety")))
	if !s.uroot.RAM {
		grown, err := disk.ResizeIfAsked(ctx, s.rw(), s.uroot.Device, s.diskTools(), s.log)
		if err != nil {
			errs = append(errs, err)
		} else if grown.Asked {
			s.rec.note("enlarged the disk from %d to %d MB", grown.From/1e6, grown.To/1e6)
			s.uroot.Size = grown.To
		}
	}
	errs = append(errs, s.swap())
	if _, err := os.Stat(s.rw("aux/busybox")); errors.Is(err, fs.ErrNotExist) {
		// Compat: hooks of the operating system talk to the repository's socket with
		// it (cernvm-config: dhclient.d/cvmfs-micro.sh).
		if _, err := os.Stat(filepath.Join(runDir, "bin/busybox")); err == nil {
			errs = append(errs, copyFile(filepath.Join(runDir, "bin/busybox"), s.rw("aux/busybox"), 0o755))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return warned(err)
	}
	return nil
}

// reserve keeps 50 MiB and 127 inodes back, which an administrator can delete on
// a disk that is full. Compat: names and sizes.
func reserve(dir string) error {
	const size = 50 << 20
	file := filepath.Join(dir, "50m")
	if fi, err := os.Stat(file); err == nil && fi.Size() == size {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("reserving space: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(file)
		return fmt.Errorf("reserving space: %w", err)
	}
	for i := 1; i <= 127; i++ {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("inode_spacer%d", i)), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("reserving inodes: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("reserving inodes: %w", err)
		}
	}
	return nil
}

// swap activates the swap file of UROOT, made if the context gives it a size.
//
// Compat: an existing swap file is always used (cernvm-config: S35swap.sh).
func (s *state) swap() error {
	if s.uroot.RAM {
		return nil
	}
	size, err := disk.Swap{Size: s.keys.SwapSize, CPUs: runtime.NumCPU()}.Enable(s.rw())
	if err != nil || size > 0 {
		return err
	}
	file := s.rw(disk.SwapFile)
	if _, err := os.Stat(file); err != nil || strings.EqualFold(s.keys.SwapSize, "off") {
		return nil // no file, no swap
	}
	name, err := unix.BytePtrFromString(file)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(name)), 0, 0)
	if errno != 0 && errno != unix.EBUSY {
		return fmt.Errorf("turning on the swap file: %w", errno)
	}
	return nil
}
