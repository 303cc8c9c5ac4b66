package plugins

import (
	"context"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// nssKeys are the databases of nsswitch.conf(5) that the plugin sets.
var nssKeys = []string{
	"passwd", "group", "shadow", "hosts", "bootparams", "ethers", "netmasks", "networks", "protocols",
	"rpc", "services", "netgroup", "publickey", "automount", "aliases",
}

// Compat: amiconfig: cernvm/amiconfig/plugins/nss.py.
func nss() Plugin {
	p := Plugin{
		Name: "nss", Does: "says where the system looks up users, groups and hosts",
		Apply: func(_ context.Context, c *Call) error {
			var p problems
			if _, ok := c.Section.Lookup("password"); ok { // as the original's own text has it
				c.Warn("[nss] password has no effect, the key is passwd")
			}
			set := map[string]string{}
			for _, key := range nssKeys {
				if v, ok := c.Section.Lookup(key); ok && p.add(oneLine(key, v)) {
					set[key] = v
				}
			}
			if len(set) > 0 {
				p.add(c.Root.Edit("/etc/nsswitch.conf", guest.Attr{Mode: 0o644, Backup: true}, func(lines []string) []string {
					for _, key := range nssKeys {
						if v, ok := set[key]; ok {
							lines = directives(lines, key+":", v)
						}
					}
					return lines
				}))
			}
			return p.err()
		},
	}
	for _, key := range nssKeys {
		p.Keys = append(p.Keys, Key{Name: key, Kind: Text, Meaning: "sources of the database " + key + ", as in nsswitch.conf"})
	}
	return p
}

// Compat: amiconfig: cernvm/amiconfig/plugins/yp.py. Differs: it writes quotes
// that ypbind does not understand, and does not start ypbind.
func yp() Plugin {
	return Plugin{
		Name: "yp", Does: "makes the machine a NIS client",
		Keys: []Key{
			{Name: "ypserver", Kind: Host, Meaning: "NIS server of the default domain"},
			{Name: "domain", Kind: Text, Meaning: "NIS domain; without server it is found by broadcast"},
			{Name: "server", Kind: Host, Meaning: "NIS server of the domain"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			var p problems
			lines := map[string]string{}
			if v := c.Section.Get("ypserver", ""); v != "" && p.add(host(v)) {
				lines["ypserver"] = v
			}
			domain, server := c.Section.Get("domain", ""), c.Section.Get("server", "")
			switch {
			case domain != "" && (!plainWord.MatchString(domain) || len(domain) > 64):
				p.addf("domain: %q is not the name of a domain", domain)
			case domain != "" && server == "":
				lines["domain"] = domain + " broadcast"
			case domain != "" && p.add(host(server)):
				lines["domain"] = domain + " server " + server
			case domain == "" && server != "":
				p.addf("server needs domain")
			}
			if len(lines) == 0 {
				return p.err()
			}
			p.add(c.Root.Edit("/etc/yp.conf", guest.Attr{Mode: 0o644, Backup: true}, func(old []string) []string {
				for _, key := range []string{"ypserver", "domain"} {
					if v, ok := lines[key]; ok {
						old = directives(old, key, v)
					}
				}
				return old
			}))
			p.add(c.Root.Service(ctx, []string{"ypbind", "nis"}, guest.Enable, guest.Restart))
			return p.err()
		},
	}
}

// Compat: amiconfig: cernvm/amiconfig/plugins/ldap.py, whose plugin is called
// amildap. Differs: base does not replace base_dn and the like.
func amildap() Plugin {
	return Plugin{
		Name: "amildap", Does: "names the LDAP directory",
		Keys: []Key{
			{Name: "base", Kind: Text, Meaning: "where searches start"},
			{Name: "url", Kind: URL, Meaning: "address of the server, ldap:// or ldaps://"},
		},
		Apply: func(_ context.Context, c *Call) error {
			var p problems
			set := map[string]string{}
			for _, key := range []string{"base", "url"} {
				if v, ok := c.Section.Lookup(key); ok && p.add(oneLine(key, v)) {
					set[key] = v
				}
			}
			if u := set["url"]; u != "" && !strings.HasPrefix(u, "ldap://") && !strings.HasPrefix(u, "ldaps://") && !strings.HasPrefix(u, "ldapi://") {
				p.addf("url: %q is not the address of an LDAP server", u)
				delete(set, "url")
			}
			if len(set) > 0 {
				p.add(c.Root.Edit("/etc/ldap.conf", guest.Attr{Mode: 0o644, Backup: true}, func(lines []string) []string {
					for _, key := range []string{"base", "url"} {
						if v, ok := set[key]; ok {
							lines = directives(lines, key, v)
						}
					}
					return lines
				}))
			}
			return p.err()
		},
	}
}
