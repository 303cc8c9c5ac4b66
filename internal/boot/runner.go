package boot

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/micavm/mica/internal/boot/disk"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/stage"
)

// report is what a stage says about itself while it runs.
type report struct {
	detail string
	facts  map[string]string
}

// say sets what is shown as the result of the stage.
func (r *report) say(format string, args ...any) { r.detail = fmt.Sprintf(format, args...) }

// fact adds something that the host keeps. Empty values are left out.
func (r *report) fact(key, value string) {
	if value == "" {
		return
	}
	if r.facts == nil {
		r.facts = map[string]string{}
	}
	r.facts[key] = value
}

// outcome is a result other than success that is not a failure.
type outcome struct {
	state stage.State
	err   error
}

func (o *outcome) Error() string { return o.err.Error() }
func (o *outcome) Unwrap() error { return o.err }

// skipped says that a stage had nothing to do.
func skipped(format string, args ...any) error {
	return &outcome{stage.Skipped, fmt.Errorf(format, args...)}
}

// warned says that a stage did its work, but not as it wished. The boot goes on
// even if the stage's failures are fatal.
func warned(err error) error { return &outcome{stage.Warned, err} }

// Decision is what is to be done about a fatal failure.
type Decision int

// The decisions.
const (
	Retry Decision = iota
	GoOn
	Restart
)

// ErrRestart says that the person, or the time limit, at the menu asked for a
// restart of the machine.
var ErrRestart = errors.New("restart of the machine")

// runner runs a list of stages.
type runner struct {
	stages []Stage
	state  *state
	emit   func(stage.Event)           // to the host and the record
	show   func(s Stage, ended ending) // to a person
	rescue func(ctx context.Context, s Stage, e stage.Event) Decision
	before func(ctx context.Context, s Stage) // cvm_break; may be nil
	serial bool                               // one at a time: somebody is debugging
	uptime func() float64
}

// ending is how a stage ended.
type ending struct {
	state   stage.State
	detail  string
	remedy  string
	facts   map[string]string
	seconds float64
}

// checkStages checks a list: names are there and unique, needs stand earlier.
func checkStages(list []Stage) error {
	seen := map[string]bool{}
	for _, s := range list {
		if s.Name == "" || s.Text == "" || s.Run == nil || seen[s.Name] {
			return fmt.Errorf("stage %q: incomplete or listed twice", s.Name)
		}
		for _, need := range s.Needs {
			if !seen[need] {
				return fmt.Errorf("stage %q needs %q, which does not stand before it", s.Name, need)
			}
		}
		seen[s.Name] = true
	}
	return nil
}

// run runs every stage, as many at a time as their needs allow. It returns nil
// when all are over, ErrRestart, or the error of ctx.
func (r *runner) run(ctx context.Context) error {
	if err := checkStages(r.stages); err != nil {
		return err
	}
	type result struct {
		index int
		end   ending
	}
	results := make(chan result)
	const waiting, running, over = 0, 1, 2
	status := make([]int, len(r.stages))
	position := map[string]int{}
	for i, s := range r.stages {
		position[s.Name] = i
	}
	active := 0
	var broken []result // fatal failures that wait for the running stages to end
	for {
		if len(broken) == 0 && ctx.Err() == nil {
			for i, s := range r.stages {
				if status[i] != waiting || r.serial && active > 0 {
					continue
				}
				ready := true
				for _, need := range s.Needs {
					ready = ready && status[position[need]] == over
				}
				if !ready {
					continue
				}
				status[i] = running
				active++
				if r.before != nil {
					r.before(ctx, s)
				}
				r.emit(stage.Event{Stage: s.Name, State: stage.Started, Uptime: r.uptime()})
				go func() { results <- result{i, r.one(ctx, s)} }()
			}
		}
		if active == 0 {
			if len(broken) == 0 {
				return ctx.Err()
			}
			b := broken[0]
			broken = broken[1:]
			s := r.stages[b.index]
			switch r.rescue(ctx, s, b.end.event(s.Name, r.uptime())) {
			case Retry:
				status[b.index] = waiting
			case GoOn:
				status[b.index] = over
			default:
				return ErrRestart
			}
			continue
		}
		done := <-results
		active--
		s := r.stages[done.index]
		r.emit(done.end.event(s.Name, r.uptime()))
		r.show(s, done.end)
		status[done.index] = over
		if done.end.state == stage.Failed {
			status[done.index] = running // neither over nor waiting, until decided
			broken = append(broken, done)
		}
	}
}

func (e ending) event(name string, uptime float64) stage.Event {
	return stage.Event{Stage: name, State: e.state, Seconds: e.seconds, Uptime: uptime, Detail: e.detail, Remedy: e.remedy, Facts: e.facts}
}

// one runs one stage and says how it ended. A panic is a failure like any other
// of a stage: PID 1 must not die of it.
func (r *runner) one(ctx context.Context, s Stage) (e ending) {
	began := time.Now()
	rep := &report{}
	var err error
	func() {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("bug in the boot code: %v\n%s", p, firstFrames(debug.Stack()))
			}
		}()
		err = s.Run(ctx, r.state, rep)
	}()
	e = ending{state: stage.Done, detail: rep.detail, facts: rep.facts, seconds: milliseconds(time.Since(began).Seconds())}
	var o *outcome
	switch {
	case err == nil:
		return e
	case errors.As(err, &o):
		e.state = o.state
	case s.Policy == Fatal:
		e.state = stage.Failed
	default:
		e.state = stage.Warned
	}
	e.detail, e.remedy = err.Error(), remedy(err)
	return e
}

// milliseconds rounds seconds for people and files.
func milliseconds(seconds float64) float64 { return math.Round(seconds*1000) / 1000 }

// remedy collects what an error says can be done about it.
func remedy(err error) string {
	hints := fail.Hints(err)
	var none *disk.NoDisk
	if errors.As(err, &none) && none.Remedy != "" {
		hints = append(hints, none.Remedy)
	}
	var many *disk.Ambiguous
	if errors.As(err, &many) && many.Remedy != "" {
		hints = append(hints, many.Remedy)
	}
	var once []string
	for _, h := range hints {
		if !slices.Contains(once, h) {
			once = append(once, h)
		}
	}
	return strings.Join(once, "; ")
}

// firstFrames cuts a stack to the lines that say where it happened.
func firstFrames(stack []byte) string {
	const most = 24
	lines := strings.Split(string(stack), "\n")
	return strings.Join(lines[:min(len(lines), most)], "\n")
}
