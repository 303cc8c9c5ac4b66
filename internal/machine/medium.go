package machine

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/micavm/mica/internal/usercontext/delivery"
)

// WriteMedium writes the ISO image that hands the guest its context and the
// list of its shared folders.
func WriteMedium(ctx context.Context, w io.Writer, s Spec, shares []delivery.Share) error {
	kind, err := delivery.Named(cmp.Or(s.Medium, "config-2"))
	if err != nil {
		return err
	}
	meta := delivery.Meta{InstanceID: s.ID, Hostname: s.Hostname(), PublicKeys: s.PublicKeys, Shares: shares}
	if err := delivery.WriteISO(ctx, w, kind, s.Context, meta); err != nil {
		return fmt.Errorf("writing the context's medium: %w", err)
	}
	return nil
}

// Shared is what a guest is told of its shared folders: the file system they
// are, and for each what the hypervisor calls it where its name has more than
// limit bytes.
func (s Spec) Shared(fileSystem string, limit int) []delivery.Share {
	var all []delivery.Share
	for n, share := range s.Shares {
		one := delivery.Share{Name: share.Name, Type: fileSystem, ReadOnly: share.ReadOnly}
		if tag := s.ShareTag(n, limit); tag != share.Name {
			one.Tag = tag
		}
		all = append(all, one)
	}
	return all
}

// ShareTag is what the hypervisor calls the share number n.
func (s Spec) ShareTag(n, limit int) string {
	if len(s.Shares[n].Name) > limit {
		return "share" + strconv.Itoa(n)
	}
	return s.Shares[n].Name
}
