package storage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
)

// lockFile holds who writes to a repository in a bucket. Its end is a date: a
// writer that lives puts it off, one that was killed lets it come.
const lockFile = ".mica.lock"

// lease is how long a lock lasts that nobody renews.
const lease = 5 * time.Minute

// claim is the content of the lock.
type claim struct {
	Holder  string    `json:"holder"`
	Nonce   string    `json:"nonce"`
	Expires time.Time `json:"expires"`
}

// parseClaim reads a lock. Whoever may write to the bucket has written it.
func parseClaim(data []byte) (claim, error) {
	var c claim
	if err := json.Unmarshal(data, &c); err != nil {
		return claim{}, fmt.Errorf("%s: %w", lockFile, err)
	}
	return c, nil
}

// taken is the error of who finds a lock. until is when it ends; zero if that does
// not matter.
func (c claim) taken(of string, until time.Time) error {
	text := fmt.Sprintf("%s by %.100q", of, c.Holder)
	if !until.IsZero() {
		text += fmt.Sprintf(", until %s unless it goes on", until.Format(time.RFC3339))
	}
	return fmt.Errorf("%s: %w", text, atomicfile.ErrLocked)
}

type bucketLock struct {
	b    *Bucket
	mine claim
	end  context.CancelFunc
	done chan struct{} // closed when the renewing has ended

	mu      sync.Mutex // guards the following
	expires time.Time
	lost    error
}

// Lock writes the lock file on condition that there is none, or that the one
// there has expired. The clocks of publishers must agree to a minute or so.
func (b *Bucket) Lock(ctx context.Context) (Lock, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	c := claim{Holder: fmt.Sprintf("process %d of %s", os.Getpid(), host), Nonce: rand.Text(), Expires: b.now().Add(b.lease).UTC()}
	b.mu.Lock()
	b.seen[lockFile] = "" // it must not be there
	b.mu.Unlock()
	err = b.claim(ctx, c)
	if errors.Is(err, ErrChanged) {
		if err = b.expired(ctx); err == nil {
			err = b.claim(ctx, c)
		}
	}
	if errors.Is(err, ErrChanged) {
		err = fmt.Errorf("%s: %w", b, atomicfile.ErrLocked)
	}
	if err != nil {
		return nil, err
	}
	// A service that ignores conditions lets the last writer win; then only one
	// of those who start at the same time finds its own claim.
	now, _, err := b.whole(ctx, lockFile)
	if err != nil {
		return nil, err
	}
	if found, err := parseClaim(now); err != nil || found.Nonce != c.Nonce {
		return nil, found.taken(b.String(), time.Time{})
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	l := &bucketLock{b: b, mine: c, end: end, done: make(chan struct{}), expires: c.Expires}
	go l.renew(life)
	return l, nil
}

func (b *Bucket) claim(ctx context.Context, c claim) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return b.Replace(ctx, lockFile, append(data, '\n'))
}

// expired returns nil if the lock that is there holds no more, having noted which
// one it was.
func (b *Bucket) expired(ctx context.Context) error {
	data, etag, err := b.whole(ctx, lockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if c, err := parseClaim(data); err == nil && b.now().Before(c.Expires) {
		return c.taken(b.String(), c.Expires)
	}
	b.remember(lockFile, etag)
	return nil
}

// renew puts the end of the lock off until the context ends.
func (l *bucketLock) renew(ctx context.Context) {
	defer close(l.done)
	tick := time.NewTicker(l.b.lease / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c := l.mine
		c.Expires = l.b.now().Add(l.b.lease).UTC()
		err := l.b.claim(ctx, c)
		l.mu.Lock()
		switch {
		case err == nil:
			l.expires = c.Expires
		case errors.Is(err, ErrChanged):
			l.lost = err
		}
		lost := l.lost
		l.mu.Unlock()
		if lost != nil {
			return
		}
	}
}

// Held fails once the lock has expired or been taken.
func (l *bucketLock) Held() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		return fmt.Errorf("the lock was lost: %w", l.lost)
	}
	if !l.b.now().Before(l.expires) {
		return fmt.Errorf("the lock of %s could not be renewed and ended on %s: %w", strings.TrimSuffix(l.b.String(), "/"), l.expires.Format(time.RFC3339), ErrChanged)
	}
	return nil
}

// Unlock removes the lock file if it is still ours.
func (l *bucketLock) Unlock() error {
	l.end()
	<-l.done
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	data, _, err := l.b.whole(ctx, lockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if c, err := parseClaim(data); err != nil || c.Nonce != l.mine.Nonce {
		return nil
	}
	return l.b.Remove(ctx, []string{lockFile}, func(int) {})
}
