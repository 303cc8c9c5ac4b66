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

// Timeouts returns how long a server is waited for, through a proxy and without.
func (r *Repository) Timeouts() (proxied, direct time.Duration) { return r.net.Timeouts() }

// ExternalTimeouts is Timeouts for the servers of external files; zero if there
// are none.
func (r *Repository) ExternalTimeouts() (proxied, direct time.Duration) {
	if r.ext == nil {
		return 0, 0
	}
	return r.ext.Timeouts()
}

// ExternalProxies is Proxies for the servers of external files.
func (r *Repository) ExternalProxies() (groups [][]string, active string) {
	if r.ext == nil {
		return nil, ""
	}
	return r.ext.Proxies()
}

// SwitchServer makes the next server the active one, as after a failure.
func (r *Repository) SwitchServer() {
	servers, active := r.net.Servers()
	r.net.LeaveServer(servers[active])
}

// SwitchExternalServer is SwitchServer for the servers of external files.
func (r *Repository) SwitchExternalServer() {
	if r.ext == nil {
		return
	}
	servers, active := r.ext.Servers()
	r.ext.LeaveServer(servers[active])
}

// SwitchProxyGroup makes the next group of proxies the active one, as after a
// failure of all of the active one.
func (r *Repository) SwitchProxyGroup() { r.net.SwitchProxyGroup() }

// Keys returns the master keys that whitelists are verified with.
func (r *Repository) Keys() []*rsa.PublicKey { return r.opt.MasterKeys }

// MaxTTL returns the limit on the time to live that the options set; 0 for none.
func (r *Repository) MaxTTL() time.Duration { return r.opt.MaxTTL }

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
