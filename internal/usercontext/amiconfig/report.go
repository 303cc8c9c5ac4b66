package amiconfig

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/micavm/mica/internal/stage"
)

// Report is what came of one run.
type Report struct {
	Schema     int         `json:"schema"`
	State      stage.State `json:"state"` // done, warned, failed, skipped
	Detail     string      `json:"detail,omitempty"`
	InstanceID string      `json:"instance_id,omitempty"`
	Context    string      `json:"context_sha256,omitempty"`
	First      bool        `json:"first"` // the once-per-machine part ran
	Began      time.Time   `json:"began"`
	Seconds    float64     `json:"seconds"`

	Scripts  []ScriptResult `json:"scripts,omitempty"`
	Plugins  []PluginResult `json:"plugins,omitempty"`
	Users    []string       `json:"users,omitempty"` // accounts of the context
	Warnings []string       `json:"warnings,omitempty"`

	// Facts go to the host with the last event.
	Facts map[string]string `json:"facts,omitempty"`
}

// ScriptResult is one run of the context's script.
type ScriptResult struct {
	Phase   string  `json:"phase"` // before or after
	Code    int     `json:"exit_code"`
	Seconds float64 `json:"seconds"`
	Log     string  `json:"log,omitempty"`
	Problem string  `json:"problem,omitempty"` // it did not run, or was stopped
}

// The codes of the original for a plugin's result.
const (
	CodeDone     = 0
	CodeMetadata = 1 // only for a context that could not be fetched
	CodeFailed   = 2
	CodeDisabled = 3
)

// PluginResult is what one plugin did.
type PluginResult struct {
	Name    string      `json:"name"`
	Code    int         `json:"code"`
	State   stage.State `json:"state"`
	Seconds float64     `json:"seconds"`
	Message string      `json:"message,omitempty"`
	Actions int         `json:"actions"` // how many things it did
}

// ExitCode is the exit code of the command for this report.
func (r Report) ExitCode() int {
	if r.State == stage.Failed {
		return 1
	}
	return 0
}

// JSON is the report as it is stored.
func (r Report) JSON() []byte {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil { // strings, numbers and times always encode
		return []byte("{}\n")
	}
	return append(data, '\n')
}

// Log is the report as a person reads it.
func (r Report) Log() string {
	var b strings.Builder
	stamp := r.Began.UTC().Format(time.RFC3339)
	line := func(format string, args ...any) {
		text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
		b.WriteString(stamp + " " + text + "\n")
	}
	what := "later boot"
	if r.First {
		what = "first boot"
	}
	line("context of machine %q, %s", r.InstanceID, what)
	for _, w := range r.Warnings {
		line("warning: %s", w)
	}
	for _, s := range r.Scripts {
		if s.Phase == "before" {
			line("%s", s)
		}
	}
	for _, p := range r.Plugins {
		if p.State == stage.Skipped {
			continue
		}
		line("plugin %s: %s after %.2f s, %d actions%s", p.Name, p.State, p.Seconds, p.Actions, colon(p.Message))
	}
	for _, s := range r.Scripts {
		if s.Phase == "after" {
			line("%s", s)
		}
	}
	line("%s after %.2f s%s", r.State, r.Seconds, colon(r.Detail))
	return b.String()
}

// String is the result in one line.
func (s ScriptResult) String() string {
	if s.Problem != "" {
		return fmt.Sprintf("script %s: %s", s.Phase, s.Problem)
	}
	return fmt.Sprintf("script %s: exit code %d after %.2f s, output in %s", s.Phase, s.Code, s.Seconds, s.Log)
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
