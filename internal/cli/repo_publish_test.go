package cli

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/micavm/mica/cvmfs/publish"
)

// A publication of many files keeps less garbage, one of few is not slowed down.
func TestThrifty(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	reports := 0
	report := thrifty(func(publish.Progress) { reports++ })
	few := func() int {
		runtime.GC()
		for range 256 {
			report(publish.Progress{})
		}
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		return percent
	}
	if got := few(); got != 100 {
		t.Errorf("with little in use %d percent of garbage are kept, want 100", got)
	}
	entries := make([]byte, publishSmall+1)
	if got := few(); got != publishGarbage {
		t.Errorf("with %d bytes in use %d percent of garbage are kept, want %d", len(entries), got, publishGarbage)
	}
	runtime.KeepAlive(entries)
	if reports != 512 {
		t.Errorf("%d reports of 512 were passed on", reports)
	}
}
