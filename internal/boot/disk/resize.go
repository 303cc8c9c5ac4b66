package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/fail"
)

// ResizeFlag is the file below UROOT that asks for a resize at the next boot.
//
// Compat: cernvm-micro: scripts.d/10root removes the flag even when the resize
// failed. Differs: it stays, with a count, and is given up after three failures.
const (
	ResizeFlag = "aux/resize"
	maxTries   = 3
)

// Grown is what a resize did.
type Grown struct {
	Asked    bool  // the flag was there
	From, To int64 // bytes of the partition; equal if it was as large as can be
}

// ResizeIfAsked grows UROOT if its flag file is there: the partition to the end
// of the disk, then the file system. root is where device is mounted; both grow
// while it is. The flag goes away only when all of it worked.
func ResizeIfAsked(ctx context.Context, root, device string, tools Tools, log *slog.Logger) (Grown, error) {
	flag := filepath.Join(root, ResizeFlag)
	data, err := os.ReadFile(flag)
	if errors.Is(err, fs.ErrNotExist) {
		return Grown{}, nil
	}
	if err != nil {
		return Grown{}, fmt.Errorf("reading the resize flag: %w", err)
	}
	tries, _ := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(string(data)), "failures="))
	if tries >= maxTries {
		return Grown{Asked: true}, fail.New(fail.Failed, "UROOT is not resized: it failed %d times", tries).
			Hint("see the boot log for the reason, then run: touch %s", flag)
	}
	grown, err := Resize(ctx, device, tools, log)
	grown.Asked = true
	if err != nil {
		note := atomicfile.Write(flag, fmt.Appendf(nil, "failures=%d\n", tries+1), 0o600)
		return grown, errors.Join(err, note)
	}
	if err := os.Remove(flag); err != nil {
		return grown, fmt.Errorf("removing the resize flag: %w", err)
	}
	return grown, nil
}

// Resize grows the partition that device is to the end of its disk, if no other
// follows it, and the file system with it. The file system may be mounted.
func Resize(ctx context.Context, device string, tools Tools, log *slog.Logger) (Grown, error) {
	w := newWorker(tools, log)
	d, p, err := locate(w.Roots, device)
	if err != nil {
		return Grown{}, err
	}
	return w.grow(ctx, d, p)
}

// locate finds a partition and its disk in sysfs, by the name of its device
// file.
func locate(roots Roots, device string) (disk, part Device, err error) {
	path, err := filepath.EvalSymlinks(device)
	if err != nil {
		return disk, part, fmt.Errorf("looking for %s: %w", device, err)
	}
	name := filepath.Base(path)
	if dir := filepath.Join(roots.sys(), "block", name); number(dir, "size") > 0 {
		d := Device{Name: name, Path: path, Kind: Disk, Size: number(dir, "size") * 512}
		return d, d, nil
	}
	disks, err := os.ReadDir(filepath.Join(roots.sys(), "block"))
	if err != nil {
		return disk, part, fmt.Errorf("listing block devices: %w", err)
	}
	for _, e := range disks {
		dir := filepath.Join(roots.sys(), "block", e.Name())
		d := Device{
			Name: e.Name(), Path: filepath.Join(roots.dev(), e.Name()), Kind: Disk,
			Size: number(dir, "size") * 512, Sector: number(dir, "queue/logical_block_size"),
		}
		for _, p := range partitions(roots, dir, d, nil) {
			if p.Name == name {
				return d, p, nil
			}
		}
	}
	return disk, part, fmt.Errorf("%s is neither a disk nor a partition", device)
}

func (w *worker) grow(ctx context.Context, d, p Device) (Grown, error) {
	grown := Grown{From: p.Size, To: p.Size}
	if p.Kind == Part {
		f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_CLOEXEC, 0) // not exclusively: it is mounted
		if err != nil {
			return grown, fmt.Errorf("opening the disk of UROOT: %w", err)
		}
		to, err := w.growPartition(f, d, p)
		if err = errors.Join(err, f.Close()); err != nil {
			return grown, err
		}
		if to != p.Size {
			bigger := p
			bigger.Size = to
			if err := w.kernel.resize(d, bigger); err != nil {
				return grown, err
			}
			grown.To = to
		}
	}
	return grown, w.growFilesystem(ctx, p.Path)
}

// growPartition changes the table and returns the new length in bytes, which is
// the old one if there is nothing to gain.
func (w *worker) growPartition(f *os.File, d, p Device) (int64, error) {
	t, err := gpt.Read(f, d.Size, d.Sector)
	if err != nil {
		return 0, fmt.Errorf("reading the partition table of %s: %w", d.Path, err)
	}
	e, ok := t.Entry(p.Partition)
	if !ok || e.Start*d.Sector != p.Start {
		return 0, fmt.Errorf("the partition table of %s does not list %s", d.Path, p.Path)
	}
	if !t.IsLast(p.Partition) {
		return 0, fail.New(fail.Conflict, "%s cannot grow: another partition follows it", p.Path).
			Hint("attach a larger disk instead, or delete the partitions behind it")
	}
	if t.Scheme == gpt.GPT {
		if t, err = t.Relocated(d.Size); err != nil {
			return 0, fmt.Errorf("moving the backup partition table of %s: %w", d.Path, err)
		}
	}
	align := mib / d.Sector
	var end int64
	for _, free := range t.Free(d.Size/d.Sector, align) {
		if free.Start <= (e.End()+align-1)/align*align {
			end = max(end, free.Start+free.Sectors)
		}
	}
	if end <= e.End() {
		return p.Size, nil
	}
	if t.Scheme == gpt.MBR {
		return (end - e.Start) * d.Sector, w.growMBR(f, d, e, end-e.Start)
	}
	if t, err = t.Resize(p.Partition, end-e.Start); err != nil {
		return 0, err
	}
	if err := w.write(f, t.Backup()...); err != nil {
		return 0, err
	}
	return (end - e.Start) * d.Sector, w.write(f, t.Primary()...)
}

func (w *worker) growMBR(f *os.File, d Device, e gpt.Entry, sectors int64) error {
	boot := make([]byte, d.Sector)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, d.Sector), boot); err != nil {
		return fmt.Errorf("reading the MBR of %s: %w", d.Path, err)
	}
	boot, err := gpt.ResizeMBR(boot, e.Number, sectors)
	if err != nil {
		return err
	}
	return w.write(f, gpt.Write{Data: boot, What: "MBR"})
}

// growFilesystem grows it online if it is mounted; if not, resize2fs wants a
// full check first.
func (w *worker) growFilesystem(ctx context.Context, path string) error {
	if err := w.before("resize2fs"); err != nil {
		return err
	}
	if f, err := openExclusive(path); err == nil {
		if err := f.Close(); err != nil {
			return fmt.Errorf("closing %s: %w", path, err)
		}
		out, code, err := w.Exec(ctx, []string{or(w.FsckExt4, "e2fsck"), "-f", "-p", path})
		if err != nil || code > 1 {
			return fmt.Errorf("checking %s before it grows: code %d: %s: %w", path, code, strings.TrimSpace(string(out)), err)
		}
	}
	out, code, err := w.Exec(ctx, []string{or(w.Resize2fs, "resize2fs"), path})
	if err != nil {
		return fmt.Errorf("growing the file system on %s: %w", path, err)
	}
	if code != 0 {
		return fmt.Errorf("growing the file system on %s: resize2fs code %d: %s", path, code, strings.TrimSpace(string(out)))
	}
	return nil
}
