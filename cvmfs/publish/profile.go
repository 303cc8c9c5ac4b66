package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
)

// ProfileOptions say what AttachProfile does; all but Now are needed.
type ProfileOptions struct {
	Storage, Name, Keys string
	Now                 func() time.Time
}

// AttachProfile signs a profile with the repository's key and puts it beside the
// manifest, in place of one that is there. Objects that the repository does not
// have are left out of it; missing says how many. The profile stays when another
// revision is published: what both have is fetched ahead all the same.
func AttachProfile(ctx context.Context, o ProfileOptions, p *profile.Profile) (missing int, err error) {
	missing, err = attachProfile(ctx, o, p)
	if err != nil {
		return 0, fmt.Errorf("attaching a profile to %q: %w", o.Name, err)
	}
	return missing, nil
}

func attachProfile(ctx context.Context, o ProfileOptions, p *profile.Profile) (int, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if p.Repository != o.Name {
		return 0, fmt.Errorf("profile of %q: %w", p.Repository, cvmfs.ErrWrongName)
	}
	t, err := begin(ctx, o.Storage, o.Name, o.Keys, o.Now, cvmfs.MD5)
	if err != nil {
		return 0, err
	}
	defer t.end()
	published, err := t.s.read(ctx, t.head.Certificate, cvmfs.SuffixCertificate, maxSmall)
	if err != nil {
		return 0, fmt.Errorf("reading certificate: %w", err)
	}
	if (&Keys{Certificate: published}).fingerprint() != t.keys.fingerprint() {
		return 0, fmt.Errorf("%w: the manifest is signed with another key; sign the repository again first", ErrKeys)
	}
	kept, err := t.present(ctx, p.Objects)
	if err != nil {
		return 0, err
	}
	signing := *p
	signing.Objects = kept
	data, err := cvmfs.SignText(signing.Text(), t.head.RootHash.Algorithm, t.keys.Repository)
	if err != nil {
		return 0, err
	}
	if len(data) > profile.MaxSize {
		return 0, fmt.Errorf("a profile of %d bytes, %d is the most: %w", len(data), profile.MaxSize, cvmfs.ErrMalformed)
	}
	return len(p.Objects) - len(kept), t.s.store.Replace(ctx, profile.Name, data)
}

// present returns those of the objects that the repository has, in order.
func (t *transaction) present(ctx context.Context, objects []profile.Object) ([]profile.Object, error) {
	there := make([]bool, len(objects))
	var group errgroup.Group
	group.SetLimit(t.s.store.Parallel())
	for i, o := range objects {
		group.Go(func() error {
			_, err := t.s.store.Stat(ctx, o.Path())
			if there[i] = err == nil; errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var kept []profile.Object
	for i, o := range objects {
		if there[i] {
			kept = append(kept, o)
		}
	}
	return kept, nil
}
