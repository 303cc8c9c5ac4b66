package client

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
	"github.com/micavm/mica/cvmfs/client/internal/transfer"
	"github.com/micavm/mica/cvmfs/slice"
)

// ErrNoTag says that the repository has no such tag.

// Pin fixes the revision. The zero value means the newest one.
type Pin struct {
	RootHash cvmfs.Hash // wins over the others; needs no signature and, once cached, no network
	Tag      string
	Date     time.Time // the newest revision with a tag that is not younger, if there is no Tag
}

// Options say which repository, from where, and how. Name, Servers, MasterKeys
// and CacheDir must be given; keys are not needed with a root hash.
type Options struct {
	Name       string
	Servers    []string // base URLs (http, https, file) in order of preference
	Proxies    string   // grammar of CVMFS_HTTP_PROXY; empty means DIRECT
	MasterKeys []*rsa.PublicKey
	CacheDir   string
	Quota      int64 // bytes of cached objects, 0 for no limit
	Pin        Pin

	Timeout time.Duration // for connecting, and for a stalled transfer; 0 means 5 s through a proxy, 10 s direct
	Retries int           // of a failed transfer before another way is tried; 0 means 1, negative none
	Backoff time.Duration // before the first retry at most; 0 means 2 s

	Slices []*slice.Slice // asked before the servers, for all but a newer revision
	Record int            // remember that many objects at most for Recorded; 0 means none

	Network  Network  // how servers and proxies are chosen
	External External // where the bytes of external files are
	Owners   Owners   // whom files are shown to belong to

	MaxTTL      time.Duration // ask for a newer revision at least that often; 0 leaves it to the repository (CVMFS_MAX_TTL)
	Blocked     []cvmfs.Hash  // fingerprints of certificates that are not trusted, whatever the whitelist says
	MinRevision uint64        // older ones are not shown

	Nameservers []string          // addresses; empty means those of the system
	Vars        map[string]string // for symbolic links; CVMFS_FQRN and CVMFS_ARCH are added
	MaxCatalogs int               // open at the same time; 0 means 32
	UserAgent   string

	Now func() time.Time
	Log *slog.Logger
}

const (
	defaultCatalogs = 32
	maxCatalogSize  = 2 << 30   // inflated, where the format does not say
	maxSmallObject  = 1 << 20   // certificates
	maxMetainfo     = 64 << 10  // as in the original
	maxHistory      = 512 << 20 // inflated
	maxSigned       = 128 << 10 // manifest and whitelist
)

// Repository is one repository at one revision, which Refresh may change. It is
// safe for concurrent use.
type Repository struct {
	opt   Options
	log   *slog.Logger
	net   *transfer.Client
	ext   *transfer.Client // for external files; without a server if nobody named one
	cache *objectcache.Cache
	vars  map[string]string
	start time.Time

	life  context.Context //nolint:containedctx // ends with Close; shared downloads outlive the request that began them
	end   context.CancelFunc
	tasks sync.WaitGroup

	tree    atomic.Pointer[tree]
	news    atomic.Pointer[error]      // why it could not be asked for the newest revision
	meta    atomic.Pointer[cvmfs.Hash] // of the metainfo of the newest manifest; nil before the first
	maxTTL  atomic.Int64               // Options.MaxTTL, and what SetMaxTTL made of it
	hurry   chan struct{}              // tells Follow that it changed
	refresh sync.Mutex                 // one Refresh at a time

	mu      sync.Mutex // guards the next three
	before  *tree      // the revision that was shown before, if there was one
	changed []func()
	flights map[flightKey]*flight

	landed atomic.Int64  // flights that are over
	ahead  chan struct{} // slots of downloads nobody waits for
	scans  *scans        // who reads directory after directory
	record *recorder     // nil if nothing is recorded

	noRoom atomic.Int64 // when the cache could last not be made smaller, in Unix nanoseconds
	stats  counters
}

