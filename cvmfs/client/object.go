package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
)

// counters are the live form of Stats.
type counters struct {
	objects, bytes, sliced, hits, failures, ahead, nanoseconds atomic.Int64
}

// Stats says what a Repository has done since Open.
type Stats struct {
	Objects   int64 // downloaded
	Bytes     int64 // downloaded, as stored on the server
	Sliced    int64 // objects taken from slices instead
	CacheHits int64 // objects that were in the cache when they were wanted
	Failures  int64 // objects that could not be had
	Ahead     int64 // objects fetched before anybody wanted them
	Catalogs  int   // open now

	Transfer time.Duration // spent on downloads, those at the same time added up
}

// Stats returns the counters.
func (r *Repository) Stats() Stats {
	return Stats{
		Objects: r.stats.objects.Load(), Bytes: r.stats.bytes.Load(), Sliced: r.stats.sliced.Load(), CacheHits: r.stats.hits.Load(),
		Failures: r.stats.failures.Load(), Ahead: r.stats.ahead.Load(), Catalogs: r.tree.Load().open(),
		Transfer: time.Duration(r.stats.nanoseconds.Load()),
	}
}

// want names an object and what is known of it.
type want struct {
	hash        cvmfs.Hash
	suffix      cvmfs.Suffix
	compression cvmfs.Compression
	size        int64 // plain; -1 if not known
	limit       int64 // of the plain size, where it is not known

	path     string // of the file or the catalogue it is wanted for; empty if that is not known
	external bool   // it is no object: a part of that file, from offset on, on another server
	offset   int64
}

func (w want) expect() objectcache.Expect {
	return objectcache.Expect{Size: w.size, Compression: w.compression}
}

// flightKey is what callers that share a download must agree on. Beside the hash,
// that of the stored bytes: the compression and the size, for two entries may
// name the same bytes and mean another content by them.
type flightKey struct {
	hash        cvmfs.Hash
	compression cvmfs.Compression
	size        int64
}

func (w want) key() flightKey { return flightKey{w.hash, w.compression, w.size} }

// flight is one download that any number of callers wait for. It ends early
// only when the last of them has given up.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int                 // guarded by Repository.mu
	object  *objectcache.Object // set before done is closed, held until the last waiter has its own
	err     error
}

// object returns an object that somebody wants.
func (r *Repository) object(ctx context.Context, w want) (*objectcache.Object, error) {
	o, err := r.obtain(ctx, w)
	if err == nil {
		r.record.add(w)
	}
	return o, err
}

// obtain returns an object from the cache, or downloads it.
func (r *Repository) obtain(ctx context.Context, w want) (*objectcache.Object, error) {
	if w.hash.IsZero() {
		return nil, fmt.Errorf("an object without a hash: %w", cvmfs.ErrMalformed)
	}
	landed := r.landed.Load()
	if o, err := r.cache.Get(w.hash, w.expect()); err == nil {
		r.stats.hits.Add(1)
		return o, nil
	}
	return r.share(ctx, w, landed)
}

