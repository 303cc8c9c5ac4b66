package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// keysFile holds the public keys that may log in besides the machine's own.
const keysFile = "authorized_keys"

// Clone makes a machine like one that is off: the same sizes, image, context
// and content of the disk, with an identity and a key pair of its own. Ports
// that were named become automatic ones: two machines cannot have the same. The
// clone is off.
func (f *Fleet) Clone(ctx context.Context, name, to string, labels []string) (*Record, error) {
	if err := CheckName(to); err != nil {
		return nil, err
	}
	var clone *Record
	_, err := f.change(ctx, name, DoClone, func(h *held) error {
		cloner, ok := h.driver.(Cloner)
		if !ok {
			return fail.New(fail.Usage, "driver %q clones no machines", h.spec().Driver)
		}
		o, err := f.orderLike(h, to, labels)
		if err != nil {
			return err
		}
		clone, err = f.build(ctx, o, h.driver, h.spec().ImagePath(), func(s Spec) (Instance, error) { return cloner.Clone(ctx, h.Instance, s) })
		return err
	})
	return clone, err
}

// orderLike orders a machine like the one that is held.
func (f *Fleet) orderLike(h *held, name string, labels []string) (Order, error) {
	s := h.spec()
	if err := handed(&s); err != nil {
		return Order{}, fmt.Errorf("cloning %q: %w", s.Name, err)
	}
	s.Name = name
	s.Disks = slices.DeleteFunc(slices.Clone(s.Disks), func(d Disk) bool {
		if d.Path == "" || d.ReadOnly {
			return false
		}
		f.say("%s does not get your disk %s, which %s keeps", name, d.Path, h.spec().Name)
		return true
	})
	if len(labels) > 0 {
		s.Labels = labels
	}
	s.Forwards = nil
	for _, fwd := range h.spec().Forwards {
		s.Forwards = append(s.Forwards, Forward{Guest: fwd.Guest, Auto: true})
	}
	return Order{Spec: s, ContextFrom: h.Context, User: h.User, AllowLarge: true, Off: true}, s.Validate()
}

// handed fills in what the guest was handed when it was made, its own key
// excepted.
func handed(s *Spec) error {
	data, err := os.ReadFile(s.Path(contextFile))
	if err != nil {
		return err
	}
	keys, err := os.ReadFile(s.Path(keysFile))
	if err != nil && !notThere(err) {
		return err
	}
	s.Context, s.PublicKeys = data, lines(keys)
	return nil
}

func lines(data []byte) []string {
	var all []string
	for line := range bytes.Lines(data) {
		if text := strings.TrimSpace(string(line)); text != "" {
			all = append(all, text)
		}
	}
	return all
}
