package machine

import (
	"time"

	"github.com/micavm/mica/internal/stage"
)

// Diagnose judges a machine by its console.
func Diagnose(m Machine, log []byte, now time.Time) Diagnosis {
	d := Diagnosis{Name: m.Name, State: m.State}
	diagnose(m, log, now, &d)
	return d
}

// Reached makes f call do at each step of making and removing a machine.
func (f *Fleet) Reached(do func(step string)) { f.reached = do }

// The state machine's extent, and what is tested by itself.
var (
	States         = states
	Actions        = actions
	CheckBootImage = checkBootImage
	TooMuchOf      = tooMuch
)

// FeedEvents returns the events in console output that comes in pieces.
func FeedEvents(pieces ...[]byte) []stage.Event {
	var all []stage.Event
	var parse events
	for _, p := range pieces {
		parse.feed(p, func(e stage.Event) { all = append(all, e) })
	}
	return all
}

// ReadRecords reads the records of all machines and says how many there are.
func (f *Fleet) ReadRecords() int { return len(f.records("")) }
