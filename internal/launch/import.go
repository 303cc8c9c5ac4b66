package launch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path/filepath"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/progress"
)

// unpackOVA copies the appliance's disk into the machine's folder. The machine
// then is like any other: its sizes are those of the configuration, its network
// and its folder are this computer's.
//
// Differs: the original has VirtualBox import the appliance into its own folder,
// with whatever it describes, adopts a machine that has the name already, and
// loses the scratch disk at each stop (libcernvm:
// src/Hypervisor/Virtualbox/VBoxSession.cpp).
func (s *session) unpackOVA(ctx context.Context, r *record) error {
	path := r.values[keyOVAPath]
	a, err := ova.Open(ctx, path)
	if err != nil {
		return err
	}
	if len(a.Disks) != 1 {
		return fail.New(fail.Usage, "appliance %s has %d disks; one with one disk can be imported", path, len(a.Disks))
	}
	disk := a.Disks[0]
	if !a.Manifest {
		s.tell("note: %s has no manifest: its disk is not verified", path)
	}
	format := disk.Format
	if format == "" {
		format = "vmdk"
	}
	r.values[micaFormat] = format
	spec := r.spec()
	dst, err := atomicfile.Create(spec.ImagePath(), 0o600)
	if err != nil {
		return err
	}
	defer dst.Close() //nolint:errcheck // Commit reports
	h := sha256.New()
	count := &counter{sink: progress.Or(s.Progress), id: filepath.Base(path), total: disk.Size}
	if err := a.Extract(ctx, disk, io.MultiWriter(dst, h, count)); err != nil {
		return err
	}
	count.end()
	if err := dst.Commit(); err != nil {
		return err
	}
	image := machine.Image{Format: format, Path: path, SHA256: hex.EncodeToString(h.Sum(nil)), Size: count.done, Verified: a.Manifest}
	if is, err := formatOf(spec.ImagePath()); err != nil || is != format {
		return fail.New(fail.Unverified, "appliance %s: disk %s is no %s image", path, disk.File, format)
	}
	r.setImage(image)
	if r.values[keyVersion] = strings.Join(strings.Fields(a.Name), " "); r.values[keyVersion] == "" {
		r.values[keyVersion] = filepath.Base(path)
	}
	return nil
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
