package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client/internal/transfer"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/slice"
)

// sliced is the content of a slice, to tell it from what a server sent.
type sliced struct{ *io.SectionReader }

// get gets a file of the repository from a slice that has it, else from a
// server. What is wrong with a slice's bytes a server may have right.
func (r *Repository) get(ctx context.Context, path string, accept transfer.Accept) (server string, err error) {
	if server, err = r.getSliced(ctx, path, accept); err == nil || errors.Is(err, errDiskFull) {
		return server, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("a slice is no good", "path", path, "err", err)
	}
	return r.net.Get(ctx, path, accept)
}

// getSliced is get without the servers.
func (r *Repository) getSliced(_ context.Context, path string, accept transfer.Accept) (string, error) {
	for _, s := range r.opt.Slices {
		if body, ok := s.Open(path); ok {
			return "slice", accept(sliced{body})
		}
	}
	return "", fs.ErrNotExist
}

// recorder remembers which objects were wanted, in order. A nil one does not.
type recorder struct {
	mu       sync.Mutex // guards the following
	limit    int
	seen     map[cvmfs.Hash]struct{}
	objects  []profile.Object
	external map[string]struct{} // paths
}

func newRecorder(limit int) *recorder {
	if limit <= 0 {
		return nil
	}
	return &recorder{limit: min(limit, profile.MaxObjects), seen: map[cvmfs.Hash]struct{}{}, external: map[string]struct{}{}}
}

func (r *recorder) add(w want) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.external {
		if len(r.external) < r.limit {
			r.external[w.path] = struct{}{}
		}
		return
	}
	if _, there := r.seen[w.hash]; there || len(r.objects) == r.limit {
		return
	}
	r.seen[w.hash] = struct{}{}
	r.objects = append(r.objects, profile.Object{Hash: w.hash, Suffix: w.suffix, Compression: w.compression, Size: w.size})
}

// Recorded returns what was wanted so far, whether it was in the cache or not,
// as far as Options.Record reaches; without it, an empty list. Of external files
// it has the number alone.
func (r *Repository) Recorded() *profile.Profile {
	p := &profile.Profile{Repository: r.opt.Name, Root: r.RootHash(), Recorded: r.opt.Now().UTC().Truncate(time.Second)}
	if r.record != nil {
		r.record.mu.Lock()
		defer r.record.mu.Unlock()
		p.Objects = append(p.Objects, r.record.objects...)
		p.External = len(r.record.external)
	}
	return p
}

// Profile fetches the profile that lies beside the manifest, and checks that
// the certificate that signed the manifest has signed it too. It fails with
// fs.ErrNotExist where there is none. A repository pinned to a root hash that
// has seen no manifest knows no certificate: [cvmfs.ErrUntrusted].
func (r *Repository) Profile(ctx context.Context) (*profile.Profile, error) {
	manifest, err := r.cache.ReadState(manifestState) // verified, or it would not be there
	if err != nil {
		return nil, fmt.Errorf("profile of %q: no manifest was verified: %w", r.opt.Name, cvmfs.ErrUntrusted)
	}
	m, err := cvmfs.ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	certificate, _, err := r.certificate(ctx, m.Certificate)
	if err != nil {
		return nil, err
	}
	var p *profile.Profile
	_, err = r.get(ctx, profile.Name, func(body io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(body, profile.MaxSize+1))
		if err != nil {
			return err
		}
		text, err := cvmfs.VerifyText(data, certificate)
		if err != nil {
			return bad(fmt.Errorf("profile: %w", err))
		}
		if p, err = profile.Parse(text); err != nil {
			return bad(err)
		}
		if p.Repository != r.opt.Name {
			return bad(fmt.Errorf("profile of %q: %w", p.Repository, cvmfs.ErrWrongName))
		}
		return nil
	})
	if te := (*transfer.Error)(nil); errors.As(err, &te) && te.Missing() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("getting the profile of %q: %w", r.opt.Name, err)
	}
	return p, nil
}

