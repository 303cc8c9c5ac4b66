package amiconfig

import (
	"fmt"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

// defaultConfig is the system's own list of plugins, if it has one.
const defaultConfig = "/etc/amiconfig/default.cfg"

// mainSection is the one that names plugins.
const mainSection = "amiconfig"

// sections finds sections in a context the forgiving way.
type sections struct {
	ami  *usercontext.Amiconfig
	warn func(format string, args ...any)
}

// find returns the options of a section.
func (s sections) find(name string) plugins.Section {
	options, written, ok := s.ami.FindSection(name)
	if ok && written != name {
		s.warn("section [%s] is taken for [%s]; write it in this case, the original insists on it", written, name)
	}
	section := plugins.Section{Name: name, Present: ok}
	for _, o := range options {
		section.Options = append(section.Options, plugins.Option{Key: o.Key, Value: o.Value})
	}
	return section
}

// enabled returns the names of the plugins that run. file is the system's own list
// of plugins, "" for the usual one.
func enabled(root *guest.Root, file, platformName string, s sections) map[string]bool {
	if file == "" {
		file = defaultConfig
	}
	sys := usercontext.System{File: file, Named: platformName != ""}
	if data, err := root.ReadFile(file); err == nil {
		sys.Config = usercontext.ParseAmiconfig(data)
	}
	s.find(mainSection) // for its warning
	selection := usercontext.SelectPlugins(s.ami, sys)
	for _, text := range selection.Remarks {
		s.warn("%s", text)
	}
	on := map[string]bool{}
	for _, name := range selection.Plugins {
		on[name] = true
	}
	return on
}

// unused warns of sections that no enabled plugin reads.
func (s sections) unused(on map[string]bool, table []plugins.Plugin) {
	for _, sec := range s.ami.Sections {
		for _, p := range table {
			if strings.EqualFold(strings.TrimSpace(sec.Name), p.Name) && !on[p.Name] {
				s.warn("section [%s] has no effect: its plugin is not enabled", sec.Name)
			}
		}
	}
}

// warnings collects what worked but deserves a word, each text once.
type warnings struct{ list []string }

func (w *warnings) add(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(w.list, text) {
		w.list = append(w.list, text)
	}
}
