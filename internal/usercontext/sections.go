package usercontext

import "slices"

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
