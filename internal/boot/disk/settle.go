package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Settle scans and chooses again and again until the decision has been the same
// for a second, or patience is over: disks may appear late, and a decision made
// too early would format the wrong one. A decision to use what exists, or a
// refusal because two do, needs no second look. patience is the rootdelay= of
// the kernel command line; the devices of the last scan are returned, too.
func Settle(ctx context.Context, roots Roots, p Preferences, patience time.Duration, log *slog.Logger) (Choice, []Device, error) {
	return settler{
		scan:  func(ctx context.Context) ([]Device, error) { return Scan(ctx, roots) },
		sleep: sleep, now: time.Now, log: log,
	}.settle(ctx, p, patience)
}

const (
	settleStep = 200 * time.Millisecond
	settled    = time.Second
)

type settler struct {
	scan  func(context.Context) ([]Device, error)
	sleep func(context.Context, time.Duration) error
	now   func() time.Time
	log   *slog.Logger
}

func (s settler) settle(ctx context.Context, p Preferences, patience time.Duration) (Choice, []Device, error) {
	began := s.now()
	var last string
	var since time.Time
	for {
		devices, err := s.scan(ctx)
		if err != nil {
			return Choice{}, nil, err
		}
		c, err := Choose(devices, p)
		what := fmt.Sprint(c.Action, c.Disk.Name, c.Device.Name, c.Device.Partition)
		now := s.now()
		if what != last {
			last, since = what, now
		}
		// Nothing found is worth all the patience there is, a decision only the
		// second.
		waiting := now.Sub(since) < settled && now.Sub(began) < max(patience, settled)
		if err != nil || c.Action == RAM {
			waiting = now.Sub(began) < max(patience, settled)
		}
		var two *Ambiguous
		if c.Action == Reuse || errors.As(err, &two) || !waiting {
			return c, devices, err
		}
		if s.log != nil {
			s.log.Debug("waiting for disks", "decision", what, "devices", len(devices))
		}
		if err := s.sleep(ctx, settleStep); err != nil {
			return Choice{}, devices, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
