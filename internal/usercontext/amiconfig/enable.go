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

// find returns the options of a section. The exact name wins; a name in another
// case is taken with a warning.
//
// Differs: the original ends a plugin on a name in another case, and itself on
// [AMIConfig] (amiconfig: rpath/amiconfig/userdata.py).
func (s sections) find(name string) plugins.Section {
	options, ok := s.ami.Section(name)
	if !ok {
		for _, other := range s.ami.Sections {
			if strings.EqualFold(strings.TrimSpace(other.Name), name) {
				s.warn("section [%s] is taken for [%s]; write it in this case, the original insists on it", other.Name, name)
				options, ok = other.Options, true
				break
			}
		}
	}
	section := plugins.Section{Name: name, Present: ok}
	for _, o := range options {
		section.Options = append(section.Options, plugins.Option{Key: o.Key, Value: o.Value})
	}
	return section
}

// enabled returns the names of the plugins that run, in no order.
//
// Compat: enabled_plugins of the system and plugins of the context, without
// disabled_plugins of either (amiconfig: rpath/amiconfig/ami.py). rootsshkeys is
// always on; cernvm is on where its section is and no plugins are named, as in
// the images of the original.
//
// Differs: hostname is on where the platform names the machine.
func enabled(root *guest.Root, file, platformName string, s sections, table []plugins.Plugin) map[string]bool {
	on := map[string]bool{}
	for _, p := range table {
		on[p.Name] = p.Always
	}
	on["hostname"] = platformName != ""
	blacklist := map[string]bool{}
	if file == "" {
		file = defaultConfig
	}
	if data, err := root.ReadFile(file); err == nil {
		config := usercontext.ParseAmiconfig(data)
		for _, name := range systemNames(config, "enabled_plugins") {
			on[name] = true
		}
		for _, name := range systemNames(config, "disabled_plugins") {
			blacklist[name] = true
		}
	}
	main := s.find(mainSection)
	value, named := main.Lookup("plugins")
	if named {
		for _, name := range s.names("plugins", value, table) {
			on[name] = true
		}
	} else if s.find("cernvm").Present {
		on["cernvm"] = true
	}
	for _, key := range []string{"disabled_plugins", "disabed_plugins"} {
		value, ok := main.Lookup(key)
		if !ok {
			continue
		}
		if key == "disabed_plugins" { // as the original's manual spells it
			s.warn("disabed_plugins is taken for disabled_plugins")
		}
		for _, name := range s.names(key, value, table) {
			on[name] = false
		}
	}
	for name := range blacklist {
		if on[name] {
			s.warn("plugin %s is disabled by %s", name, file)
		}
		on[name] = false
	}
	return on
}

func systemNames(config *usercontext.Amiconfig, key string) []string {
	value, _ := config.Get("general", key)
	return strings.FieldsFunc(strings.ToLower(value), separator)
}

func separator(c rune) bool { return c == ',' || c == ' ' || c == '\t' }

// names reads a list of plugins of the context and keeps those there are.
func (s sections) names(key, value string, table []plugins.Plugin) []string {
	if strings.Contains(value, ",") {
		s.warn("[%s] %s: names are separated by blanks, the original takes a list with commas for one name", mainSection, key)
	}
	var known []string
	for _, name := range strings.FieldsFunc(strings.ToLower(value), separator) {
		switch {
		case slices.ContainsFunc(table, func(p plugins.Plugin) bool { return p.Name == name }):
			known = append(known, name)
		case slices.Contains(usercontext.ObsoletePlugins(), name):
			s.warn("[%s] %s: plugin %s is no longer part of amiconfig", mainSection, key, name)
		case name == "ldap":
			s.warn("[%s] %s: there is no plugin ldap, it is called amildap", mainSection, key)
		default:
			s.warn("[%s] %s: there is no plugin %q", mainSection, key, name)
		}
	}
	return known
}

// unused warns of sections that no enabled plugin reads.
func (s sections) unused(on map[string]bool, table []plugins.Plugin) {
	for _, sec := range s.ami.Sections {
		for _, p := range table {
			if strings.EqualFold(sec.Name, p.Name) && !on[p.Name] {
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
