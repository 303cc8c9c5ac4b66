package plugins

import (
	"context"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/puppet.py writes values as they are;
// a value that starts with a quote or a parenthesis still is, since contexts write
// PUPPETMASTER_PORTS=(18140 18141). Differs: other values are quoted where they
// have to be, and a master starts the master's service.
func puppet() Plugin {
	client := []Key{
		{Name: "puppet_server", Kind: Host, Meaning: "master to ask; with it the machine is a client"},
		{Name: "puppet_port", Kind: Port, Meaning: "port of the master"},
		{Name: "puppet_log", Kind: Path, Meaning: "log file, or syslog"},
		{Name: "puppet_extra_opts", Kind: Text, Meaning: "further options of the client"},
	}
	master := []Key{
		{Name: "puppetmaster_manifest", Kind: Path, Meaning: "site manifest of a master"},
		{Name: "puppetmaster_ports", Kind: Text, Meaning: "ports of a master, as (18140 18141)"},
		{Name: "puppetmaster_log", Kind: Path, Meaning: "log file of a master, or syslog"},
		{Name: "puppetmaster_extra_opts", Kind: Text, Meaning: "further options of a master"},
	}
	return Plugin{
		Name: "puppet", Does: "runs a Puppet client or master", Keys: append(client[:len(client):len(client)], master...),
		Apply: func(ctx context.Context, c *Call) error {
			var p problems
			keys, file, services := master, "/etc/sysconfig/puppetmaster", []string{"puppetmaster", "puppetserver"}
			if c.Section.Get("puppet_server", "") != "" {
				keys, file, services = client, "/etc/sysconfig/puppet", []string{"puppet"}
			}
			var lines []string
			for _, key := range keys {
				v, ok := c.Section.Lookup(key.Name)
				if !ok {
					continue
				}
				word, err := v, oneLine(key.Name, v)
				if v == "" || !strings.ContainsRune("\"'(", rune(v[0])) {
					word, err = shellWord(v)
				}
				if err != nil {
					p.addf("%s: %w", key.Name, err)
					continue
				}
				lines = append(lines, strings.ToUpper(key.Name)+"="+word)
			}
			if len(lines) == 0 {
				// Compat: the client starts as the system has it.
				p.add(c.Root.Service(ctx, []string{"puppet"}, guest.Enable, guest.Start))
				return p.err()
			}
			p.add(c.Root.WriteFile(file, guest.Text(lines), guest.Attr{Mode: 0o644, Backup: true}))
			p.add(c.Root.Service(ctx, services, guest.Enable, guest.Start))
			return p.err()
		},
	}
}
