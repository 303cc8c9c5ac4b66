package client

import (
	"context"
	"crypto/rsa"
	"io/fs"
	"syscall"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// CompatVersion is the version of the original client that this one stands for:
// what its users and scripts compare with.
const CompatVersion = "2.12.0.0"

// CacheDir returns the cache directory, as Open was given it.
func (r *Repository) CacheDir() string { return r.opt.CacheDir }

// Keys returns the master keys that whitelists are verified with.
func (r *Repository) Keys() []*rsa.PublicKey { return r.opt.MasterKeys }

// MaxTTL returns the limit on the time to live; 0 for none.
func (r *Repository) MaxTTL() time.Duration { return time.Duration(r.maxTTL.Load()) }

// SetMaxTTL changes it. Follow looks at it at once.
func (r *Repository) SetMaxTTL(limit time.Duration) {
	r.maxTTL.Store(int64(max(limit, 0)))
	select {
	case r.hurry <- struct{}{}:
	default: // it has not yet seen the last change
	}
}

// SetRoot shows the revision with that root catalogue, until the next Refresh.
// Whoever names a hash vouches for it: no signature is asked for. A pinned
// repository never changes, which ErrPinned says.
func (r *Repository) SetRoot(ctx context.Context, root cvmfs.Hash) error {
	if r.Pinned() {
		return ErrPinned
	}
	r.refresh.Lock()
	defer r.refresh.Unlock()
	if root == r.RootHash() {
		return nil
	}
	return r.show(ctx, revision{hash: root, size: -1})
}

// Evict removes the content of a regular file from the cache, as far as it is
// there. Symbolic links are not followed; files that are open stay readable.
func (r *Repository) Evict(ctx context.Context, p string) error {
	p = clean(p)
	fail := func(err error) error { return &fs.PathError{Op: "evict", Path: display(p), Err: err} }
	e, err := r.lookup(ctx, p)
	if err != nil {
		return err
	}
	if !e.IsRegular() {
		return fail(syscall.EINVAL)
	}
	var hashes []cvmfs.Hash
	if !e.Hash.IsZero() {
		hashes = append(hashes, e.Hash)
	}
	chunks, err := r.Chunks(ctx, p)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		hashes = append(hashes, c.Hash)
	}
	for _, h := range hashes {
		if err := r.cache.Remove(h); err != nil {
			return fail(err)
		}
	}
	return nil
}
