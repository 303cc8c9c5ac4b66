package progress_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/progress"
)

func TestLinesSayEachPhaseOnce(t *testing.T) {
	var out bytes.Buffer
	s := progress.Lines(&out)
	for i := range 5 {
		s.Emit(progress.Event{ID: "image", Phase: "packing", Done: int64(i) * 1000, Total: 4000, Unit: progress.Bytes})
	}
	s.Emit(progress.Event{ID: "image", Phase: "packed", Done: 4000, Unit: progress.Bytes, Finished: true})
	want := regexp.MustCompile(`^image: packing\nimage: packed: 4\.0 kB in \d+\.\d s\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("output = %q, want %s", out.String(), want)
	}
}

func TestBarsEnd(t *testing.T) {
	var out bytes.Buffer
	b := progress.NewBars(&out)
	b.Emit(progress.Event{ID: "a", Phase: "reading", Done: 1, Total: 2, Unit: progress.Objects})
	b.Emit(progress.Event{ID: "a", Phase: "read", Done: 2, Total: 2, Unit: progress.Objects, Finished: true})
	b.Emit(progress.Event{ID: "b", Phase: "never ends"})
	b.Wait() // must not hang on b
	_ = out
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	progress.JSON(&out).Emit(progress.Event{ID: "a", Phase: "reading", Done: 1})
	if want := `{"id":"a","phase":"reading","done":1}`; strings.TrimSpace(out.String()) != want {
		t.Errorf("output = %s, want %s", out.String(), want)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 17_825_792: "17.8 MB", 1 << 40: "1.1 TB"} {
		if got := progress.Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}
