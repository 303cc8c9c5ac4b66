package client

import (
	"context"
	"crypto/rsa"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
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

// Metainfo returns the hash of the text that the publisher has put beside the
// newest manifest, by its own account of what the repository is; zero if there is
// none, or no manifest has been seen.
func (r *Repository) Metainfo() cvmfs.Hash {
	if h := r.meta.Load(); h != nil {
		return *h
	}
	return cvmfs.Hash{}
}

// ReadMetainfo returns that text, usually JSON.
func (r *Repository) ReadMetainfo(ctx context.Context) ([]byte, error) {
	o, err := r.obtain(ctx, want{hash: r.Metainfo(), suffix: cvmfs.SuffixMetainfo, size: -1, limit: maxMetainfo})
	if err != nil {
		return nil, fmt.Errorf("getting the metainfo: %w", err)
	}
	defer func() { _ = o.Close() }()
	text := make([]byte, o.Size())
	_, err = io.ReadFull(io.NewSectionReader(o, 0, o.Size()), text)
	return text, err
}

// LocalHash hashes what the cache has of a regular file that is stored as it is,
// which is the file's own hash unless the disk has changed it. An error that wraps
// fs.ErrNotExist says that the cache does not have it.
func (r *Repository) LocalHash(ctx context.Context, p string) (cvmfs.Hash, error) {
	e, err := r.lookup(ctx, clean(p))
	if err != nil {
		return cvmfs.Hash{}, err
	}
	if !e.IsRegular() || e.Hash.IsZero() || e.Compression != cvmfs.Plain {
		return cvmfs.Hash{}, &fs.PathError{Op: "hash", Path: p, Err: syscall.EINVAL}
	}
	o, err := r.cache.Get(e.Hash, objectcache.Expect{Size: e.Size, Compression: e.Compression})
	if err != nil {
		return cvmfs.Hash{}, err
	}
	defer func() { _ = o.Close() }()
	sum := e.Hash.Algorithm.New()
	const step = 1 << 20
	for at := int64(0); at < o.Size(); at += step {
		if ctx.Err() != nil {
			return cvmfs.Hash{}, context.Cause(ctx)
		}
		if _, err := io.Copy(sum, io.NewSectionReader(o, at, step)); err != nil {
			return cvmfs.Hash{}, err
		}
	}
	return cvmfs.NewHash(e.Hash.Algorithm, sum), nil
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
