package modules

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Module is one kernel module.
type Module struct {
	Path    string   // below /lib/modules/<release>, without a compression suffix
	Data    []byte   // uncompressed; not needed to choose, so a caller may keep it elsewhere
	Depends []string // names of modules
	Aliases []string // patterns
	Softdep []string // "pre: a b post: c", one for each softdep line
}

// Name is the module's name as the kernel has it.
func (m Module) Name() string { return nameOf(m.Path) }

// nameOf is the module's name of a path or of a name written either way.
func nameOf(p string) string {
	base, _, _ := strings.Cut(path.Base(p), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

const maxModule = 64 << 20

// Parse reads a module. p is its path below /lib/modules/<release>; a
// compressed module comes out plain, which packs better and needs nothing of
// the loader.
func Parse(p string, data []byte) (Module, error) {
	m := Module{Path: p, Data: data}
	var r io.Reader
	var err error
	switch path.Ext(p) {
	case ".ko":
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(data))
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	default:
		return m, fmt.Errorf("kernel module %q: unknown compression", p)
	}
	if err == nil && r != nil {
		m.Path = strings.TrimSuffix(p, path.Ext(p))
		if m.Data, err = io.ReadAll(io.LimitReader(r, maxModule)); err == nil && len(m.Data) == maxModule {
			err = errors.New("too large")
		}
	}
	if err != nil {
		return m, fmt.Errorf("kernel module %q: %w", p, err)
	}
	if err := m.info(); err != nil {
		return m, fmt.Errorf("kernel module %q: %w", p, err)
	}
	return m, nil
}

// info reads the .modinfo section: key=value strings, each ended by a NUL.
func (m *Module) info() error {
	f, err := elf.NewFile(bytes.NewReader(m.Data))
	if err != nil {
		return err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return errors.New("no .modinfo section")
	}
	data, err := section.Data()
	if err != nil {
		return err
	}
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "depends":
			for d := range strings.SplitSeq(value, ",") {
				if d != "" {
					m.Depends = append(m.Depends, nameOf(d))
				}
			}
		case "alias":
			m.Aliases = append(m.Aliases, value)
		case "softdep":
			m.Softdep = append(m.Softdep, value)
		}
	}
	return nil
}

// Set is a choice of modules closed under dependencies.
type Set struct {
	Modules []Module // by path
	Missing []string // names that were asked for and do not exist
	builtin []string // lines of modules.builtin
}

// Choose picks the named modules and everything they need: dependencies, and
// soft dependencies that come first, by name or by alias. Names that are built
// in count as found. A dependency that does not exist is an error; a wanted
// name that does not is listed in Missing, since kernels differ in what they
// build.
func Choose(all []Module, builtin []byte, wanted []string) (Set, error) {
	byName, byAlias := map[string]*Module{}, map[string][]*Module{}
	for i := range all {
		m := &all[i]
		byName[m.Name()] = m
		for _, a := range m.Aliases {
			byAlias[a] = append(byAlias[a], m)
		}
	}
	s := Set{}
	compiled := map[string]bool{}
	for line := range strings.Lines(string(builtin)) {
		if line = strings.TrimSpace(line); line != "" {
			s.builtin = append(s.builtin, line)
			compiled[nameOf(line)] = true
		}
	}
	chosen := map[string]bool{}
	var add func(m *Module) error
	add = func(m *Module) error {
		if chosen[m.Name()] {
			return nil
		}
		chosen[m.Name()] = true
		for _, d := range m.Depends {
			next, ok := byName[d]
			switch {
			case ok:
				if err := add(next); err != nil {
					return err
				}
			case !compiled[d]:
				return fmt.Errorf("kernel module %q needs %q, which is not there", m.Name(), d)
			}
		}
		for _, name := range m.before() {
			found := byAlias[name]
			if next, ok := byName[nameOf(name)]; ok {
				found = []*Module{next}
			}
			for _, next := range found {
				if err := add(next); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, name := range wanted {
		m, ok := byName[nameOf(name)]
		switch {
		case ok:
			if err := add(m); err != nil {
				return s, err
			}
		case !compiled[nameOf(name)]:
			s.Missing = append(s.Missing, name)
		}
	}
	for i := range all {
		if chosen[all[i].Name()] {
			s.Modules = append(s.Modules, all[i])
		}
	}
	slices.SortFunc(s.Modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return s, nil
}

// before are the names that a module's soft dependencies want loaded first.
func (m Module) before() []string {
	var names []string
	for _, line := range m.Softdep {
		pre := false
		for word := range strings.FieldsSeq(line) {
			switch {
			case strings.HasSuffix(word, ":"):
				pre = word == "pre:"
			case pre:
				names = append(names, word)
			}
		}
	}
	return names
}

// Index returns the files a loader reads beside the modules, by name.
func (s Set) Index() map[string][]byte {
	byName := map[string]Module{}
	for _, m := range s.Modules {
		byName[m.Name()] = m
	}
	var dep, alias, softdep, builtin bytes.Buffer
	for _, m := range s.Modules {
		dep.WriteString(m.Path + ":")
		for _, d := range closure(m, byName) {
			dep.WriteString(" " + d.Path)
		}
		dep.WriteByte('\n')
		for _, a := range m.Aliases {
			alias.WriteString("alias " + a + " " + m.Name() + "\n")
		}
		for _, line := range m.Softdep {
			softdep.WriteString("softdep " + m.Name() + " " + line + "\n")
		}
	}
	for _, line := range s.builtin {
		builtin.WriteString(line + "\n")
	}
	return map[string][]byte{
		"modules.dep": dep.Bytes(), "modules.alias": alias.Bytes(), "modules.softdep": softdep.Bytes(), "modules.builtin": builtin.Bytes(),
	}
}

// closure lists what m needs, each after those that need it, as depmod does: a
// loader goes through the list backwards.
func closure(m Module, byName map[string]Module) []Module {
	var order []Module
	seen := map[string]bool{m.Name(): true}
	var visit func(Module)
	visit = func(m Module) {
		for _, d := range m.Depends {
			if next, ok := byName[d]; ok && !seen[d] {
				seen[d] = true
				visit(next)
			}
		}
		order = append(order, m)
	}
	visit(m)
	order = order[:len(order)-1] // m itself
	slices.Reverse(order)
	return order
}
