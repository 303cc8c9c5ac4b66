package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// What the VirtualBox driver looks for in a machine's folder when it boots.
const (
	driverDisk   = "disk.vdi"
	driverConfig = "config.iso"
)

// legacyInstance is the instance id the original gave every machine. A machine
// keeps it, so that its system does not take itself for a new one.
const legacyInstance = "83679162-1378-4288-a2d4-70e13ec132aa"

// furnishLegacy gives a machine that the original made, or has used since, the
// files its driver looks for, each only if it is missing. Nothing of the machine
// is changed: the original finds its own files where they were.
func (s *session) furnishLegacy(ctx context.Context, h *held) error {
	spec := h.instance.Spec
	if spec.Driver != defaultDriver {
		return nil
	}
	flags, err := h.values.number(keyFlags, 0, allFlags)
	if err == nil && flags&flagOVA != 0 && h.values[micaImage] == "" {
		return fail.New(fail.Usage, "The machine %s was imported by the original cernvm-launch, which keeps its disk where the context belongs", h.name()).
			Hint("start it with 'VBoxManage startvm %s'; pause, stop, ssh and destroy work here", h.values[keyVBoxID]).
			Hint("or export it from VirtualBox, and import the OVA file")
	}
	if err := os.MkdirAll(h.folder(), 0o700); err != nil {
		return err
	}
	missing := func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	if disk := spec.Path(driverDisk); missing(disk) {
		found, others, err := scratchDisk(h.record)
		if err != nil {
			return err
		}
		if others > 0 {
			s.tell("note: the original left %d disks of %s in %s; the machine gets %s", others+1, h.name(), h.folder(), found)
		}
		if found != "" {
			if err := os.Symlink(found, disk); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	if config := spec.Path(driverConfig); missing(config) {
		s.tell("note: writing the context of %s anew", h.name())
		if err := s.writeContext(ctx, h, config); err != nil {
			return err
		}
	}
	if spec.Image.Format == "" && missing(spec.ImagePath()) {
		return s.oldImage(ctx, h)
	}
	return nil
}

// scratchDisk returns the name of the disk in the machine's folder that the
// original used last, and how many others there are: under VirtualBox 7 it made
// another one at each start. It noted what VirtualBox has, as older versions tell
// it; without that the disk that was written last is the one.
func scratchDisk(r *record) (name string, others int, err error) {
	entries, err := os.ReadDir(r.folder())
	if err != nil {
		return "", 0, err
	}
	attached, _, _ := strings.Cut(r.values[machineDisk], " (UUID: ")
	var written time.Time
	count, sure := 0, false
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "tmp") || !strings.EqualFold(filepath.Ext(e.Name()), ".vdi") {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return "", 0, err
		}
		count++
		if filepath.Join(r.folder(), e.Name()) == filepath.Clean(attached) {
			name, sure = e.Name(), true
		}
		if !sure && (name == "" || info.ModTime().After(written)) {
			name, written = e.Name(), info.ModTime()
		}
	}
	return name, max(count-1, 0), nil
}

func (s *session) writeContext(ctx context.Context, h *held, path string) error {
	id := h.id
	if h.values[micaImage] == "" {
		id = legacyInstance
	}
	f, err := atomicfile.Create(path, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // Commit reports
	meta := delivery.Meta{InstanceID: id, Hostname: h.instance.Spec.Hostname()}
	if err := delivery.ConfigDrive(ctx, f, []byte(h.values[keyUserData]), meta); err != nil {
		return fmt.Errorf("writing the context of %q: %w", h.name(), err)
	}
	return f.Commit()
}

// oldImage finds the ISO image that a machine boots, where the original kept it,
// or fetches it again.
func (s *session) oldImage(ctx context.Context, h *held) error {
	image := machine.Image{}
	err := fs.ErrNotExist
	for _, path := range []string{h.values[micaImage], h.values[localISO], h.values[keyISO]} {
		if path == "" {
			continue
		}
		if image, err = digestOf(ctx, path); err == nil {
			break
		}
	}
	flags, _ := h.values.number(keyFlags, 0, allFlags)
	if err != nil && flags&flagISO == 0 {
		image, err = s.microImage(ctx, h.values)
	}
	if err != nil {
		return fmt.Errorf("finding the boot image of %q: %w", h.name(), err)
	}
	if err := adopt(ctx, image, h.instance.Spec.ImagePath()); err != nil {
		return err
	}
	h.setImage(image)
	return h.save()
}
