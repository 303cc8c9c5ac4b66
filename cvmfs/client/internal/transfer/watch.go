package transfer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// watch ends a transfer that stalls or crawls.
type watch struct {
	ctx    context.Context //nolint:containedctx // of one request, to tell why it was cancelled
	limit  time.Duration
	timer  *time.Timer
	cancel func()

	lowSpeed int // bytes a second that are just bearable

	waited time.Duration // time spent in reads, and bytes they gave, in the window
	bytes  int64
}

// watchedReader remembers how reading ended, apart from what the reader of the
// body makes of it. Only the time inside Read counts against the server.
type watchedReader struct {
	watch *watch // nil for local files
	r     io.Reader
	err   error
}

func (r *watchedReader) Read(p []byte) (int, error) {
	w := r.watch
	if w == nil {
		n, err := r.r.Read(p)
		r.err = err
		return n, err
	}
	w.timer.Reset(w.limit)
	start := time.Now()
	n, err := r.r.Read(p)
	w.timer.Stop()
	w.waited += time.Since(start)
	w.bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(w.ctx), errSlow) {
		err = errSlow
	}
	if err == nil && w.waited >= w.limit {
		if float64(w.bytes) < float64(w.lowSpeed)*w.waited.Seconds() {
			err = errSlow
		}
		w.waited, w.bytes = 0, 0
	}
	if err != nil {
		r.err = err
	}
	return n, err
}

// nextBackoff is random at first and then doubles.
func (c *Client) nextBackoff(last time.Duration) time.Duration {
	if last == 0 {
		return min(rand.N(c.cfg.Backoff)+time.Millisecond, c.cfg.BackoffMax)
	}
	return min(2*last, c.cfg.BackoffMax)
}

// throttle slows down those who ask for what cannot be had.
type throttle struct {
	delay time.Duration
	last  time.Time
}

// Compat: 32 milliseconds, doubled up to two seconds, forgotten after ten quiet
// seconds (cvmfs: cvmfs/backoff.h).
const (
	firstPenalty   = 32 * time.Millisecond
	longestPenalty = 2 * time.Second
	penaltyReset   = 10 * time.Second
)

// penalty is how long the next failure is held back.
func (c *Client) penalty() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	if c.failures.delay == 0 || now.Sub(c.failures.last).Abs() >= penaltyReset {
		c.failures.delay = firstPenalty
	} else {
		c.failures.delay = min(2*c.failures.delay, longestPenalty)
	}
	c.failures.last = now
	return c.failures.delay
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
