package lint

import (
	"bytes"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

// Fix changes what can be changed without asking: the spelling of what is plainly
// meant, quotes, line ends and markers. Each change is kept only if it removes what
// it is for and brings up nothing else. It returns the text and the findings that
// are gone, in the order in which they went. A context that is packed, or on a
// medium, has no lines to change: give it unpacked.
func Fix(name string, text []byte, o Options) ([]byte, []usercontext.Problem) {
	var gone []usercontext.Problem
	var useless []usercontext.Problem // findings for which no change helped
	for range maxFixes {
		c, err := usercontext.Parse(name, text)
		if err != nil || len(c.Layers) > 0 {
			return text, gone
		}
		found := Check(c, o)
		i := slices.IndexFunc(found, func(p usercontext.Problem) bool {
			return fixes()[p.Rule] != nil && !slices.ContainsFunc(useless, func(u usercontext.Problem) bool { return u.Rule == p.Rule && u.Text == p.Text })
		})
		if i < 0 {
			return text, gone
		}
		changed, ok := fixes()[found[i].Rule](text, found[i])
		if !ok || !improved(name, changed, found, found[i].Rule, o) {
			useless = append(useless, found[i])
			continue
		}
		gone, text = append(gone, found[i]), changed
	}
	return text, gone
}

const maxFixes = 1000

// improved reports whether the text has less of a rule and no more of any other.
func improved(name string, text []byte, before []usercontext.Problem, rule string, o Options) bool {
	c, err := usercontext.Parse(name, text)
	if err != nil {
		return false
	}
	count := map[string]int{}
	for _, p := range before {
		count[p.Rule]--
	}
	for _, p := range Check(c, o) {
		count[p.Rule]++
	}
	for id, n := range count {
		if n > 0 && id != "I006" { // what is spelt right may turn out to be there twice
			return false
		}
	}
	return count[rule] < 0
}

// fix changes a text because of a finding, or says that it cannot.
type fix func(text []byte, p usercontext.Problem) ([]byte, bool)

// fixes are the changes by rule.
func fixes() map[string]fix {
	return map[string]fix{
		"U001": line(func(l string, p usercontext.Problem) (string, bool) {
			to, ok := strings.CutPrefix(p.Remedy, "write ") // of the table, not a guess
			_, value, assignment := strings.Cut(l, "=")
			return to + "=" + value, ok && assignment
		}),
		"U002": fixAssignment,
		"U003": line(func(l string, _ usercontext.Problem) (string, bool) {
			key, value, ok := strings.Cut(l, "=")
			return key + `="` + value + `"`, ok && !strings.ContainsAny(value, "\"'$`\\")
		}),
		"U004": line(func(l string, _ usercontext.Problem) (string, bool) {
			trimmed := strings.TrimSpace(l)
			return trimmed, trimmed != l && (trimmed == usercontext.BlockBegin || trimmed == usercontext.BlockEnd)
		}),
		"I001": line(func(_ string, p usercontext.Problem) (string, bool) {
			to, ok := strings.CutPrefix(p.Remedy, "write [")
			return "[" + to, ok && strings.HasSuffix(to, "]")
		}),
		"I003": line(func(l string, p usercontext.Problem) (string, bool) {
			key, value, ok := strings.Cut(l, "=")
			if to, one := strings.CutPrefix(p.Remedy, "write "); one && !strings.Contains(to, " ") {
				var wrong string
				if i := strings.LastIndex(p.Text, " "); i >= 0 {
					wrong = strings.Trim(p.Text[i+1:], `"`)
				}
				words := strings.Fields(value)
				i := slices.Index(words, wrong)
				if i < 0 {
					return l, false
				}
				words[i] = to
				return key + "=" + strings.Join(words, " "), ok
			}
			return key + "=" + strings.Join(strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }), " "), ok && strings.Contains(value, ",")
		}),
		"C006": line(func(l string, _ usercontext.Problem) (string, bool) {
			key, value, ok := strings.Cut(l, "=")
			_, host, scheme := strings.Cut(value, "://")
			return key + "=" + strings.TrimSuffix(host, "/"), ok && scheme
		}),
		"C007": line(func(l string, _ usercontext.Problem) (string, bool) {
			key, value, ok := strings.Cut(l, "=")
			value = strings.TrimSpace(value)
			return key + `="` + value + `"`, ok && strings.ContainsAny(value, ";|") && !strings.Contains(value, `"`)
		}),
		"S001": func(text []byte, p usercontext.Problem) ([]byte, bool) {
			lines := bytes.SplitAfter(text, []byte("\n"))
			if p.Line < 2 || p.Line > len(lines) {
				return text, false
			}
			return bytes.Join(slices.Insert(lines, p.Line-1, []byte("exit 0\n")), nil), true
		},
		// Options of the interpreter are not dropped: they mean something.
		"S002": line(func(l string, _ usercontext.Problem) (string, bool) {
			trimmed := strings.TrimRight(l, " \t\r")
			return trimmed, trimmed != l
		}),
		"Y001": line(func(l string, p usercontext.Problem) (string, bool) {
			return "#cloud-config", p.Remedy == "write #cloud-config" && almostCloudConfig.MatchString(strings.ToLower(strings.TrimSpace(l)))
		}),
		"Z002": func(text []byte, _ usercontext.Problem) ([]byte, bool) {
			changed := bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
			changed = bytes.ReplaceAll(changed, []byte("\r\n"), []byte("\n"))
			if len(changed) > 0 && changed[len(changed)-1] != '\n' {
				changed = append(bytes.Clone(changed), '\n')
			}
			return changed, !bytes.Equal(changed, text)
		},
	}
}

// line makes a fix of a change to the finding's line, its end left out.
func line(change func(string, usercontext.Problem) (string, bool)) fix {
	return func(text []byte, p usercontext.Problem) ([]byte, bool) {
		lines := strings.Split(string(text), "\n")
		if p.Line < 1 || p.Line > len(lines) {
			return text, false
		}
		to, ok := change(lines[p.Line-1], p)
		if !ok || to == lines[p.Line-1] {
			return text, false
		}
		lines[p.Line-1] = to
		return []byte(strings.Join(lines, "\n")), true
	}
}

// fixAssignment takes the blanks away from around "=", or ends the last line.
func fixAssignment(text []byte, p usercontext.Problem) ([]byte, bool) {
	if p.Remedy == "end the file with a line feed" {
		return append(bytes.Clone(text), '\n'), true
	}
	return line(func(l string, p usercontext.Problem) (string, bool) {
		key, value, ok := strings.Cut(l, "=")
		key = strings.TrimSpace(key)
		return key + "=" + strings.TrimSpace(value), ok && strings.HasPrefix(p.Remedy, "write "+key+"=")
	})(text, p)
}
