package usercontext

import (
	"fmt"
	"strings"
)

// Strict returns the sections as their author most likely meant them, and a
// Problem for every place where that differs from what amiconfig does: sections
// in a script do not count, names of sections match in any case, and lists of
// plugins add up instead of replacing each other.
func (c *Context) Strict() (*Amiconfig, []Problem) {
	var problems []Problem
	add := func(rule string, s Severity, line int, text, remedy string) {
		problems = append(problems, Problem{rule, s, line, 1, text, remedy})
	}
	script := c.Script()
	var lines []line
	for _, l := range c.plainLines() {
		l.text = strings.TrimSuffix(l.text, "\r")
		if script.Present && script.Bounded && l.number >= script.Line && l.number <= script.End {
			continue
		}
		if name, ok := sectionHeader(l.text); ok && !KnownSection(name) {
			if low := lowerASCII(strings.TrimSpace(name)); low != name && KnownSection(low) {
				add("I001", Error, l.number, fmt.Sprintf("section [%s]: names of sections are lower case, so amiconfig does not find it", name), "write ["+low+"]")
				l.text = "[" + low + "]"
			}
		}
		lines = append(lines, l)
	}
	a := parseAmiconfig(lines)
	for _, d := range a.Dropped {
		switch d.Why {
		case DroppedIndented:
			add("I005", Error, d.Line, "an indented line has no effect: there are no continuation lines", "put everything on one line")
		case DroppedNoSeparator:
			add("I005", Error, d.Line, "a line without \"=\" has no effect", "write key=value, or make it a comment with #")
		case DroppedBlank, DroppedComment:
		}
	}
	var all []string
	var last Option
	times := 0
	for _, o := range a.Options {
		if o.Section == "amiconfig" && o.Key == "plugins" {
			times++
			all = append(all, strings.FieldsFunc(o.Value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })...)
			last = o
		}
	}
	if times > 1 {
		last.Value = strings.Join(all, " ")
		options, _ := a.Section("amiconfig")
		for i := range options {
			if options[i].Key == last.Key {
				options[i] = last
			}
		}
	}
	return a, problems
}
