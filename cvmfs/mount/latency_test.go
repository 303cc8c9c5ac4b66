package mount

import (
	"testing"
	"time"
)

// A quantile lies in the bin that holds it, and grows with the share.
func TestQuantile(t *testing.T) {
	h := &histogram{}
	if got := h.quantile(.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	for range 90 {
		h.add(1000)
	}
	for range 9 {
		h.add(100_000)
	}
	h.add(time.Second)
	h.add(-time.Second) // a clock that went back
	if got := h.count(); got != 101 {
		t.Errorf("%d durations", got)
	}
	for _, test := range []struct {
		share     float64
		low, high time.Duration
	}{{.001, 0, 1}, {.1, 512, 1024}, {.5, 512, 1024}, {.85, 512, 1024}, {.95, 65536, 131072}, {.9999, 1 << 29, 1 << 30}} {
		if got := h.quantile(test.share); got < test.low || got > test.high {
			t.Errorf("quantile %v is %d, want %d to %d", test.share, got, test.low, test.high)
		}
	}
	last := time.Duration(0)
	for share := 0.0; share <= 1; share += .01 {
		got := h.quantile(share)
		if got < last {
			t.Errorf("quantile %v is %v, after %v", share, got, last)
		}
		last = got
	}
}
