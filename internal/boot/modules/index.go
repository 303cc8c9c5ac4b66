package modules

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Index is what depmod knows about one module tree. It is read-only after Open
// and safe for concurrent use.
type Index struct {
	files   map[string]string   // module name → path below the tree
	deps    map[string][]string // path → paths it needs, nearest first
	aliases []alias             // in file order
	pre     map[string][]string // module name → names to try first (softdep)
	builtin map[string]bool
}

type alias struct{ pattern, name string }

// ErrUnknown says that no module has that name, nor is one built in.
var ErrUnknown = errors.New("no such kernel module")

// Open reads the index of the module tree, the folder /lib/modules/<release>.
// modules.dep must be there; the other files may be missing.
func Open(tree fs.FS) (*Index, error) {
	x := &Index{files: map[string]string{}, pre: map[string][]string{}, builtin: map[string]bool{}}
	dep, err := fs.ReadFile(tree, "modules.dep")
	if err != nil {
		return nil, fmt.Errorf("reading the list of kernel modules: %w", err)
	}
	x.deps = ParseDep(dep)
	for file := range x.deps {
		x.files[Name(file)] = file
	}
	for _, part := range []struct {
		file string
		read func([]byte)
	}{
		{"modules.alias", func(b []byte) { x.aliases = parseAlias(b) }},
		{"modules.softdep", func(b []byte) { x.pre = parseSoftdep(b) }},
		{"modules.builtin", func(b []byte) {
			for line := range lines(b) {
				x.builtin[Name(line)] = true
			}
		}},
	} {
		data, err := fs.ReadFile(tree, part.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the list of kernel modules: %w", err)
		}
		part.read(data)
	}
	return x, nil
}

// Name returns the module name of a file: base name, without the extensions,
// with dashes as underscores, as the kernel has it.
func Name(file string) string {
	base := path.Base(file)
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return strings.ReplaceAll(base, "-", "_")
}

// ParseDep reads modules.dep: "path: path path …". Lines without a colon are
// skipped.
func ParseDep(data []byte) map[string][]string {
	deps := map[string][]string{}
	for line := range lines(data) {
		file, rest, ok := strings.Cut(line, ":")
		if file = strings.TrimSpace(file); ok && file != "" {
			deps[file] = strings.Fields(rest)
		}
	}
	return deps
}

// parseAlias reads modules.alias: "alias pattern module".
func parseAlias(data []byte) []alias {
	var list []alias
	for line := range lines(data) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" {
			list = append(list, alias{f[1], strings.ReplaceAll(f[2], "-", "_")})
		}
	}
	return list
}

// parseSoftdep reads modules.softdep: "softdep module pre: a b post: c". Only
// the part before is kept: what comes after the module is found by coldplug.
func parseSoftdep(data []byte) map[string][]string {
	pre := map[string][]string{}
	for line := range lines(data) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "softdep" {
			continue
		}
		before := false
		name := strings.ReplaceAll(f[1], "-", "_")
		for _, word := range f[2:] {
			switch {
			case strings.HasSuffix(word, ":"):
				before = word == "pre:"
			case before:
				pre[name] = append(pre[name], strings.ReplaceAll(word, "-", "_"))
			}
		}
	}
	return pre
}

// lines yields the trimmed lines of a text that are neither empty nor comments.
func lines(data []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		scan := bufio.NewScanner(bytes.NewReader(data))
		scan.Buffer(make([]byte, 0, 64*1024), 1<<20)
		for scan.Scan() {
			line := strings.TrimSpace(scan.Text())
			if line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}

// Resolve returns the files to load for a module or alias, in the order in
// which to load them: everything a file needs comes before it. A name that is
// built into the kernel gives no files and no error.
func (x *Index) Resolve(name string) ([]string, error) {
	names := x.names(name)
	if names == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	var order []string
	seen := map[string]bool{}
	for _, n := range names {
		if err := x.add(n, &order, seen, 0); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// names turns a module name or an alias into module names; nil means unknown.
func (x *Index) names(name string) []string {
	plain := strings.ReplaceAll(name, "-", "_")
	if _, ok := x.files[plain]; ok {
		return []string{plain}
	}
	if x.builtin[plain] {
		return []string{}
	}
	var found []string
	for _, a := range x.aliases {
		if (Match(a.pattern, name) || a.pattern == plain) && !slices.Contains(found, a.name) {
			found = append(found, a.name)
		}
	}
	return found
}

func (x *Index) add(name string, order *[]string, seen map[string]bool, depth int) error {
	const deepest = 64 // softdeps may be cyclic, dependencies of a broken file too
	if depth > deepest {
		return fmt.Errorf("dependencies of kernel module %q go round in a circle", name)
	}
	file, ok := x.files[name]
	if !ok || seen[file] {
		return nil // built in, or an alias to a module that this tree leaves out
	}
	seen[file] = true
	for _, soft := range x.pre[name] {
		if err := x.add(soft, order, seen, depth+1); err != nil {
			return err
		}
	}
	// depmod lists the nearest dependency first and the farthest last.
	for _, need := range slices.Backward(x.deps[file]) {
		if seen[need] {
			continue
		}
		if _, ok := x.deps[need]; !ok {
			return fmt.Errorf("kernel module %q needs %q, which is not in the image", name, need)
		}
		if err := x.add(Name(need), order, seen, depth+1); err != nil {
			return err
		}
	}
	*order = append(*order, file)
	return nil
}

// Match reports whether an alias pattern with *, ? and [...] covers the whole
// text, as fnmatch(3) without flags does. It takes time linear in the product
// of the lengths, whatever the pattern.
func Match(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, t
			p++
			continue
		}
		if width, ok := matchOne(pattern[p:], text[t]); ok {
			p += width
			t++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, t = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches the first element of a pattern with one byte and returns the
// length of the element.
func matchOne(pattern string, c byte) (int, bool) {
	if pattern == "" {
		return 0, false
	}
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		end := strings.IndexByte(pattern[1:], ']')
		if end <= 0 {
			return 1, c == '['
		}
		set := pattern[1 : 1+end]
		not := set[0] == '!' || set[0] == '^'
		if not {
			set = set[1:]
		}
		hit := false
		for i := 0; i < len(set); i++ {
			if i+2 < len(set) && set[i+1] == '-' {
				hit = hit || set[i] <= c && c <= set[i+2]
				i += 2
			} else {
				hit = hit || set[i] == c
			}
		}
		return end + 2, hit != not
	}
	return 1, pattern[0] == c
}
