package machine

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// AddShares gives a machine that is off more shared folders, and returns all it
// has then.
func (f *Fleet) AddShares(ctx context.Context, name string, more []Share) ([]Share, error) {
	return f.setShares(ctx, name, func(h *held) ([]Share, error) {
		for _, one := range more {
			if slices.ContainsFunc(h.spec().Shares, func(o Share) bool { return o.Name == one.Name }) {
				return nil, fail.New(fail.Conflict, "%q has a shared folder named %q already", name, one.Name).
					Hint("'mica share remove %s %s' first, or write NAME=FOLDER with another name", name, one.Name)
			}
		}
		// Those it has already may be gone for the moment, and are no reason to
		// refuse another.
		added := h.spec()
		added.Shares = more
		report, err := probe(ctx, h.driver, added)
		if err != nil {
			return nil, err
		}
		if err := report.Supports(added); err != nil {
			return nil, err
		}
		if err := f.checkShares(more); err != nil {
			return nil, err
		}
		if c, ok := h.driver.(Checker); ok {
			if err := c.Check(ctx, added); err != nil {
				return nil, err
			}
		}
		return slices.Concat(h.spec().Shares, more), nil
	})
}

// RemoveShares takes shared folders, by their names, away from a machine that is
// off, and returns those it has still.
func (f *Fleet) RemoveShares(ctx context.Context, name string, shares []string) ([]Share, error) {
	return f.setShares(ctx, name, func(h *held) ([]Share, error) {
		left := slices.Clone(h.spec().Shares)
		for _, one := range shares {
			i := slices.IndexFunc(left, func(o Share) bool { return o.Name == one })
			if i < 0 {
				return nil, fail.New(fail.NotFound, "%q has no shared folder named %q", name, one).
					Hint("'mica share list %s' shows those it has", name)
			}
			left = slices.Delete(left, i, i+1)
		}
		return left, nil
	})
}

// setShares changes the shared folders as any other change of a machine that is
// off: killed half way, it is finished by whoever comes next.
func (f *Fleet) setShares(ctx context.Context, name string, edit func(*held) ([]Share, error)) ([]Share, error) {
	var shares []Share
	_, err := f.change(ctx, name, DoShare, func(h *held) error {
		to := h.spec()
		var err error
		if to.Shares, err = edit(h); err != nil {
			return err
		}
		if err := to.Validate(); err != nil {
			return err
		}
		shares = to.Shares
		if slices.Equal(shares, h.spec().Shares) {
			return nil
		}
		return f.become(ctx, h, to)
	})
	return shares, err
}

// checkShares refuses folders that would give a guest more than anyone can have
// meant.
func (f *Fleet) checkShares(shares []Share) error {
	home := f.realHome()
	for _, s := range shares {
		switch {
		case filepath.Dir(s.Path) == s.Path:
			return fail.New(fail.Usage, "the root of this computer cannot be a shared folder").
				Hint("share the folder that the machine needs")
		case below(home, s.Path):
			return fail.New(fail.Usage, "%q is in mica's own folder %s, with the disks and keys of machines", s.Path, home).
				Hint("share another folder")
		}
	}
	return nil
}

// realHome is the home without symbolic links.
func (f *Fleet) realHome() string {
	if real, err := filepath.EvalSymlinks(string(f.Home)); err == nil {
		return real
	}
	return string(f.Home)
}

// below reports whether path is dir or below it.
func below(dir, path string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && rest != ".." && !strings.HasPrefix(rest, ".."+string(filepath.Separator))
}
