package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Extra is context that is baked into a boot medium, besides what the platform
// hands in.
type Extra struct {
	UserData []byte   // overrides the keys of the other user data
	Pickup   []byte   // a tar.gz to be unpacked over the root, not checked yet
	Origins  []string // devices it came from
}

// FindExtra reads cernvm/extra-user-data and cernvm/pickup.tar.gz from the boot
// partitions. User data of several is put together, with a line break between;
// of archives the last counts. A device that cannot be read is logged.
//
// Differs: the original took them from any partition of any disk, and unpacked
// them as root (cernvm-micro: scripts.d/07extracontext).
func FindExtra(ctx context.Context, env Env) (Extra, error) {
	s := newSearch(env)
	var out Extra
	if s.Mounter == nil {
		return out, nil
	}
	for _, d := range s.Devices {
		if !d.Boot || d.Type == "" {
			continue
		}
		one, err := s.readExtra(ctx, d)
		if ctx.Err() != nil {
			return Extra{}, context.Cause(ctx)
		}
		if err != nil {
			s.Log.Warn("extra context not read", "device", d.Path, "error", err)
			continue
		}
		if one.UserData == nil && one.Pickup == nil {
			continue
		}
		out.Origins = append(out.Origins, d.Path)
		out.UserData = joined(out.UserData, one.UserData)
		if one.Pickup != nil {
			out.Pickup = one.Pickup
		}
	}
	if len(out.UserData) > MaxUserData {
		return Extra{}, fmt.Errorf("the extra user data of %d boot partitions: %w", len(out.Origins), errTooLarge)
	}
	return out, nil
}

func (s *search) readExtra(ctx context.Context, d Device) (e Extra, err error) {
	files, done, err := s.Mounter.Mount(ctx, d)
	if err != nil {
		return Extra{}, err
	}
	defer func() { err = errors.Join(err, done()) }()
	read := func(name string, limit int) ([]byte, error) {
		data, err := readFile(files, "cernvm/"+name, limit)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		return data, nil
	}
	if e.UserData, err = read("extra-user-data", MaxUserData); err != nil {
		return Extra{}, err
	}
	if bytes.HasPrefix(bytes.TrimLeft(e.UserData, " \t\r\n"), []byte("#!")) {
		return Extra{}, errors.New("extra-user-data begins with a script, which nothing would run")
	}
	e.Pickup, err = read("pickup.tar.gz", maxPickup)
	return e, err
}

// joined puts a line break between two texts that lack one.
func joined(a, b []byte) []byte {
	if len(a) > 0 && a[len(a)-1] != '\n' && len(b) > 0 {
		a = append(a, '\n')
	}
	return append(a, b...)
}
