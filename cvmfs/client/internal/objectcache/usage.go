package objectcache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A quota is meant for all processes that share a cache. None of them is asked by
// the others, as the original has it (cvmfs: cvmfs/quota_posix.cc, __cachemgr__):
// they add up what is stored in a file, and one at a time counts and evicts.

const (
	// usageFile has the bytes of objects on disk, in decimal digits: as many as
	// were counted the last time, and what was stored less removed since.
	usageFile = "usage"
	// evictLock is locked by who counts or evicts.
	evictLock = "lock_evict"

	usageDigits = 20

	// What one process has not told the others is less than shareOf of the quota,
	// or defaultShare where it has none.
	shareOf      = 64
	defaultShare = 1 << 20

	lockTries   = 50                    // of the file, a millisecond apart
	evictWait   = 5 * time.Second       // for another process, which may have been stopped
	evictLooks  = 10 * time.Millisecond // how often
	vainFor     = time.Second           // no eviction after one that could not do enough
	hardLimitOf = 16                    // beyond quota and this part of it, storing waits for room
)

// tally knows how much is on disk, from the file and from what this process has
// not yet added to it. It is safe for concurrent use.
type tally struct {
	root  *os.Root
	quota *atomic.Int64 // 0 for none

	mu  sync.Mutex // guards the following
	sum int64      // what the file had the last time
	own int64      // stored less removed here since
}

func newTally(root *os.Root, quota *atomic.Int64) *tally { return &tally{root: root, quota: quota} }

// share is how much this process may keep to itself.
func (t *tally) share() int64 {
	if quota := t.quota.Load(); quota > 0 {
		return max(quota/shareOf, 1)
	}
	return defaultShare
}

// add counts n bytes stored, or removed if it is negative, and returns what there
// is as far as this process knows.
func (t *tally) add(n int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.own += n
	if share := t.share(); t.own >= share || -t.own >= share {
		t.exchange()
	}
	return max(t.sum+t.own, 0)
}

// all tells the others what this process knows and returns what all know.
func (t *tally) all() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exchange()
	return max(t.sum+t.own, 0)
}

// peek is all without writing anything.
func (t *tally) peek() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if data, err := t.root.ReadFile(usageFile); err == nil {
		if sum, err := parseUsage(data); err == nil {
			t.sum = sum
		}
	}
	return max(t.sum+t.own, 0)
}

// exchange adds own to the file. Where that cannot be, own waits for another time.
// A file that is not there, or damaged, becomes what is known here: the next count
// puts it right.
func (t *tally) exchange() {
	f, err := t.root.OpenFile(usageFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer unlock(f)
	for try := 0; ; try++ {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if try == lockTries {
			return
		}
		time.Sleep(time.Millisecond)
	}
	var buf [usageDigits + 2]byte
	n, err := f.ReadAt(buf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return
	}
	sum, err := parseUsage(buf[:n])
	if err != nil {
		sum = t.sum
		if f.Truncate(0) != nil {
			return
		}
	}
	sum = max(sum+t.own, 0)
	if _, err := f.WriteAt(fmt.Appendf(nil, "%0*d\n", usageDigits, sum), 0); err != nil {
		return
	}
	t.sum, t.own = sum, 0
}

// parseUsage reads the file: digits and a line end, always as many, so that it is
// written in one piece.
func parseUsage(data []byte) (int64, error) {
	text, ended := strings.CutSuffix(string(data), "\n")
	if !ended || len(text) != usageDigits || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%s: %.40q is no number of %d digits", usageFile, data, usageDigits)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", usageFile, err)
	}
	return n, nil
}

// alone waits until nobody else counts or evicts, in this process or another.
// After evictWait it goes on all the same, and is not really alone.
func (c *Cache) alone(stop <-chan struct{}) (really bool, done func()) {
	c.evicting.Lock()
	f, err := c.root.OpenFile(evictLock, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return false, c.evicting.Unlock
	}
	done = func() {
		unlock(f)
		c.evicting.Unlock()
	}
	for began := time.Now(); ; {
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return true, done
		}
		select {
		case <-stop:
			return false, done
		case <-time.After(evictLooks):
		}
		if time.Since(began) > evictWait {
			c.opt.Log.Warn("another process has been evicting for long", "cache", c.dir, "lock", evictLock)
			return false, done
		}
	}
}
