package plugins

// Table returns every plugin, in the order in which they run.
//
// Differs: the original's order is that of a Python dictionary, which puts the
// users behind services that want them.
func Table() []Plugin {
	return []Plugin{
		hostname(),
		storage(),
		disableSSHPasswords(),
		rootSSHKeys(),
		nss(),
		yp(),
		amildap(),
		cernvm(),
		tcpBuffers(),
		openvpn(),
		dnsUpdate(),
		noip(),
		squid(),
		ganglia(),
		puppet(),
		condor(),
		workqueue(),
		vafSetup(),
		elastiqSetup(),
		sfcbClientSetup(),
		applianceAgent(),
		hepix(), // last in the original too
	}
}

// ByName returns the plugin of that name.
func ByName(name string) (Plugin, bool) {
	for _, p := range Table() {
		if p.Name == name {
			return p, true
		}
	}
	return Plugin{}, false
}
