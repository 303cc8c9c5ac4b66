package publish

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/history"
)

// ResignOptions say what Resign does; Storage, Name and Keys are needed.
type ResignOptions struct {
	Storage, Name, Keys string
	Lifetime            time.Duration // 0 means DefaultWhitelistLifetime
	Now                 func() time.Time
}

// Resign writes a new whitelist for the present certificate, with the master
// key, and returns it. If the repository key and certificate have been replaced
// the manifest is signed with them too; readers accept it at every moment, as
// the whitelist lists both certificates until the new manifest is there.
func Resign(ctx context.Context, o ResignOptions) (*cvmfs.Whitelist, error) {
	w, err := resign(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("signing whitelist of %q: %w", o.Name, err)
	}
	return w, nil
}

func resign(ctx context.Context, o ResignOptions) (*cvmfs.Whitelist, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lifetime == 0 {
		o.Lifetime = DefaultWhitelistLifetime
	}
	t, err := begin(ctx, o.Storage, o.Name, o.Keys, o.Now, cvmfs.MD5)
	if err != nil {
		return nil, err
	}
	defer t.end()
	now := t.keys.fingerprint()
	published, err := t.s.read(ctx, t.head.Certificate, cvmfs.SuffixCertificate, maxSmall)
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	old := (&Keys{Certificate: published}).fingerprint()
	if old != now {
		if err := t.renewWhitelist(ctx, o.Lifetime, now, old); err != nil {
			return nil, err
		}
		next := *t.head
		next.Certificate = cvmfs.Hash{} // differs from head, so that commit does not leave it
		if err := t.commit(ctx, next, &Result{}); err != nil {
			return nil, err
		}
	}
	if err := t.renewWhitelist(ctx, o.Lifetime, now); err != nil {
		return nil, err
	}
	return t.whitelist, nil
}

// TagOptions say what EditTags does; Storage, Name and Keys are needed.
type TagOptions struct {
	Storage, Name, Keys string
	Set                 string // name to set on the published revision
	Description         string
	Remove              []string
	Now                 func() time.Time
}

// EditTags removes tags and sets one on the published revision. Readers that
// are pinned to a removed tag keep working until garbage is collected. Errors
// wrap ErrNoTag or ErrExists besides those of Publish.
func EditTags(ctx context.Context, o TagOptions) error {
	if err := editTags(ctx, o); err != nil {
		return fmt.Errorf("editing tags of %q: %w", o.Name, err)
	}
	return nil
}

func editTags(ctx context.Context, o TagOptions) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	trunk := func(name string) bool { return name == history.Trunk || name == history.TrunkPrevious }
	if trunk(o.Set) || slices.ContainsFunc(o.Remove, trunk) {
		return fmt.Errorf("%s and %s are kept by every publication: %w", history.Trunk, history.TrunkPrevious, ErrExists)
	}
	if o.Set != "" {
		if err := history.CheckTagName(o.Set); err != nil {
			return err
		}
	}
	t, err := begin(ctx, o.Storage, o.Name, o.Keys, o.Now, cvmfs.MD5)
	if err != nil {
		return err
	}
	defer t.end()
	for _, name := range o.Remove {
		if !t.removeTag(name) {
			return fmt.Errorf("%q: %w", name, ErrNoTag)
		}
	}
	if o.Set != "" {
		if old, exists := t.tag(o.Set); exists {
			return fmt.Errorf("tag %q, of revision %d: %w", o.Set, old.Revision, ErrExists)
		}
		t.setTag(history.Tag{Name: o.Set, Hash: t.head.RootHash, Revision: t.head.Revision, Time: t.now, Description: o.Description, Size: t.head.RootSize})
	}
	return t.commit(ctx, *t.head, &Result{})
}
