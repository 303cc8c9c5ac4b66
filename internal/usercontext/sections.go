package usercontext

import (
	"fmt"
	"slices"
	"strings"
)

// KnownSection reports whether a section of that name means something to
// amiconfig or to one of its plugins.
func KnownSection(name string) bool {
	return name == "amiconfig" || name == "ucernvm-begin" || slices.Contains(Plugins(), name)
}

// Plugins returns the names of amiconfig's plugins, in the order in which Mica
// runs them. A plugin's section has its name.
//
// Differs: the original runs them in the order of a Python dictionary, users after
// the services that want them.
func Plugins() []string {
	return []string{
		"hostname", "storage", "disablesshpasswdauth", "rootsshkeys", "nss", "yp", "amildap",
		"cernvm", "tcpbuffers", "openvpn", "dnsupdate", "noip", "squid", "ganglia", "puppet",
		"condor", "workqueue", "vaf-setup", "elastiq-setup", "sfcb-client-setup",
		"appliance-agent", "hepix",
	}
}

// ObsoletePlugins returns the names that older contexts enable and that no
// current amiconfig has.
func ObsoletePlugins() []string {
	return []string{
		"rapadminpassword", "cernvm_appliance", "rpath", "conaryproxy", "kernelmodules",
		"rapcert", "raprsakey", "rmakenode", "rmakeplugin", "rmakeserver",
	}
}

// FindSection returns the options of a section. The exact name wins; else one in
// another case, or with blanks around it, is taken, and written is that name.
//
// Differs: in the original a name in another case ends the plugin, and the whole
// program for [AMIConfig] (amiconfig: rpath/amiconfig/userdata.py).
func (a *Amiconfig) FindSection(name string) (options []Option, written string, ok bool) {
	if options, ok = a.Section(name); ok {
		return options, name, true
	}
	for _, s := range a.Sections {
		if strings.EqualFold(strings.TrimSpace(s.Name), name) {
			return s.Options, s.Name, true
		}
	}
	return nil, "", false
}

// System is what decides about plugins besides the context.
type System struct {
	Config *Amiconfig // the system's own list, section [general]; nil is none
	File   string     // where it is, for messages
	Named  bool       // the platform names the machine
}

// Selection is the plugins that run.
type Selection struct {
	Plugins []string // in the order in which Mica runs them
	// Remarks are what is odd about the lists: names that are unknown or obsolete,
	// commas, plugins that the system forbids.
	Remarks []string
}

// SelectPlugins returns the plugins that run on a system: rootsshkeys always; what
// the system enables and what [amiconfig] lists in plugins; cernvm when there is a
// section [cernvm] but no list, as the images of CernVM have it; less what the
// context or the system lists in disabled_plugins.
//
// Compat: amiconfig: rpath/amiconfig/ami.py. Differs: commas separate names as well
// as blanks, where in the original a list with commas is one unknown name; hostname
// runs where the platform names the machine.
func SelectPlugins(a *Amiconfig, sys System) Selection {
	c := chooser{on: map[string]bool{"rootsshkeys": true, "hostname": sys.Named}}
	config := sys.Config
	if config == nil {
		config = &Amiconfig{}
	}
	system, _ := config.Get("general", "enabled_plugins")
	for _, name := range PluginNames(system) {
		c.on[name] = true
	}
	options, _, _ := a.FindSection(amiconfigSection)
	given := false
	for _, o := range options {
		if o.Key == "plugins" {
			given = true
			c.set(o, true)
		}
	}
	if _, _, ok := a.FindSection("cernvm"); ok && !given {
		c.on["cernvm"] = true
	}
	for _, o := range options {
		switch o.Key {
		case "disabed_plugins": // as the original's manual spells it
			c.remark("disabed_plugins is taken for disabled_plugins")
			c.set(o, false)
		case "disabled_plugins":
			c.set(o, false)
		}
	}
	blacklist, _ := config.Get("general", "disabled_plugins")
	for _, name := range PluginNames(blacklist) {
		if c.on[name] {
			c.remark("plugin %s is disabled by %s", name, sys.File)
		}
		c.on[name] = false
	}
	c.out.Plugins = slices.DeleteFunc(Plugins(), func(name string) bool { return !c.on[name] })
	return c.out
}

const amiconfigSection = "amiconfig"

type chooser struct {
	on  map[string]bool
	out Selection
}

func (c *chooser) remark(format string, args ...any) {
	c.out.Remarks = append(c.out.Remarks, fmt.Sprintf(format, args...))
}

// set turns the plugins of one list on or off.
func (c *chooser) set(o Option, on bool) {
	if strings.Contains(o.Value, ",") {
		c.remark("[%s] %s: names are separated by blanks, the original takes a list with commas for one name", amiconfigSection, o.Key)
	}
	for _, name := range PluginNames(o.Value) {
		switch {
		case slices.Contains(Plugins(), name):
			c.on[name] = on
		case slices.Contains(ObsoletePlugins(), name):
			c.remark("[%s] %s: plugin %s is no longer part of amiconfig", amiconfigSection, o.Key, name)
		case name == "ldap":
			c.remark("[%s] %s: there is no plugin ldap, it is called amildap", amiconfigSection, o.Key)
		default:
			c.remark("[%s] %s: there is no plugin %q", amiconfigSection, o.Key, name)
		}
	}
}

// EnabledPlugins returns the plugins that a context enables on a system without a
// list of its own, in the order in which Mica runs them.
func EnabledPlugins(a *Amiconfig) []string { return SelectPlugins(a, System{}).Plugins }

// PluginNames splits a list of plugins.
func PluginNames(list string) []string {
	return strings.FieldsFunc(lowerASCII(list), func(r rune) bool { return r == ',' || r < 128 && isSpace(byte(r)) })
}
