package usercontext

import "fmt"

// Severity says how much a Problem matters.
type Severity uint8

// The severities, least first.
const (
	Note    Severity = iota // worth knowing, changes nothing
	Warning                 // works, perhaps not as meant
	Error                   // does not work somewhere it should
)

// String returns note, warning or error.
func (s Severity) String() string {
	switch s {
	case Note:
		return "note"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// MarshalText makes JSON show the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Problem is something a reader of a context met and its author should know.
// Rule is the rule's code in the reference of context keys. Texts never contain
// a value that may be secret.
type Problem struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Line     int      `json:"line"`   // from 1; 0 = the context as a whole
	Column   int      `json:"column"` // in bytes from 1; 0 = the whole line
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy,omitempty"`
}

// String prints line, column, severity, rule and text, without the file's name.
func (p Problem) String() string {
	return fmt.Sprintf("%d:%d: %s %s %s", p.Line, p.Column, p.Severity, p.Rule, p.Text)
}
