package usercontext

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// Script is the script at the start of a context.
type Script struct {
	Present bool // the first line that is not blank starts with #!
	// Before and After say in which phase Mica runs it: before or after the
	// plugins. Both are false for an interpreter that is no shell.
	Before, After bool
	// Text is the script without the sections behind it, blank lines kept.
	// Bounded is false when its end was not found, so that Text holds everything.
	Text    []byte
	Bounded bool
	Line    int // of the #! line
	// Guarded says that the script looks for amiconfig among the processes above
	// it, as the public contexts do so that it ends when cloud-init runs it.
	Guarded bool
	End     int // the last line of Text
	// CloudInit says that the script is a MIME part that cloud-init runs: where the
	// operating system has cloud-init, nobody else should.
	CloudInit bool
	// Original is what amiconfig itself does with it.
	Original OriginalScript
}

// OriginalScript is amiconfig's view of the script: the text it executes, which
// has lost its blank lines and reaches to the end of the file.
type OriginalScript struct {
	Before, After bool
	Text          []byte
	Line          int    // where Text starts; 0 = nothing is executed
	Why           string // why nothing runs, when nothing does
}

var (
	blankLine   = regexp.MustCompile(`^ *$`)
	shellLine   = regexp.MustCompile(`#!.*sh`)
	beforeLine  = regexp.MustCompile(`#!.*sh.*before`)
	afterLine   = regexp.MustCompile(`#!.*sh(.*after|$)`)
	interpreter = regexp.MustCompile(`^#![ \t]*(?:/\S*/)?(?:env[ \t]+(?:-\S+[ \t]+)*)?(?:/\S*/)?(?:ba|da|a|k|z|mk)?sh(?:\.before|\.after)?(?:[ \t]|$)`)
	phaseEnding = regexp.MustCompile(`^#!.*sh\.(?:before|after)`)
	exitLine    = regexp.MustCompile(`^exit(?:[ \t;]|$)`)
)

// ParseScript finds the script at the start of data.
//
// Compat: amiconfig: hepix/commands/amiconfig.sh, RunUserDataScript, in the field
// Original.
//
// Differs: Mica takes the phase from the first line alone, so that a here-document
// with a #! line of its own does not make a script run twice; it accepts
// interpreter options and carriage returns; it keeps blank lines; and it cuts the
// sections off where they follow an exit.
func ParseScript(data []byte) Script { return parseScript(splitLines(data)) }

func parseScript(lines []line) Script {
	first := slices.IndexFunc(lines, func(l line) bool { return strings.Trim(l.text, " \t\r") != "" })
	if first < 0 || !strings.HasPrefix(lines[first].text, "#!") {
		return Script{Original: originalScript(lines)}
	}
	s := Script{Present: true, Line: lines[first].number, Original: originalScript(lines)}
	top := strings.TrimSuffix(lines[first].text, "\r")
	if interpreter.MatchString(top) {
		s.Before = beforeLine.MatchString(top)
		s.After = !s.Before || afterLine.MatchString(top)
	}
	end := scriptEnd(lines, first)
	s.Bounded = end < len(lines)
	s.End = lines[end-1].number
	s.Text = join(lines[first:end])
	s.Guarded = bytes.Contains(s.Text, []byte("/proc/")) && bytes.Contains(s.Text, []byte("cmdline")) && bytes.Contains(s.Text, []byte("amiconfig"))
	return s
}

// scriptEnd returns the index of the first line that no longer belongs to the
// script: a known header whose nearest line above, other than blanks and
// comments, is an exit at the left margin.
func scriptEnd(lines []line, first int) int {
	exited := false
	for i := first + 1; i < len(lines); i++ {
		text := strings.TrimSuffix(lines[i].text, "\r")
		name, header := sectionHeader(text)
		switch {
		case exited && header && (text == BlockBegin || KnownSection(lowerASCII(name))):
			// Comments above a section belong to it.
			for i > first+1 && !exitLine.MatchString(strings.TrimSuffix(lines[i-1].text, "\r")) {
				i--
			}
			return i
		case exitLine.MatchString(text):
			exited = true
		case strings.Trim(text, " \t") != "" && text[0] != '#' && text[0] != ';':
			exited = false
		}
	}
	return len(lines)
}

// join puts lines together again, without their carriage returns.
func join(lines []line) []byte {
	var out bytes.Buffer
	for _, l := range lines {
		if !l.ended {
			out.WriteString(l.text)
			continue
		}
		out.WriteString(strings.TrimSuffix(l.text, "\r"))
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func originalScript(lines []line) OriginalScript {
	var o OriginalScript
	kept := slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return blankLine.MatchString(l.text) })
	if len(kept) == 0 || !strings.HasPrefix(kept[0].text, "#!") {
		o.Why = "the first line does not start with #!"
		return o
	}
	var start int
	for i, l := range kept {
		o.Before = o.Before || beforeLine.MatchString(l.text)
		o.After = o.After || afterLine.MatchString(l.text)
		if o.Line == 0 && shellLine.MatchString(l.text) {
			o.Line, start = l.number, i
		}
	}
	if !o.Before && !o.After {
		o.Line = 0
		o.Why = "no line names a shell the way amiconfig looks for it"
		if strings.HasSuffix(kept[0].text, "\r") {
			o.Why = "a carriage return ends the #! line"
		}
		return o
	}
	if strings.HasSuffix(kept[start].text, "\r") {
		// The phase may match, but the kernel finds no interpreter of that name.
		return OriginalScript{Why: "a carriage return ends the #! line, so no interpreter of that name exists"}
	}
	var text bytes.Buffer
	for _, l := range kept[start:] {
		text.WriteString(l.text)
		text.WriteByte('\n')
	}
	o.Text = text.Bytes()
	return o
}
