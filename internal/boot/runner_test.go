package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/boot/disk"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/stage"
)

// harness runs stages without a machine and keeps what was said.
type harness struct {
	mu        sync.Mutex // guards events and ran
	events    []stage.Event
	ran       []string
	asked     []string
	decisions []Decision
}

func (h *harness) stage(name string, policy Policy, needs string, run func() error) Stage {
	return Stage{Name: name, Text: name, Policy: policy, Needs: strings.Fields(needs), Run: func(_ context.Context, _ *state, r *report) error {
		h.mu.Lock()
		h.ran = append(h.ran, name)
		h.mu.Unlock()
		r.say("detail of %s", name)
		r.fact("name", name)
		return run()
	}}
}

func (h *harness) run(t *testing.T, list ...Stage) error {
	t.Helper()
	r := &runner{
		stages: list, state: &state{}, uptime: func() float64 { return 1 },
		emit: func(e stage.Event) { h.events = append(h.events, e) },
		show: func(Stage, ending) {},
		rescue: func(_ context.Context, s Stage, e stage.Event) Decision {
			h.asked = append(h.asked, s.Name)
			if e.State != stage.Failed || e.Detail == "" {
				t.Errorf("rescue of %s hears %+v", s.Name, e)
			}
			if len(h.decisions) == 0 {
				return Restart
			}
			d := h.decisions[0]
			h.decisions = h.decisions[1:]
			return d
		},
	}
	return r.run(t.Context())
}

func (h *harness) states() map[string]stage.State {
	m := map[string]stage.State{}
	for _, e := range h.events {
		if e.State != stage.Started {
			m[e.Stage] = e.State
		}
	}
	return m
}

func ok() error { return nil }

func TestTheListIsInOrder(t *testing.T) {
	list := stages()
	if err := checkStages(list); err != nil {
		t.Fatal(err)
	}
	if last := list[len(list)-1].Name; last != stage.HandOver {
		t.Errorf("the last stage is %q, want %q, for which the host waits", last, stage.HandOver)
	}
	// Each stage is a file of its name.
	for _, s := range list {
		if _, err := os.Stat(s.Name + ".go"); err != nil {
			t.Errorf("stage %q: %v", s.Name, err)
		}
	}
}

func TestCheckStages(t *testing.T) {
	h := &harness{}
	for name, list := range map[string][]Stage{
		"twice":       {h.stage("a", Fatal, "", ok), h.stage("a", Fatal, "", ok)},
		"unknown":     {h.stage("a", Fatal, "b", ok)},
		"later":       {h.stage("a", Fatal, "b", ok), h.stage("b", Fatal, "", ok)},
		"without run": {{Name: "a", Text: "a"}},
	} {
		if err := checkStages(list); err == nil {
			t.Errorf("%s: checkStages accepts it", name)
		}
	}
}

func TestPolicies(t *testing.T) {
	h := &harness{}
	bad := func() error { return fail.New(fail.Failed, "bad").Hint("do this").Hint("or that") }
	err := h.run(t,
		h.stage("fine", Fatal, "", ok),
		h.stage("warn", Warn, "fine", bad),
		h.stage("ignore", Ignore, "warn", bad),
		h.stage("skip", Fatal, "ignore", func() error { return skipped("nothing to do") }),
		h.stage("half", Fatal, "skip", func() error { return warned(errors.New("not as it should")) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]stage.State{"fine": stage.Done, "warn": stage.Warned, "ignore": stage.Warned, "skip": stage.Skipped, "half": stage.Warned}
	if diff := cmp.Diff(want, h.states()); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	for _, e := range h.events {
		switch {
		case e.State == stage.Started:
		case e.Stage == "warn" && (e.Detail != "bad" || e.Remedy != "do this; or that"):
			t.Errorf("warn says %q, %q", e.Detail, e.Remedy)
		case e.Stage == "fine" && (e.Detail != "detail of fine" || e.Facts["name"] != "fine"):
			t.Errorf("fine says %+v", e)
		}
	}
	// Every stage that starts ends.
	started := 0
	for _, e := range h.events {
		if e.State == stage.Started {
			started++
		}
	}
	if len(h.events) != 2*started {
		t.Errorf("%d events for %d stages", len(h.events), started)
	}
}

func TestRetryContinueRestart(t *testing.T) {
	h := &harness{decisions: []Decision{Retry, GoOn}}
	err := h.run(t, h.stage("a", Fatal, "", func() error { return errors.New("always") }), h.stage("b", Fatal, "a", ok))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "a", "b"}, h.ran); diff != "" {
		t.Errorf("ran (-want +got):\n%s", diff)
	}
	h = &harness{decisions: []Decision{Restart}}
	if err := h.run(t, h.stage("a", Fatal, "", func() error { return errors.New("always") }), h.stage("b", Fatal, "a", ok)); !errors.Is(err, ErrRestart) {
		t.Errorf("run = %v, want ErrRestart", err)
	}
	if slices.Contains(h.ran, "b") {
		t.Error("b ran after its need failed")
	}
}

