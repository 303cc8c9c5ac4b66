package machine_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/stage"
)

// FuzzEvents sees that events are the same in whatever pieces the console comes.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("noise\r\n@mica {\"stage\":\"a\",\"state\":\"done\"}\r\n"), 7)
	f.Add([]byte("[ 1.0] x @mica {\"stage\":\"a\",\"state\":\"done\"} y\n@mica {\n@mica "), 1)
	f.Add(bytes.Repeat([]byte("x"), 200_000), 5000)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		if piece < 1 {
			piece = 1
		}
		whole := machine.FeedEvents(data)
		var pieces [][]byte
		for rest := data; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			pieces = append(pieces, rest[:min(piece, len(rest))])
		}
		if len(data) > 32<<10 { // beyond that, lines may be cut where pieces end
			return
		}
		if diff := cmp.Diff(whole, machine.FeedEvents(pieces...)); diff != "" {
			t.Errorf("in pieces of %d (-whole +pieces):\n%s", piece, diff)
		}
	})
}

// TestEventsSurviveNoise sees that an endless line does not swallow memory, nor
// the event after it.
func TestEventsSurviveNoise(t *testing.T) {
	noise := bytes.Repeat([]byte("x"), 10_000)
	var pieces [][]byte
	for range 1000 {
		pieces = append(pieces, noise)
	}
	pieces = append(pieces, []byte("\n"), []byte(strings.TrimLeft(stage.Event{Stage: "a", State: stage.Done}.Line(), "\r\n")))
	if got := machine.FeedEvents(pieces...); len(got) != 1 || got[0].Stage != "a" {
		t.Errorf("events = %v, want one", got)
	}
}
