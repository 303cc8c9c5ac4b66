package progress

// Unit says what Done and Total count.
type Unit string

// The units.
const (
	Bytes   Unit = "bytes"
	Objects Unit = "objects"
	Steps   Unit = "steps"
)

// Event is one sign of life. Events of one piece of work share an ID; Phase is
// what is being done in a few words, in the present participle ("unpacking
// kernel"). Total is zero where it is not known; Finished marks the last event
// of an ID.
type Event struct {
	ID       string `json:"id"`
	Phase    string `json:"phase"`
	Done     int64  `json:"done,omitempty"`
	Total    int64  `json:"total,omitempty"`
	Unit     Unit   `json:"unit,omitempty"`
	Finished bool   `json:"finished,omitempty"`
}

// Sink takes events. It may be called from several goroutines at once and must
// not block for long.
type Sink interface{ Emit(Event) }

// Discard drops every event.
var Discard Sink = discard{}

type discard struct{}

func (discard) Emit(Event) {}

// Or returns s, or Discard where s is nil, so that a caller may leave it out.
func Or(s Sink) Sink {
	if s == nil {
		return Discard
	}
	return s
}
