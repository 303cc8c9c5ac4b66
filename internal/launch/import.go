package launch

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/ova"
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
	disk, err := machine.ApplianceDisk(a, path)
	if err != nil {
		return err
	}
	if !a.Manifest {
		s.tell("note: %s has no manifest: its disk is not verified", path)
	}
	r.values[micaFormat] = disk.Format
	image, err := machine.UnpackDisk(ctx, a, disk, path, r.spec().ImagePath(), 0o600, s.Progress)
	if err != nil {
		return err
	}
	r.setImage(image)
	if r.values[keyVersion] = strings.Join(strings.Fields(a.Name), " "); r.values[keyVersion] == "" {
		r.values[keyVersion] = filepath.Base(path)
	}
	return nil
}
