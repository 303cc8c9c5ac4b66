package publish

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/micavm/mica/cvmfs/catalog"
)

// Automatic catalogues: how many entries one may have before parts of it get
// their own, and how few are not worth one.
const (
	defaultMaxEntries = 5000
	minShare          = 20 // at least a twentieth of that
)

// split decides which directories are roots of nested catalogues: those with a
// marker, those the rules name, and, where a catalogue would still be too big,
// the heaviest below. It adds the markers the format wants to be there.
func (s *scanner) split(root *node) error {
	if root.child(markerName) != nil {
		return fmt.Errorf("source: the root directory has a %s, it is the root of a catalogue anyway: %w", markerName, ErrSource)
	}
	rules, err := s.dirtab(root)
	if err != nil {
		return err
	}
	marked(root, "", rules)
	if limit := s.options.MaxEntries; limit >= 0 {
		if limit == 0 {
			limit = defaultMaxEntries
		}
		automatic(root, limit)
	}
	s.addMarkers(root)
	return nil
}

// marked takes the roots somebody asked for.
func marked(dir *node, path string, rules *dirtab) {
	for _, n := range dir.children {
		if !n.dir() {
			continue
		}
		sub := path + "/" + n.entry.Name
		n.nested = n.child(markerName) != nil || rules.matches(sub)
		marked(n, sub, rules)
	}
}

// automatic returns how many entries of dir's subtree are in the catalogue that
// has dir, after splitting off what makes that too many. A root the base
// revision had is kept while it is worth it, so that a tree that grows a little
// does not get new catalogues everywhere.
func automatic(dir *node, limit int) int {
	type weighed struct {
		n      *node
		weight int
	}
	var light []weighed
	total := 1
	for _, n := range dir.children {
		if !n.dir() {
			total++
			continue
		}
		w := automatic(n, limit)
		switch {
		case n.nested:
			w = 1
		case n.wasAuto != nil && n.before != nil && w >= limit/minShare/2:
			n.nested, n.auto = true, true
			w = 1
		case w > 1 && w >= limit/minShare:
			light = append(light, weighed{n, w})
		}
		total += w
	}
	slices.SortStableFunc(light, func(a, b weighed) int { return cmp.Compare(b.weight, a.weight) })
	for _, l := range light {
		if total <= limit {
			break
		}
		l.n.nested, l.n.auto = true, true
		total -= l.weight - 1
	}
	return total
}

// addMarkers gives every root of a nested catalogue the file that says so. Both
// files look alike in every publication of an equal tree.
func (s *scanner) addMarkers(dir *node) {
	add := func(n *node, name string, was *node) {
		if n.child(name) != nil {
			return
		}
		m := &node{entry: catalog.Entry{
			Name: name, Mode: catalog.ModeRegular | 0o644, UID: n.entry.UID, GID: n.entry.GID, Nlink: 1,
			MTime: n.entry.MTime, MTimeNS: n.entry.MTimeNS, Hash: s.empty, Compression: s.options.Compression,
		}}
		if was != nil {
			m.was, m.wasXattrs, m.wasChunks = was.was, was.wasXattrs, was.wasChunks
			if w := was.was; w.IsRegular() && w.Size == 0 && !w.Hash.IsZero() {
				m.entry.Hash, m.entry.Compression = w.Hash, w.Compression
			}
		}
		s.marked = s.marked || m.entry.Hash == s.empty
		n.insert(m)
	}
	for _, n := range slices.Clone(dir.children) {
		if !n.dir() {
			continue
		}
		s.addMarkers(n)
		if n.nested {
			add(n, markerName, n.wasMarker)
		} else if n.wasMarker != nil {
			n.gone = true
		}
		if n.auto {
			add(n, autoName, n.wasAuto)
		} else if n.wasAuto != nil {
			n.gone = true
		}
	}
	if dir.entry.Name == "" && (dir.wasMarker != nil || dir.wasAuto != nil) {
		dir.gone = true
	}
}

// dirtab is the rules of a .cvmfsdirtab file.
type dirtab struct{ positive, negative []*regexp.Regexp }

func (d *dirtab) matches(path string) bool {
	hit := func(rules []*regexp.Regexp) bool {
		return slices.ContainsFunc(rules, func(r *regexp.Regexp) bool { return r.MatchString(path) })
	}
	return d != nil && hit(d.positive) && !hit(d.negative)
}

const maxDirtab = 1 << 20

// dirtab reads the rules at the root of the source.
func (s *scanner) dirtab(root *node) (*dirtab, error) {
	n := root.child(dirtabName)
	if n == nil || !n.entry.IsRegular() {
		return nil, nil
	}
	if n.entry.Size > maxDirtab {
		return nil, fmt.Errorf("source: %s of %d bytes: %w", dirtabName, n.entry.Size, ErrSource)
	}
	text := s.rules
	if s.options.Tar == nil {
		var err error
		if text, err = os.ReadFile(s.file("/" + dirtabName)); err != nil {
			return nil, fmt.Errorf("reading source: %w", err)
		}
	}
	return parseDirtab(string(text))
}

// parseDirtab reads rules, one a line: absolute patterns name directories, "!"
// before a pattern excludes. A rule that is wrong makes the file invalid.
func parseDirtab(text string) (*dirtab, error) {
	d := &dirtab{}
	seen := make(map[string]bool) // pattern → negative
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimLeft(strings.TrimRight(line, " \t\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		pattern, negative := strings.CutPrefix(line, "!")
		pattern = strings.TrimLeft(pattern, " \t")
		if pattern == "" || !negative && pattern[0] != '/' {
			return nil, fmt.Errorf("source: %s line %d: %q is no absolute path: %w", dirtabName, number+1, line, ErrSource)
		}
		if before, twice := seen[pattern]; twice && before != negative {
			return nil, fmt.Errorf("source: %s line %d: %q is asked for and excluded: %w", dirtabName, number+1, pattern, ErrSource)
		}
		seen[pattern] = negative
		rule, err := compilePattern(pattern, negative)
		if err != nil {
			return nil, fmt.Errorf("source: %s line %d: %w", dirtabName, number+1, err)
		}
		if negative {
			d.negative = append(d.negative, rule)
		} else {
			d.positive = append(d.positive, rule)
		}
	}
	return d, nil
}

// compilePattern makes a regular expression of a pattern with "*", "?" and
// backslashes. In a negative rule they also match slashes.
//
// Compat: positive rules are expanded with glob(3), negative ones are matched
// against the whole path (cvmfs: cvmfs/dirtab.cc, cvmfs/pathspec/pathspec.cc).
func compilePattern(pattern string, negative bool) (*regexp.Regexp, error) {
	one := "[^/]"
	if negative {
		one = "."
	}
	var b, literal strings.Builder
	flush := func(then string) {
		b.WriteString(regexp.QuoteMeta(literal.String()) + then)
		literal.Reset()
	}
	b.WriteString("(?s)^")
	trimmed := strings.TrimRight(pattern, "/")
	for i := 0; i < len(trimmed); i++ {
		switch c := trimmed[i]; c {
		case '*':
			flush(one + "*")
		case '?':
			flush(one)
		case '\\':
			i++
			if i == len(trimmed) || !strings.ContainsRune(`*?\`, rune(trimmed[i])) {
				return nil, fmt.Errorf("%q has a backslash before an ordinary character: %w", pattern, ErrSource)
			}
			literal.WriteByte(trimmed[i])
		default:
			literal.WriteByte(c)
		}
	}
	flush("")
	b.WriteString("$")
	r, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("%q: %w: %w", pattern, ErrSource, err)
	}
	return r, nil
}