// Open finds the revision, loads its root catalogue and returns the repository.
func Open(ctx context.Context, opt Options) (*Repository, error) {
	if err := cvmfs.CheckName(opt.Name); err != nil {
		return nil, err
	}
	if len(opt.Servers) == 0 {
		return nil, fmt.Errorf("opening repository %q: %w", opt.Name, ErrNoServer)
	}
	if opt.CacheDir == "" {
		return nil, fmt.Errorf("opening repository %q: no cache directory given", opt.Name)
	}
	if len(opt.MasterKeys) == 0 && opt.Pin.RootHash.IsZero() {
		return nil, fmt.Errorf("opening repository %q: no master key given: %w", opt.Name, cvmfs.ErrUntrusted)
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.MaxCatalogs <= 0 {
		opt.MaxCatalogs = defaultCatalogs
	}
	if opt.Retries == 0 {
		opt.Retries = 1
	}
	if opt.UserAgent == "" {
		opt.UserAgent = "cvmfs Fuse 2.12 (mica)" // Compat: some proxies let only clients of that name through
	}
	cache, err := objectcache.Open(opt.CacheDir, objectcache.Options{Name: opt.Name, Quota: opt.Quota, Now: opt.Now, Log: opt.Log})
	if err != nil {
		return nil, fmt.Errorf("opening repository %q: %w: %w", opt.Name, ErrCache, err)
	}
	net, err := newTransfer(opt, cache, "."+opt.Name)
	if err != nil {
		_ = cache.Close()
		return nil, fmt.Errorf("opening repository %q: %w", opt.Name, err)
	}
	ext, err := newExternal(opt, cache)
	if err != nil {
		_ = cache.Close()
		return nil, fmt.Errorf("opening repository %q: external files: %w", opt.Name, err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	r := &Repository{
		opt: opt, log: opt.Log, net: net, ext: ext, cache: cache, vars: variables(opt), start: opt.Now(),
		life: life, end: end, flights: map[flightKey]*flight{}, ahead: make(chan struct{}, aheadSlots),
		record: newRecorder(opt.Record), hurry: make(chan struct{}, 1),
	}
	r.maxTTL.Store(int64(opt.MaxTTL))
	r.scans = newScans(r)
	if err := r.load(ctx); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("opening repository %q: %w", opt.Name, err)
	}
	return r, nil
}

// load attaches the root catalogue of the wanted revision.
func (r *Repository) load(ctx context.Context) error {
	want, err := r.resolve(ctx)
	if err != nil {
		return err
	}
	t, err := r.plant(ctx, want)
	if err != nil {
		return err
	}
	r.tree.Store(t)
	return r.arrived(want)
}

// Close ends all background work. Files that are still open stay readable as far
// as they are cached, nothing else may be called afterwards.
func (r *Repository) Close() error {
	r.mu.Lock() // no download starts after this
	r.end()
	r.mu.Unlock()
	r.tasks.Wait()
	for _, t := range []*tree{r.tree.Load(), r.before} {
		if t != nil {
			t.close()
		}
	}
	r.net.Close()
	r.ext.Close()
	return r.cache.Close()
}

// Name returns the fully qualified repository name.
func (r *Repository) Name() string { return r.opt.Name }

// RootHash returns the hash of the root catalogue that is shown.
func (r *Repository) RootHash() cvmfs.Hash { return r.tree.Load().root.hash }

// Revision returns the revision number that is shown.
func (r *Repository) Revision() uint64 { return r.tree.Load().revision }

// Tag returns the tag the repository is pinned to, if it is.
func (r *Repository) Tag() string { return r.opt.Pin.Tag }

// Pinned reports whether the revision is fixed for the life of the Repository.
func (r *Repository) Pinned() bool { return r.opt.Pin != (Pin{}) }

// Offline reports whether the last search for the newest revision failed and
// what is shown is the newest one known.
func (r *Repository) Offline() bool { return r.News() != nil }

// News is why Offline is true: no server could be reached, or what they offer is
// not to be trusted. It is nil if Offline is false.
func (r *Repository) News() error {
	if err := r.news.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *Repository) noNews(why error) { r.news.Store(&why) }

// TTL returns how long the revision is good before Refresh should be called.
func (r *Repository) TTL() time.Duration {
	ttl := r.tree.Load().ttl
	if limit := r.MaxTTL(); limit > 0 {
		ttl = min(ttl, limit)
	}
	return ttl
}

// OnChange has f called after each switch to another revision, before the Refresh
// that did it returns, until the returned function is called.
func (r *Repository) OnChange(f func()) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.changed)
	r.changed = append(r.changed, f)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed[i] = func() {}
	}
}

// Refresh looks for a newer revision and switches to it. A pinned repository
// never changes. Files that are open keep their content.
func (r *Repository) Refresh(ctx context.Context) (changed bool, err error) {
	if r.Pinned() {
		return false, nil
	}
	r.refresh.Lock()
	defer r.refresh.Unlock()
	want, err := r.newest(ctx)
	if err != nil {
		r.noNews(err)
		return false, fmt.Errorf("refreshing repository %q: %w", r.opt.Name, err)
	}
	r.news.Store(nil)
	r.meta.Store(&want.manifest.Metainfo)
	if want.hash == r.RootHash() {
		return false, nil
	}
	if err := r.show(ctx, want); err != nil {
		return false, fmt.Errorf("refreshing repository %q: %w", r.opt.Name, err)
	}
	return true, r.arrived(want)
}

// show switches to another revision. One switch at a time: it is called with
// refresh held.
func (r *Repository) show(ctx context.Context, want revision) error {
	t, err := r.plant(ctx, want)
	if err != nil {
		return err
	}
	old := r.tree.Swap(t)
	old.retire()
	r.mu.Lock()
	oldest := r.before
	r.before = old
	r.mu.Unlock()
	if oldest != nil {
		oldest.close()
	}
	r.log.Info("new revision", "repository", r.opt.Name, "revision", t.revision, "root_hash", want.hash.String())
	r.mu.Lock()
	hear := slices.Clone(r.changed)
	r.mu.Unlock()
	for _, f := range hear {
		f()
	}
	return nil
}

// Follow refreshes whenever the time to live has passed, until ctx ends.
func (r *Repository) Follow(ctx context.Context) {
	const retry = 180 * time.Second // Compat: after a failure (cvmfs: cvmfs/fuse_remount.cc)
	for {
		wait := r.TTL()
		if r.Offline() {
			wait = min(wait, retry)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-r.hurry:
			t.Stop()
			continue
		case <-t.C:
		}
		if _, err := r.Refresh(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("no newer revision to be had", "repository", r.opt.Name, "err", err)
		}
	}
}

// arrived records that a verified revision was reached.
func (r *Repository) arrived(want revision) error {
	if want.manifest == nil {
		return nil
	}
	r.meta.Store(&want.manifest.Metainfo)
	if err := r.writeBreadcrumb(want.manifest); err != nil && !errors.Is(err, fs.ErrPermission) {
		r.log.Warn("the revision is not remembered for an offline start", "err", err)
	}
	return nil
}
