package entropy

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/micavm/mica/internal/tier"
)

func TestJitterDiffers(t *testing.T) {
	began := time.Now()
	clock := func() int64 { return int64(time.Since(began)) }
	seen := map[string]bool{}
	for range 3 {
		seed, err := Jitter(t.Context(), clock)
		if err != nil {
			t.Fatal(err)
		}
		if len(seed)*8 < bits || seen[string(seed)] || bytes.Count(seed, []byte{0}) > len(seed)/4 {
			t.Errorf("Jitter = %x, repeated or poor", seed)
		}
		seen[string(seed)] = true
	}
}

// TestJitterDependsOnEverySample: one sample that is off by one gives another
// result, so nothing that was measured is lost.
func TestJitterDependsOnEverySample(t *testing.T) {
	run := func(odd int) []byte {
		n, now := 0, int64(0)
		seed, err := Jitter(t.Context(), func() int64 {
			n++
			now += int64(n*n%97 + 1) // irregular, but always the same
			if n == odd {
				return now + 1
			}
			return now
		})
		if err != nil {
			t.Fatal(err)
		}
		return seed
	}
	base := run(0)
	if !bytes.Equal(base, run(0)) {
		t.Error("the same samples give different results: something else gets in")
	}
	for _, odd := range []int{1, 100, bits * perBit} {
		if bytes.Equal(base, run(odd)) {
			t.Errorf("sample %d does not matter", odd)
		}
	}
}

func TestDeadClocksAreRefused(t *testing.T) {
	n := int64(0)
	for name, clock := range map[string]func() int64{
		"stopped": func() int64 { return 7 },
		"steady":  func() int64 { n += 1000; return n },
		"coarse":  func() int64 { n++; return n / 64 * 4_000_000 },
	} {
		if _, err := Jitter(t.Context(), clock); !errors.Is(err, ErrNoJitter) {
			t.Errorf("%s clock: %v, want ErrNoJitter", name, err)
		}
	}
}

func TestJitterEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Jitter(ctx, func() int64 { return 0 }); !errors.Is(err, context.Canceled) {
		t.Errorf("Jitter = %v, want cancelled", err)
	}
}

func TestReadyHere(t *testing.T) {
	if !Ready() || !Wait(t.Context()) {
		t.Error("this computer has no random numbers, which cannot be: the test binary has started")
	}
}

func TestSeed(t *testing.T) {
	tier.Root(t)
	if err := Seed(t.Context()); err != nil {
		t.Error(err)
	}
}
