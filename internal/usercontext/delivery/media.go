package delivery

import (
	"context"
	"fmt"
	"io"

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
	return []Kind{configDrive}
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

func (k Kind) tree(userData []byte, m Meta) ([]iso9660.File, error) {
	m, err := m.complete(userData)
	if err != nil {
		return nil, err
	}
	files, err := k.Files(userData, m)
	if err != nil {
		return nil, fmt.Errorf("making %s medium: %w", k.Name, err)
	}
	return files, nil
}
