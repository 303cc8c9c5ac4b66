package stage

import (
	"encoding/json"
	"strings"
)

// Program is where the guest's program lies in the running system, for whoever
// runs one of its commands there.
const Program = "/run/initramfs/bin/mica-guest"

// Mark begins every event line.
const Mark = "@mica "

// State says where a stage stands.
type State string

// The states. Every stage that starts ends in one of the other four.
const (
	Started State = "started"
	Done    State = "done"
	Skipped State = "skipped" // had nothing to do, Detail says why
	Warned  State = "warned"  // went on without what it wanted, Detail says what
	Failed  State = "failed"  // the boot stops here; Detail and Remedy say why and what to do
)

// Names of the events that the host waits for. The names of the boot stages
// themselves belong to the guest.
const (
	HandOver = "handover" // the operating system's own init takes over
	Apply    = "apply"    // the context was applied by the running system
	Plugin   = "plugin"   // one part of it; Facts name it
)

// Event is one report.
type Event struct {
	Stage   string  `json:"stage"`
	State   State   `json:"state"`
	Seconds float64 `json:"seconds,omitempty"` // how long the stage took
	Uptime  float64 `json:"uptime,omitempty"`  // seconds since the kernel started
	Detail  string  `json:"detail,omitempty"`
	Remedy  string  `json:"remedy,omitempty"`

	// Facts are things found out on the way that the host keeps, such as
	// "ssh_host_key", "root_hash" or "downloaded_bytes".
	Facts map[string]string `json:"facts,omitempty"`
}

// Line returns the event as it goes on the console, with its line breaks.
func (e Event) Line() string {
	data, err := json.Marshal(e)
	if err != nil { // strings, floats and a map of strings always encode, but NaN does not
		data, _ = json.Marshal(Event{Stage: e.Stage, State: e.State, Detail: e.Detail, Remedy: e.Remedy, Facts: e.Facts})
	}
	return "\r\n" + Mark + string(data) + "\r\n"
}

// Parse finds the event in one line of console output.
func Parse(line string) (Event, bool) {
	_, text, found := strings.Cut(line, Mark)
	if !found {
		return Event{}, false
	}
	var e Event
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&e); err != nil || e.Stage == "" || e.State == "" {
		return Event{}, false
	}
	return e, true
}
