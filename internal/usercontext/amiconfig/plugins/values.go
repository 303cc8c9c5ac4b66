package plugins

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// list splits a value at commas, trims, and leaves out empty entries.
func list(value string) []string {
	var out []string
	for entry := range strings.SplitSeq(value, ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			out = append(out, entry)
		}
	}
	return out
}

// truth reads a boolean as contexts write it.
func truth(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "on", "yes", "true", "1":
		return true, nil
	case "off", "no", "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", value)
}

func number(value string, low, high int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a number from %d to %d", value, low, high)
	}
	return n, nil
}

// host checks the name or address of a computer.
func host(value string) error {
	if _, err := netip.ParseAddr(value); err == nil || guest.ValidHostname(value) {
		return nil
	}
	return fmt.Errorf("%q is not the name or address of a host", value)
}

// unquote removes one surrounding pair of quotes: people put them there to get a
// value past the original's unquoted files.
func unquote(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}

// decode reads base64, blanks and line breaks ignored.
func decode(value string) ([]byte, error) {
	packed := strings.Map(func(c rune) rune {
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			return -1
		}
		return c
	}, value)
	data, err := base64.StdEncoding.DecodeString(packed)
	if err != nil {
		data, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(packed, "="))
	}
	if err != nil {
		return nil, fmt.Errorf("not base64")
	}
	return data, nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.,:/@%+=-]*$`)

// shellWord writes a value so that every reader of CernVM's configuration files
// gets it back: sh sourcing the file, and the init scripts' own reader, which
// drops double quotes and expands the rest.
//
// Differs: the original writes values as they are, so that a blank or ";" in one
// runs a command when the file is sourced (cernvm-config: etc/cernvm/config).
func shellWord(value string) (string, error) {
	switch {
	case strings.ContainsAny(value, "\n\r\x00"):
		return "", fmt.Errorf("the value has a line break in it")
	case plainWord.MatchString(value):
		return value, nil
	case !strings.ContainsAny(value, "\"$`\\"):
		return `"` + value + `"`, nil
	case !strings.Contains(value, "'"):
		return "'" + value + "'", nil
	}
	return "", fmt.Errorf("the value has both kinds of quotes in it")
}

// variable is a name of the shell.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// assignments keeps a file of lines NAME=value.
type assignments struct {
	file   string
	set    []assignment
	secret bool // a value in it is not to be shown
}

type assignment struct{ name, value string }

// put notes one value. Compat: an empty value removes the name.
func (a *assignments) put(name, value string) { a.set = append(a.set, assignment{name, value}) }

// write changes the file: each name once, where it first stood, by its whole name.
//
// Differs: the original matches by prefix, so that writing CERNVM_USER removes
// CERNVM_USER_SHELL (cernvm-config: etc/cernvm/config).
func (a *assignments) write(root *guest.Root) error {
	if len(a.set) == 0 {
		return nil
	}
	var p problems
	lines := make([]assignment, 0, len(a.set))
	for _, s := range a.set {
		word, err := shellWord(s.value)
		if err != nil {
			p.addf("%s in %s: %w", s.name, a.file, err)
			continue
		}
		lines = append(lines, assignment{s.name, word})
	}
	p.add(root.Edit(a.file, guest.Attr{Mode: 0o644, Secret: a.secret}, func(old []string) []string {
		for _, s := range lines {
			old = assign(old, s.name, s.value)
		}
		return old
	}))
	return p.err()
}

// assign sets one name in lines NAME=value; an empty value removes it.
func assign(lines []string, name, value string) []string {
	var out []string
	done := value == ""
	for _, l := range lines {
		trimmed := strings.TrimPrefix(strings.TrimLeft(l, " \t"), "export ")
		if !strings.HasPrefix(trimmed, name+"=") {
			out = append(out, l)
			continue
		}
		if !done {
			out, done = append(out, name+"="+value), true
		}
	}
	if !done {
		out = append(out, name+"="+value)
	}
	return out
}

// directives sets lines "key value" of a file: the first line with that key as
// its first word, further ones removed, or a new line at the end.
//
// Differs: the original also replaces lines whose key only begins so
// (cernvm/amiconfig/plugins, editor of nss, yp and ldap).
func directives(lines []string, key, value string) []string {
	var out []string
	done := false
	for _, l := range lines {
		if f := strings.Fields(l); len(f) == 0 || f[0] != key {
			out = append(out, l)
			continue
		}
		if !done {
			out, done = append(out, key+" "+value), true
		}
	}
	if !done {
		out = append(out, key+" "+value)
	}
	return out
}

// oneLine checks a value that is written into a configuration file.
func oneLine(key, value string) error {
	if strings.ContainsAny(value, "\n\r\x00") {
		return fmt.Errorf("%s: the value has a line break in it", key)
	}
	return nil
}