func TestPanicIsAFailure(t *testing.T) {
	h := &harness{}
	err := h.run(t, h.stage("a", Fatal, "", func() error { var list []int; list[len(list)] = 1; return nil }))
	if !errors.Is(err, ErrRestart) || len(h.asked) != 1 {
		t.Fatalf("run = %v, asked %v; want the menu for a", err, h.asked)
	}
	for _, e := range h.events {
		if e.State == stage.Failed && (!strings.Contains(e.Detail, "bug in the boot code") || !strings.Contains(e.Detail, "runner_test.go")) {
			t.Errorf("the failure does not say where: %q", e.Detail)
		}
	}
}

// TestParallel proves that stages without a need of each other overlap, and that
// the menu waits for the one that is still running.
func TestParallel(t *testing.T) {
	h := &harness{}
	meet := make(chan struct{})
	slow := make(chan struct{})
	err := h.run(t,
		h.stage("a", Fatal, "", ok),
		h.stage("b", Fatal, "a", func() error {
			select {
			case meet <- struct{}{}:
				return nil
			case <-time.After(5 * time.Second):
				return errors.New("c did not run beside b")
			}
		}),
		h.stage("c", Fatal, "a", func() error {
			<-meet
			close(slow)
			return nil
		}),
		h.stage("d", Fatal, "b c", ok),
	)
	if err != nil {
		t.Fatal(err)
	}
	h = &harness{}
	finished := false
	err = h.run(t,
		h.stage("quick", Fatal, "", func() error { return errors.New("at once") }),
		h.stage("slow", Fatal, "", func() error { time.Sleep(50 * time.Millisecond); finished = true; return nil }),
	)
	if !errors.Is(err, ErrRestart) || !finished {
		t.Errorf("run = %v, slow finished = %v; want the menu after slow", err, finished)
	}
}

func TestRemedyOfDisks(t *testing.T) {
	err := fmt.Errorf("choosing: %w", &disk.NoDisk{Remedy: "attach a disk"})
	if got := remedy(err); got != "attach a disk" {
		t.Errorf("remedy = %q", got)
	}
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1e9, 0)
	for n := 1; n <= keptRecords+3; n++ {
		r := &Record{Version: "x"}
		r.add(stage.Event{Stage: "a", State: stage.Done, Seconds: float64(n)})
		if err := r.write(dir, now); err != nil {
			t.Fatal(err)
		}
		r.OK = true
		if err := r.write(dir, now); err != nil { // the same boot again
			t.Fatal(err)
		}
		if r.Boot != n {
			t.Fatalf("boot %d has the number %d", n, r.Boot)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != keptRecords {
		t.Errorf("%d records are kept, %v; want %d", len(files), err, keptRecords)
	}
	got, err := ReadRecord(dir)
	if err != nil || got.Boot != keptRecords+3 || !got.OK || got.Stages[0].Seconds != keptRecords+3 {
		t.Errorf("ReadRecord = %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "boot-99.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecord(dir); err == nil {
		t.Error("ReadRecord of a broken file succeeded")
	}
	if _, err := ReadRecord(t.TempDir()); err == nil {
		t.Error("ReadRecord of an empty folder succeeded")
	}
}

func TestNotesAreBounded(t *testing.T) {
	r := &Record{}
	for range 3 * mostNotes {
		r.note("x")
	}
	if len(r.Notes) != mostNotes {
		t.Errorf("%d notes, want %d", len(r.Notes), mostNotes)
	}
}