// share waits for the download of an object that was not in the cache when so
// many downloads had landed, and starts it if nobody has.
func (r *Repository) share(ctx context.Context, w want, landed int64) (*objectcache.Object, error) {
	r.mu.Lock()
	f := r.flights[w.key()]
	if f == nil {
		if r.life.Err() != nil {
			r.mu.Unlock()
			return nil, os.ErrClosed
		}
		if r.landed.Load() != landed { // since then, perhaps this one
			if o, err := r.cache.Get(w.hash, w.expect()); err == nil {
				r.mu.Unlock()
				r.stats.hits.Add(1)
				return o, nil
			}
		}
		flying, cancel := context.WithCancel(r.life)
		f = &flight{done: make(chan struct{}), cancel: cancel}
		r.flights[w.key()] = f
		r.tasks.Go(func() { r.fly(flying, w, f) })
	}
	f.waiters++
	r.mu.Unlock()

	select {
	case <-f.done:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f.waiters--
	var mine *objectcache.Object
	err := f.err
	select {
	case <-f.done:
		if f.object != nil {
			mine = f.object.Again()
		}
	default:
		err = context.Cause(ctx)
	}
	if f.waiters == 0 {
		f.cancel()
		if r.flights[w.key()] == f {
			delete(r.flights, w.key())
		}
		if f.object != nil {
			_ = f.object.Close()
			f.object = nil
		}
	}
	return mine, err
}

func (r *Repository) fly(ctx context.Context, w want, f *flight) {
	o, err := r.download(ctx, w)
	if err != nil && ctx.Err() == nil {
		r.stats.failures.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flights[w.key()] == f {
		delete(r.flights, w.key())
	}
	r.landed.Add(1)
	f.object, f.err = o, err
	if f.waiters == 0 && o != nil { // all gave up, too late to stop it: it is in the cache
		_ = o.Close()
		f.object = nil
	}
	f.cancel()
	close(f.done)
}

var errDiskFull = errors.New("the cache's disk takes no more")

// download gets one object into the cache. When the disk is full it makes room,
// and failing that keeps the object in memory.
func (r *Repository) download(ctx context.Context, w want) (*objectcache.Object, error) {
	limit := w.size
	if limit < 0 {
		limit = w.limit
	}
	began := time.Now()
	defer func() { r.stats.nanoseconds.Add(int64(time.Since(began))) }()
	var o *objectcache.Object
	inMemory, evicted := false, false
	for {
		err := r.fetch(ctx, w, func(body io.Reader) error {
			txn, err := r.cache.Begin(w.hash, w.compression, inMemory)
			if err != nil {
				if inMemory {
					return err
				}
				return fmt.Errorf("%w: %w", errDiskFull, err)
			}
			defer txn.Abort()
			n, err := r.verified(txn, body, w.hash, w.compression, limit)
			switch {
			case txn.DiskFull():
				return fmt.Errorf("%w: %w", errDiskFull, err)
			case err != nil:
				return err
			case w.size >= 0 && n != w.size:
				return fmt.Errorf("object %s has %d bytes, its catalogue says %d: %w", w.hash, n, w.size, cvmfs.ErrCorrupt)
			}
			if o, err = txn.Commit(); err != nil && txn.DiskFull() {
				err = fmt.Errorf("%w: %w", errDiskFull, err)
			}
			return err
		})
		if !errors.Is(err, errDiskFull) {
			return o, err
		}
		inMemory = evicted || !r.makeRoom(ctx, err)
		evicted = true
	}
}

// noRoomFor is how long nothing is evicted after that was in vain: each time looks
// at all that is in the cache.
const noRoomFor = time.Minute

// makeRoom evicts something, after the cache's disk has refused an object.
func (r *Repository) makeRoom(ctx context.Context, why error) bool {
	last, now := r.noRoom.Load(), time.Now().UnixNano()
	if last != 0 && now-last < int64(noRoomFor) {
		return false
	}
	freed, err := r.cache.MakeRoom(ctx)
	if freed > 0 {
		return true
	}
	if r.noRoom.CompareAndSwap(last, now) && ctx.Err() == nil {
		r.log.Warn("the cache takes no objects, they go to memory", "cache", r.opt.CacheDir, "err", errors.Join(why, err))
	}
	return false
}

// verified copies one object and counts it. Wrong bytes are the sender's fault.
func (r *Repository) verified(dst io.Writer, body io.Reader, h cvmfs.Hash, c cvmfs.Compression, limit int64) (int64, error) {
	count := &counting{r: body}
	n, err := cvmfs.CopyVerified(dst, count, h, c, limit)
	if errors.Is(err, cvmfs.ErrCorrupt) {
		return n, bad(err)
	}
	if _, local := body.(sliced); err == nil && local {
		r.stats.sliced.Add(1)
	} else if err == nil {
		r.stats.objects.Add(1)
		r.stats.bytes.Add(count.n)
	}
	return n, err
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// fileOf names an object's file for a reader that opens by name, SQLite. For an
// object in memory it makes a file in the directory for temporary files, which
// done removes.
func (r *Repository) fileOf(o *objectcache.Object, h cvmfs.Hash) (file string, done func(), err error) {
	if !o.InMemory() {
		return r.cache.Path(h), func() {}, nil
	}
	f, err := os.CreateTemp("", "cvmfs-*.db")
	if err != nil {
		return "", nil, fmt.Errorf("catalogue %s: %w: %w", h, ErrCacheFull, err)
	}
	done = func() {
		if err := os.Remove(f.Name()); err != nil {
			r.log.Warn("temporary file stays", "err", err)
		}
	}
	_, err = io.Copy(f, io.NewSectionReader(o, 0, o.Size()))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		done()
		return "", nil, fmt.Errorf("catalogue %s: %w: %w", h, ErrCacheFull, err)
	}
	return f.Name(), done, nil
}
