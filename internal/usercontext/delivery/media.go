package delivery

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/fat"
	"github.com/micavm/mica/internal/iso9660"
)

// Kind is one layout of a context medium.
type Kind struct {
	Name  string
	Label string // of the volume, as the consumers look for it
	Files func(userData []byte, m Meta) ([]iso9660.File, error)
}

// Kinds returns every layout, in the order in which a guest prefers them.
func Kinds() []Kind {
	return []Kind{configDrive, openNebula, vSphere, azure, noCloud}
}

// Named returns the layout of that name.
func Named(name string) (Kind, error) {
	var known []string
	for _, k := range Kinds() {
		if k.Name == name {
			return k, nil
		}
		known = append(known, k.Name)
	}
	return Kind{}, fail.New(fail.Usage, "unknown kind of context medium %q", name).Hint("known kinds: %s", strings.Join(known, ", "))
}

// ConfigDrive writes a config drive, version 2, as an ISO 9660 image labelled
// CONFIG-2: the trees of OpenStack and EC2 side by side, as libcernvm's
// context image has them.
func ConfigDrive(ctx context.Context, w io.Writer, userData []byte, m Meta) error {
	return WriteISO(ctx, w, configDrive, userData, m)
}

// WriteISO writes a medium of that kind as an ISO 9660 image.
func WriteISO(ctx context.Context, w io.Writer, k Kind, userData []byte, m Meta) error {
	files, err := k.tree(userData, m)
	if err != nil {
		return err
	}
	v := iso9660.Volume{Label: k.Label, Files: files, RockRidge: true, Joliet: true}
	if err := iso9660.Write(ctx, w, v); err != nil {
		return fmt.Errorf("writing %s medium: %w", k.Name, err)
	}
	return nil
}

// WriteFAT writes a medium of that kind as a FAT file system without a
// partition table, for guests without a CD drive: the size of a 1.44 MB floppy
// disk, or of a larger one where the context needs it.
func WriteFAT(w io.Writer, k Kind, userData []byte, m Meta) error {
	files, err := k.tree(userData, m)
	if err != nil {
		return err
	}
	v := fat.Volume{Label: k.Label}
	for _, f := range files {
		data, err := content(f)
		if err != nil {
			return fmt.Errorf("making %s medium: %w", k.Name, err)
		}
		v.Files = append(v.Files, fat.File{Path: f.Path, Data: data})
	}
	if err := fat.Write(w, v); err != nil {
		return fmt.Errorf("writing %s medium: %w", k.Name, err)
	}
	return nil
}

func content(f iso9660.File) ([]byte, error) {
	if f.Open == nil {
		return nil, nil
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (k Kind) tree(userData []byte, m Meta) ([]iso9660.File, error) {
	m, err := m.Complete(userData)
	if err != nil {
		return nil, err
	}
	files, err := k.Files(userData, m)
	if err != nil {
		return nil, fmt.Errorf("making %s medium: %w", k.Name, err)
	}
	return files, nil
}
