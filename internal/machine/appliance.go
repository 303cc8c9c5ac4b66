package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/progress"
)

// appliance is an OVA file that a machine is made of.
type appliance struct {
	path string
	ova  *ova.Appliance
	disk ova.Disk
}

// Appliance says in the order that the machine's image is the disk of the
// appliance in the file at path, which has been opened.
func (o *Order) Appliance(a *ova.Appliance, path string) error {
	disk, err := ApplianceDisk(a, path)
	if err != nil {
		return err
	}
	o.appliance = &appliance{path, a, disk}
	o.Spec.Image = Image{Path: path, Format: disk.Format}
	return nil
}

// Sizes gives the machine the appliance's own sizes, those that the user chose
// excepted: chosen is asked for memory, cpus and disk.
func (o *Order) Sizes(a *ova.Appliance, chosen func(name string) bool) {
	if a.MemoryMiB > 0 && !chosen("memory") {
		o.Spec.MemoryMiB = max(a.MemoryMiB, minMemoryMiB)
	}
	if a.CPUs > 0 && !chosen("cpus") {
		o.Spec.CPUs = min(a.CPUs, maxCPUs)
	}
	if capacity := a.Disks[0].Capacity; capacity > 0 && !chosen("disk") {
		o.Spec.DiskMiB = max((capacity+mebi-1)/mebi, minDiskMiB)
	}
}

// ApplianceDisk returns the disk of an appliance that has one, with its format.
func ApplianceDisk(a *ova.Appliance, path string) (ova.Disk, error) {
	if len(a.Disks) != 1 {
		return ova.Disk{}, fail.New(fail.Usage, "appliance %s has %d disks; one with one disk can be imported", path, len(a.Disks))
	}
	disk := a.Disks[0]
	if disk.Format == "" {
		disk.Format = formatVMDK
	}
	return disk, nil
}

func (a *appliance) unpack(ctx context.Context, s Spec, sink progress.Sink) (Image, error) {
	// Read-only, so that a driver makes its own copy: clones begin with this one.
	return UnpackDisk(ctx, a.ova, a.disk, a.path, s.ImagePath(), 0o400, sink)
}

// UnpackDisk writes the disk of the appliance from to the file at path, all of
// it or nothing, verified against the appliance's manifest if it has one.
func UnpackDisk(ctx context.Context, a *ova.Appliance, disk ova.Disk, from, path string, perm fs.FileMode, sink progress.Sink) (Image, error) {
	dst, err := atomicfile.Create(path, perm)
	if err != nil {
		return Image{}, err
	}
	defer dst.Close() //nolint:errcheck // Commit reports
	h := sha256.New()
	count := &counter{sink: progress.Or(sink), id: filepath.Base(from), total: disk.Size}
	if err := a.Extract(ctx, disk, io.MultiWriter(dst, h, count)); err != nil {
		return Image{}, noSpace(err)
	}
	count.end()
	if err := CheckDiskImage(dst.Name(), disk.Format); err != nil {
		return Image{}, fail.New(fail.Unverified, "appliance %s: disk %s: %w", from, disk.File, err)
	}
	return Image{
		Format: disk.Format, Path: from, SHA256: hex.EncodeToString(h.Sum(nil)), Size: count.done, Verified: a.Manifest,
	}, dst.Commit()
}

// counter tells how far a copy is.
type counter struct {
	sink              progress.Sink
	id                string
	done, told, total int64
}

func (c *counter) Write(p []byte) (int, error) {
	const often = 4 << 20
	c.done += int64(len(p))
	if c.done-c.told >= often || c.told == 0 {
		c.told = c.done
		c.emit("unpacking", false)
	}
	return len(p), nil
}

func (c *counter) end() { c.emit("unpacked", true) }

func (c *counter) emit(phase string, finished bool) {
	c.sink.Emit(progress.Event{ID: c.id, Phase: phase, Done: c.done, Total: max(c.total, c.done), Unit: progress.Bytes, Finished: finished})
}

var noName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// ApplianceName makes a machine's name of an appliance's own, or of its file's.
func ApplianceName(a *ova.Appliance, path string) string {
	for _, text := range []string{a.Name, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))} {
		name := strings.Trim(noName.ReplaceAllString(strings.TrimSpace(text), "-"), "-_.")
		if len(name) > maxName {
			name = strings.TrimRight(name[:maxName], "-_.")
		}
		if CheckName(name) == nil {
			return name
		}
	}
	return ""
}
