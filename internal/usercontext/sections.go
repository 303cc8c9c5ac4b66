package usercontext

import (
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

// EnabledPlugins returns the plugins that a context enables, in the order in which
// Mica runs them: rootsshkeys always, what [amiconfig] lists in plugins, less what
// it lists in disabled_plugins; and cernvm when there is a section [cernvm] but no
// list, as the images of CernVM have it.
//
// Differs: commas separate names as well as blanks; in the original, a list with
// commas is one unknown name.
func EnabledPlugins(a *Amiconfig) []string {
	on := map[string]bool{"rootsshkeys": true}
	list, given := a.Get("amiconfig", "plugins")
	for _, name := range PluginNames(list) {
		on[name] = true
	}
	if _, ok := a.Section("cernvm"); ok && !given {
		on["cernvm"] = true
	}
	for _, key := range []string{"disabled_plugins", "disabed_plugins"} { // the second one as the original's documentation has it
		off, _ := a.Get("amiconfig", key)
		for _, name := range PluginNames(off) {
			delete(on, name)
		}
	}
	return slices.DeleteFunc(Plugins(), func(name string) bool { return !on[name] })
}

// PluginNames splits a list of plugins.
func PluginNames(list string) []string {
	return strings.FieldsFunc(lowerASCII(list), func(r rune) bool { return r == ',' || r < 128 && isSpace(byte(r)) })
}