// Prefetch brings the objects of a profile into the cache, the first ones
// first, parallel of them at a time, until it is done or ctx ends. It stops at
// half of the cache's quota. Objects that cannot be had, such as those of a
// revision that is gone, are left out; fetched says how many were not there and
// came.
func (r *Repository) Prefetch(ctx context.Context, p *profile.Profile, parallel int) (fetched int, err error) {
	_, quota := r.cache.Usage()
	room := quota / 2
	var mu sync.Mutex // guards fetched
	var group errgroup.Group
	group.SetLimit(max(parallel, 1))
	for _, o := range p.Objects {
		if ctx.Err() != nil || r.life.Err() != nil {
			break
		}
		if r.cache.Has(o.Hash) {
			continue
		}
		if room -= max(o.Size, 0); quota > 0 && room < 0 {
			break
		}
		group.Go(func() error {
			got, err := r.obtain(ctx, wantOf(o))
			if err != nil {
				r.log.Debug("fetching ahead", "object", o.Path(), "err", err)
				return nil //nolint:nilerr // whoever needs it will say so
			}
			_ = got.Close()
			r.stats.ahead.Add(1)
			mu.Lock()
			fetched++
			mu.Unlock()
			return nil
		})
	}
	_ = group.Wait() // the functions return none
	return fetched, context.Cause(ctx)
}

func wantOf(o profile.Object) want {
	w := want{hash: o.Hash, suffix: o.Suffix, compression: o.Compression, size: o.Size, limit: maxSmallObject}
	switch o.Suffix {
	case cvmfs.SuffixCatalog:
		w.limit = maxCatalogSize
	case cvmfs.SuffixHistory:
		w.limit = maxHistory
	}
	return w
}

// stored fetches an object and returns its bytes as they are stored, verified.
func (r *Repository) stored(ctx context.Context, o profile.Object) ([]byte, error) {
	var stored bytes.Buffer
	w := wantOf(o)
	_, err := r.get(ctx, o.Path(), func(body io.Reader) error {
		stored.Reset()
		_, err := r.verified(io.Discard, io.TeeReader(body, &stored), w.hash, w.compression, max(w.size, w.limit))
		return err
	})
	return stored.Bytes(), err
}

// WriteSlice writes a slice with the objects of a profile, and with the newest
// manifest that was verified and what leads from there to the revision that is
// shown. done, if not nil, hears how far it is. The profile must be of that
// revision, or a reader with nothing else will not get far. External files are
// not in it; Profile.External says how many are missed.
func (r *Repository) WriteSlice(ctx context.Context, w io.Writer, p *profile.Profile, done func(n int, bytes int64)) error {
	manifest, err := r.cache.ReadState(manifestState)
	if err != nil {
		return fmt.Errorf("slice of %q: no manifest was verified: %w", r.opt.Name, cvmfs.ErrUntrusted)
	}
	whitelist, err := r.cache.ReadState(whitelistState)
	if err != nil {
		return fmt.Errorf("slice of %q: %w", r.opt.Name, err)
	}
	m, err := cvmfs.ParseManifest(manifest)
	if err != nil {
		return err
	}
	whole := *p
	whole.Objects = []profile.Object{{Hash: m.Certificate, Suffix: cvmfs.SuffixCertificate, Size: -1}}
	if !m.History.IsZero() { // for a machine that asks for a tag
		whole.Objects = append(whole.Objects, profile.Object{Hash: m.History, Suffix: cvmfs.SuffixHistory, Size: -1})
	}
	for _, o := range p.Objects {
		if o.Suffix != cvmfs.SuffixCertificate && o.Suffix != cvmfs.SuffixHistory {
			whole.Objects = append(whole.Objects, o)
		}
	}
	files := []slice.File{{Name: cvmfs.ManifestFile, Data: manifest}, {Name: cvmfs.WhitelistFile, Data: whitelist}}
	return slice.Write(ctx, w, &whole, files, r.stored, done)
}
