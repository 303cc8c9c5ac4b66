package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/boot/inject"
)

// Markers in context/ that an archive was unpacked.
const (
	markInjected = "injected"
	markPickedUp = "picked-up"
)

// injectFiles unpacks what the context carries for the operating system's root,
// once: the archive of cernvm_inject, and the pickup archive of the boot medium. A
// failure is reported and tried again on the next boot.
func injectFiles(_ context.Context, s *state, r *report) error {
	pickup, err := os.ReadFile(s.rw("context/pickup.tar.gz"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the archive of the boot medium: %w", err)
	}
	var errs []error
	done, files := 0, 0
	for _, a := range []struct {
		marker string
		data   []byte
	}{{markPickedUp, pickup}, {markInjected, s.keys.Inject}} {
		if len(a.data) == 0 {
			continue
		}
		marker := s.rw("context", a.marker)
		if _, err := os.Stat(marker); err == nil {
			continue
		}
		n, err := inject.Unpack(targetRoot, a.data)
		if err == nil {
			done++
			files += n
			err = atomicfile.Write(marker, nil, 0o600)
		}
		errs = append(errs, err)
	}
	if len(s.extra.UserData) > 0 {
		errs = append(errs, s.showExtra())
	}
	switch err := errors.Join(errs...); {
	case err != nil:
		return err
	case done == 0:
		return skipped("nothing to inject, or done on an earlier boot")
	}
	r.say("%d files", files)
	return nil
}

// showExtra puts the boot medium's user data where the context agent of an
// original system looks for it.
func (s *state) showExtra() error {
	file, err := inside(targetRoot, "cernvm/extra-user-data")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("writing the extra user data: %w", err)
	}
	return atomicfile.Write(file, s.extra.UserData, 0o600)
}
