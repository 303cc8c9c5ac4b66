package amiconfig

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Change is one difference between what two contexts do.
type Change struct {
	Op     string   `json:"op"` // added, removed, changed
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Before string   `json:"before,omitempty"`
	After  string   `json:"after,omitempty"`
	Lines  []string `json:"lines,omitempty"` // of a file: with a leading "-", "+" or blank
}

// thing is one effect of a context, in a form that can be compared.
type thing struct {
	kind, name string
	value      string // in a few words
	text       string // content of a file, as far as it is shown
	hash       string
}

// things lists the effects, in the order people want to read them.
func (s Simulation) things() []thing {
	var list []thing
	add := func(kind, name, value string) { list = append(list, thing{kind: kind, name: name, value: value}) }
	if s.Hostname != "" {
		add("hostname", s.Hostname, "")
	}
	for _, u := range s.Users {
		value := fmt.Sprintf("uid %d, group %s, shell %s, home %s, password %s, %d public keys", u.UID, u.Group, u.Shell, u.Home, u.Password, u.Keys)
		if len(u.Groups) > 0 {
			value += ", also in " + strings.Join(u.Groups, " ")
		}
		add("user", u.Name, value)
	}
	for _, g := range s.Groups {
		add("group", g, "")
	}
	for _, f := range s.Files {
		value := f.Mode + " " + f.Owner
		switch {
		case f.Target != "":
			value = "-> " + f.Target
		case f.Kind == "file":
			value += fmt.Sprintf(", %d bytes", f.Size)
		}
		if f.Secret {
			value += ", secret"
		}
		list = append(list, thing{kind: f.Kind, name: f.Path, value: value, text: f.Preview, hash: f.SHA256})
	}
	for _, v := range s.Services {
		add("service", v.Name, strings.Join(v.Verbs, ", "))
	}
	for _, m := range s.Mounts {
		add("mount", m.Target, m.Source)
	}
	for _, k := range s.Sysctls {
		add("sysctl", k.Key, k.Value)
	}
	for _, p := range s.Scripts {
		add("script", p, "the context's own, not simulated")
	}
	for _, c := range s.Commands {
		add("command", c, "")
	}
	for _, n := range s.Network {
		add("network", n, "")
	}
	for _, p := range s.Plugins {
		if p.Message != "" {
			add("problem", p.Name, strings.ReplaceAll(p.Message, "\n", "; "))
		}
	}
	for _, w := range s.Warnings {
		add("warning", w, "")
	}
	return list
}

// Lines is the simulation for a person: one effect a line, its kind first.
func (s Simulation) Lines() []string {
	var out []string
	for _, t := range s.things() {
		line := fmt.Sprintf("%-10s %s", t.kind, t.name)
		if t.value != "" {
			line += "  (" + t.value + ")"
		}
		out = append(out, line)
	}
	return out
}

// Diff returns what differs between the effects of two contexts, in the order of
// the second one, what is gone last.
func Diff(a, b Simulation) []Change {
	before, after := index(a.things()), index(b.things())
	var changes []Change
	for _, t := range b.things() {
		old, ok := before[t.key()]
		switch {
		case !ok:
			changes = append(changes, Change{Op: "added", Kind: t.kind, Name: t.name, After: t.value, Lines: marked("+", t.text)})
		case old != t:
			c := Change{Op: "changed", Kind: t.kind, Name: t.name, Before: old.value, After: t.value}
			if old.text != t.text {
				c.Lines = lineDiff(old.text, t.text)
			}
			changes = append(changes, c)
		}
	}
	for _, t := range a.things() {
		if _, ok := after[t.key()]; !ok {
			changes = append(changes, Change{Op: "removed", Kind: t.kind, Name: t.name, Before: t.value, Lines: marked("-", t.text)})
		}
	}
	slices.SortStableFunc(changes, func(x, y Change) int {
		return cmp.Compare(slices.Index([]string{"changed", "added", "removed"}, x.Op), slices.Index([]string{"changed", "added", "removed"}, y.Op))
	})
	return changes
}

func (t thing) key() string { return t.kind + "\x00" + t.name }

func index(list []thing) map[string]thing {
	m := map[string]thing{}
	for _, t := range list {
		m[t.key()] = t
	}
	return m
}

func textLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func marked(mark, text string) []string {
	var out []string
	for _, l := range textLines(text) {
		out = append(out, mark+l)
	}
	return out
}

// lineDiff compares two short texts by their longest common subsequence of lines.
// Previews are at most 4096 bytes, so the table stays small.
func lineDiff(a, b string) []string {
	x, y := textLines(a), textLines(b)
	length := make([][]int, len(x)+1)
	for i := range length {
		length[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			out = append(out, " "+x[i])
			i, j = i+1, j+1
		case i < len(x) && (j == len(y) || length[i+1][j] >= length[i][j+1]):
			out = append(out, "-"+x[i])
			i++
		default:
			out = append(out, "+"+y[j])
			j++
		}
	}
	return out
}
