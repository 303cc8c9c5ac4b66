package stage_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/stage"
)

func TestLineRoundTrip(t *testing.T) {
	want := stage.Event{
		Stage: "network", State: stage.Failed, Seconds: 1.25, Uptime: 3.5,
		Detail: "no lease on \"eth0\"\nafter 30 s", Remedy: "check the cable",
		Facts: map[string]string{"interface": "eth0"},
	}
	line := want.Line()
	if n := strings.Count(strings.Trim(line, "\r\n"), "\n"); n != 0 {
		t.Errorf("Line() has %d inner line breaks, want 0", n)
	}
	got, ok := stage.Parse("[  1.234] audit: " + strings.TrimSpace(line) + " trailing noise")
	if !ok {
		t.Fatalf("Parse(%q) found nothing", line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
}

func TestNaNStillSpeaks(t *testing.T) {
	if _, ok := stage.Parse(stage.Event{Stage: "x", State: stage.Done, Seconds: math.NaN()}.Line()); !ok {
		t.Error("an event with NaN seconds was lost")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("@mica {\"stage\":\"a\",\"state\":\"done\"}")
	f.Add("@mica {")
	f.Add("@mica null")
	f.Fuzz(func(t *testing.T, line string) {
		e, ok := stage.Parse(line)
		if ok && (e.Stage == "" || e.State == "") {
			t.Errorf("Parse(%q) = %+v, want no event without stage and state", line, e)
		}
	})
}
