package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
)

// kernel is what the rest asks of the running kernel.
type kernel interface {
	// node returns a device file of exactly that piece of the disk. A partition
	// that the kernel does not know yet is made known to it.
	node(ctx context.Context, disk, part Device) (string, error)
	// resize tells the kernel that a partition has another length.
	resize(disk, part Device) error
}

// linux is the real kernel.
type linux struct{ roots Roots }

const nodeWait = 10 * time.Second

func (k linux) node(ctx context.Context, disk, part Device) (string, error) {
	if part.Kind != Part {
		return part.Path, nil
	}
	if path := k.find(disk, part); path != "" {
		return path, nil
	}
	reread := k.control(disk, func(fd int) error { return unix.IoctlSetInt(fd, unix.BLKRRPART, 0) })
	if path := k.find(disk, part); path != "" {
		return path, nil
	}
	// The disk is in use, or this kernel was built without the reader of such
	// tables: name the one partition.
	add := k.partition(disk, part, unix.BLKPG_ADD_PARTITION)
	for deadline := time.Now().Add(nodeWait); add == nil && time.Now().Before(deadline); {
		if path := k.find(disk, part); path != "" {
			return path, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	path, err := k.loop(disk, part)
	if err != nil {
		return "", fail.New(fail.Failed, "no device file for %s: %w", part.title(), errors.Join(reread, add, err)).
			Hint("restart the machine: the partition table is written, and the kernel may see it then")
	}
	return path, nil
}

// find returns the device file of the partition that has the number, the start
// and the length of part.
func (k linux) find(disk, part Device) string {
	dir := filepath.Join(k.roots.sys(), "block", disk.Name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		if number(sub, "partition") != int64(part.Partition) || number(sub, "start")*512 != part.Start || number(sub, "size")*512 != part.Size {
			continue
		}
		path := filepath.Join(k.roots.dev(), e.Name())
		if f, err := openNode(path, sub); err == nil {
			_ = f.Close()
			return path
		}
	}
	return ""
}

func (k linux) control(disk Device, do func(fd int) error) error {
	f, err := os.OpenFile(disk.Path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", disk.Path, err)
	}
	defer f.Close()
	if err := do(int(f.Fd())); err != nil {
		return fmt.Errorf("telling the kernel about the partitions of %s: %w", disk.Path, err)
	}
	return nil
}

func (k linux) partition(disk, part Device, op int32) error {
	p := unix.BlkpgPartition{Start: part.Start, Length: part.Size, Pno: int32(part.Partition)}
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	return k.control(disk, func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return errno
		}
		return nil
	})
}

func (k linux) resize(disk, part Device) error {
	return k.partition(disk, part, unix.BLKPG_RESIZE_PARTITION)
}

// loop makes a loop device of the piece of the disk, for kernels that know no
// partitions on it at all.
func (k linux) loop(disk, part Device) (string, error) {
	backing, err := os.OpenFile(disk.Path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer backing.Close()
	control, err := os.OpenFile(filepath.Join(k.roots.dev(), "loop-control"), os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for range 8 { // another process may take the same number first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("finding a free loop device: %w", err)
		}
		path := filepath.Join(k.roots.dev(), "loop"+strconv.Itoa(n))
		f, err := openNodeForWriting(path, filepath.Join(k.roots.sys(), "block", "loop"+strconv.Itoa(n)))
		if err != nil {
			return "", err
		}
		err = unix.IoctlLoopConfigure(int(f.Fd()), &unix.LoopConfig{
			Fd: uint32(backing.Fd()), Size: uint32(part.Sector),
			Info: unix.LoopInfo64{Offset: uint64(part.Start), Sizelimit: uint64(part.Size)},
		})
		if err = errors.Join(err, f.Close()); err == nil {
			return path, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return "", fmt.Errorf("setting up %s: %w", path, err)
		}
	}
	return "", errors.New("all loop devices are taken")
}

func openNodeForWriting(path, dir string) (*os.File, error) {
	probe, err := openNode(path, dir)
	if err != nil {
		return nil, err
	}
	_ = probe.Close()
	return os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
}
