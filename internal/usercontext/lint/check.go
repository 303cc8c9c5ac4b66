package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

// Options say for whom a context is checked.
type Options struct {
	// Ignore are rules to leave out. A comment "# mica:ignore S006 I009" anywhere
	// in the context has the same effect.
	Ignore []string
	// CloudInit says that the operating system runs cloud-init as well.
	CloudInit bool
	// Target is the platform that hands the context over: a name of Targets, or "".
	Target string
}

// Targets returns the platforms with a limit of their own, and the limit in bytes
// of the context.
func Targets() map[string]int {
	return map[string]int{
		"ec2":        16384,
		"openstack":  65535 / 4 * 3, // of base64
		"azure":      65535,
		"cloudstack": 32768 / 4 * 3, // of base64
		"gce":        262144,
	}
}

// checker gathers findings.
type checker struct {
	context  *usercontext.Context
	options  Options
	found    []usercontext.Problem
	severity map[string]usercontext.Severity
	plugins  []plugins.Plugin
	sections *usercontext.Amiconfig // as meant
	block    usercontext.Block
	keys     usercontext.BootKeys
	script   usercontext.Script
}

// Check returns what is wrong with c, in the order of lines.
func Check(c *usercontext.Context, o Options) []usercontext.Problem {
	k := &checker{context: c, options: o, severity: map[string]usercontext.Severity{}, plugins: allPlugins()}
	for _, r := range Rules() {
		k.severity[r.ID] = r.Severity
	}
	var strict, boot []usercontext.Problem
	k.sections, strict = c.Strict()
	k.block = c.Block()
	k.keys, boot = k.block.BootKeys()
	k.script = c.Script()
	k.found = slices.Concat(c.Problems, strict, k.block.Problems, boot)

	k.checkSize()
	k.checkMessage()
	k.checkCloudConfigs()
	k.checkBlock()
	k.checkPlugins()
	k.checkSections()
	k.checkCernVM()
	k.checkScript()
	k.checkKeys()

	ignored := slices.Concat(o.Ignore, inlineIgnores(c.Text))
	k.found = slices.DeleteFunc(k.found, func(p usercontext.Problem) bool { return slices.Contains(ignored, p.Rule) })
	slices.SortStableFunc(k.found, func(a, b usercontext.Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Column != b.Column {
			return a.Column - b.Column
		}
		return strings.Compare(a.Rule, b.Rule)
	})
	return slices.CompactFunc(k.found, func(a, b usercontext.Problem) bool {
		return a.Rule == b.Rule && a.Line == b.Line && a.Column == b.Column && a.Text == b.Text
	})
}

// allPlugins is the table of plugins, and the names of those that it lacks.
func allPlugins() []plugins.Plugin {
	all := plugins.Table()
	for _, name := range usercontext.Plugins() {
		if !slices.ContainsFunc(all, func(p plugins.Plugin) bool { return p.Name == name }) {
			all = append(all, plugins.Plugin{Name: name})
		}
	}
	return all
}

// Worst returns the highest severity among problems, and false for none.
func Worst(problems []usercontext.Problem) (usercontext.Severity, bool) {
	worst := note
	for _, p := range problems {
		worst = max(worst, p.Severity)
	}
	return worst, len(problems) > 0
}

// add files a finding with the rule's own severity.
func (k *checker) add(rule string, line, column int, remedy, format string, args ...any) {
	k.addAs(k.severity[rule], rule, line, column, remedy, format, args...)
}

func (k *checker) addAs(s usercontext.Severity, rule string, line, column int, remedy, format string, args ...any) {
	k.found = append(k.found, usercontext.Problem{
		Rule: rule, Severity: s, Line: line, Column: column, Text: fmt.Sprintf(format, args...), Remedy: remedy,
	})
}

var ignoreComment = regexp.MustCompile(`(?m)^[ \t]*[#;].*\bmica:ignore((?:[ \t,]+[A-Z][0-9]{3})+)`)

func inlineIgnores(text []byte) []string {
	var rules []string
	for _, m := range ignoreComment.FindAllSubmatch(text, -1) {
		rules = append(rules, strings.FieldsFunc(string(m[1]), func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })...)
	}
	return rules
}

func (k *checker) checkSize() {
	text, raw := len(k.context.Text), len(k.context.Raw)
	if limit, ok := Targets()[k.options.Target]; ok {
		if raw > limit {
			k.addAs(failure, "Z001", 0, 0, "leave comments out, compress it, or fetch parts of it by URL", "%d bytes; %s takes %d", raw, k.options.Target, limit)
		}
	} else if text > 16384 {
		who := "EC2 refuses"
		if text > 65535 {
			who = "EC2, OpenStack and Azure refuse"
		}
		k.add("Z001", 0, 0, "leave comments out, or fetch parts of it by URL", "%d bytes; %s more than their limit", text, who)
	}
	for _, l := range k.context.Layers {
		if strings.HasPrefix(l, "gzip") {
			k.add("Z003", 0, 0, "deliver it plain if amiconfig of an original CernVM is to read it", "the context is compressed; amiconfig of an original CernVM sees nothing of it")
			if strings.Contains(l, "ignored") {
				k.add("Z002", 0, 0, "", "%s", l)
			}
			break
		}
	}
}

// nearest returns the candidate that word most likely meant, or "".
func nearest(word string, candidates []string) string {
	best, bestDistance := "", 3
	if len(word) < 5 {
		bestDistance = 2
	}
	for _, c := range candidates {
		if max(len(word)-len(c), len(c)-len(word)) >= bestDistance {
			continue
		}
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance counts insertions, deletions, substitutions and swaps of neighbours
// that turn a into b (Damerau-Levenshtein, optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before []int
	previous := make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current := make([]int, len(b)+1)
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous = previous, current
	}
	return previous[len(b)]
}

// meant is the remedy for a misspelt word.
func meant(word string) string {
	if word == "" {
		return ""
	}
	return "did you mean " + word + "?"
}
