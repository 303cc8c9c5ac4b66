package usercontext

import "strings"

// Amiconfig is what amiconfig reads from a context: sections with options.
type Amiconfig struct {
	// Sections in the order of their first header; headers of the same name are
	// one section. The section DEFAULT is not among them: amiconfig never asks
	// for it, and its options are not inherited.
	Sections []Section
	Headers  []Header  // every header line
	Options  []Option  // every option line, also those that a later one replaces
	Dropped  []Dropped // every line in or after the first section that has no effect
}

// Section is one section: its options as they stand at the end, in the order in
// which their keys first appeared.
type Section struct {
	Name    string
	Line    int // of the first header
	Options []Option
}

// Header is one line that opens a section.
type Header struct {
	Name string
	Line int
}

// Option is one line `key=value` or `key: value`.
type Option struct {
	Section     string
	Key         string // lower case, trimmed
	RawKey      string // as written
	Separator   byte   // '=' or ':'
	Value       string // trimmed, cut at a comment
	RawValue    string // everything after the separator and blanks, up to the line end
	Line        int
	ValueColumn int
}

// Dropped is a line without effect.
type Dropped struct {
	Line int
	Text string
	Why  DropReason
}

// DropReason says why a line has no effect.
type DropReason uint8

// The reasons for a line to be dropped.
const (
	DroppedBlank       DropReason = iota // nothing but white space
	DroppedComment                       // # or ; in column 1, or the word rem
	DroppedIndented                      // white space first: there are no continuation lines
	DroppedNoSeparator                   // neither "=" nor ":", or one of them first
)

// ParseAmiconfig reads sections and options exactly as amiconfig does, from the
// whole of data, a leading script included.
//
// Compat: amiconfig: rpath/amiconfig/userdata.py, which first keeps only header
// and option lines, and then reads them with Python 2.7's ConfigParser.
func ParseAmiconfig(data []byte) *Amiconfig {
	return parseAmiconfig(splitLines(data))
}

func parseAmiconfig(lines []line) *Amiconfig {
	a := &Amiconfig{}
	current := "" // a header's name is never empty
	sections := map[string]int{}
	options := map[[2]string]int{}
	for _, l := range lines {
		if name, ok := sectionHeader(l.text); ok {
			current = name
			a.Headers = append(a.Headers, Header{name, l.number})
			if _, known := sections[name]; !known && name != defaultSection {
				sections[name] = len(a.Sections)
				a.Sections = append(a.Sections, Section{Name: name, Line: l.number})
			}
			continue
		}
		if current == "" {
			continue
		}
		o, why, ok := option(l)
		if !ok {
			a.Dropped = append(a.Dropped, Dropped{l.number, l.text, why})
			continue
		}
		o.Section = current
		a.Options = append(a.Options, o)
		if current == defaultSection {
			continue
		}
		s := &a.Sections[sections[current]]
		if at, known := options[[2]string{current, o.Key}]; known {
			s.Options[at] = o
			continue
		}
		options[[2]string{current, o.Key}] = len(s.Options)
		s.Options = append(s.Options, o)
	}
	return a
}

const defaultSection = "DEFAULT"

// option reads a line that is not a header.
func option(l line) (Option, DropReason, bool) {
	text := l.text
	trimmed := trimSpace(text)
	if trimmed == "" {
		return Option{}, DroppedBlank, false
	}
	at := strings.IndexAny(text, ":=")
	comment := text[0] == '#' || text[0] == ';' || isRem(text)
	switch {
	case comment:
		return Option{}, DroppedComment, false
	case isSpace(text[0]):
		return Option{}, DroppedIndented, false
	case at <= 0:
		return Option{}, DroppedNoSeparator, false
	}
	raw := trimLeftSpace(text[at+1:])
	o := Option{
		Key: lowerASCII(trimRightSpace(text[:at])), RawKey: trimRightSpace(text[:at]),
		Separator: text[at], RawValue: raw, Value: optionValue(raw),
		Line: l.number, ValueColumn: len(text) - len(raw) + 1,
	}
	return o, 0, true
}

// isRem reports whether the first word of the line is rem, in any case.
func isRem(text string) bool {
	if len(text) < 3 || lowerASCII(text[:3]) != "rem" {
		return false
	}
	return len(text) == 3 || isSpace(text[3])
}

// optionValue cuts a comment off and trims.
//
// Compat: only the first ";" is looked at, and it starts a comment when the byte
// before it is white space. When it is the very first byte, the byte "before" is
// the value's last one, as in Python's negative index.
func optionValue(raw string) string {
	if at := strings.IndexByte(raw, ';'); at >= 0 {
		before := raw[len(raw)-1]
		if at > 0 {
			before = raw[at-1]
		}
		if isSpace(before) {
			raw = raw[:at]
		}
	}
	raw = trimSpace(raw)
	if raw == `""` {
		return ""
	}
	return raw
}

// Section returns the options of a section, with its name in exactly this case.
func (a *Amiconfig) Section(name string) ([]Option, bool) {
	for _, s := range a.Sections {
		if s.Name == name {
			return s.Options, true
		}
	}
	return nil, false
}

// Get returns the value of an option; key is lower case.
func (a *Amiconfig) Get(section, key string) (string, bool) {
	options, _ := a.Section(section)
	for _, o := range options {
		if o.Key == key {
			return o.Value, true
		}
	}
	return "", false
}
