package plugins

import (
	"context"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/ganglia.py fills in the same
// template. Differs: values with blanks or slashes do not empty the file, and
// gmond is started.
func ganglia() Plugin {
	keys := []Key{
		{Name: "name", Kind: Text, Meaning: "name of the cluster", Default: "CernVM"},
		{Name: "owner", Kind: Text, Meaning: "owner of the cluster", Default: "unknown"},
		{Name: "latlong", Kind: Text, Meaning: "where on Earth the cluster is", Default: "unknown"},
		{Name: "url", Kind: URL, Meaning: "page about the cluster", Default: "unknown"},
		{Name: "location", Kind: Text, Meaning: "where in the building the machine is", Default: "unknown"},
		{Name: "host", Kind: Host, Meaning: "where to send the figures", Default: "localhost"},
		{Name: "bind_hostname", Kind: Bool, Meaning: "send from the address of the host name", Default: "yes"},
		{Name: "port", Kind: Port, Meaning: "port of the receiver", Default: "8649"},
		{Name: "ttl", Kind: Integer, Meaning: "routers the figures may pass", Default: "1"},
	}
	return Plugin{
		Name: "ganglia", Does: "reports to a Ganglia monitor", Keys: keys,
		Apply: func(ctx context.Context, c *Call) error {
			var p problems
			template, err := c.Root.ReadFile("/etc/gmond.conf.cernvm")
			if err != nil {
				return fmt.Errorf("no gmond to configure: %w", err)
			}
			var pairs []string
			for _, key := range keys {
				v := unquote(c.Section.Get(key.Name, key.Default))
				switch {
				case strings.ContainsAny(v, "\"\\\n\r\x00"):
					p.addf("%s: %q cannot be written to gmond.conf", key.Name, v)
					v = key.Default
				case key.Kind == Host:
					err = host(v)
				case key.Kind == Port:
					_, err = number(v, 1, 65535)
				case key.Kind == Integer:
					_, err = number(v, 0, 255)
				case key.Kind == Bool:
					_, err = truth(v)
				}
				if err != nil {
					p.addf("%s: %w", key.Name, err)
					v, err = key.Default, nil
				}
				pairs = append(pairs, "@"+key.Name+"@", v)
			}
			text := strings.NewReplacer(pairs...).Replace(string(template))
			p.add(c.Root.WriteFile("/etc/gmond.conf", []byte(text), guest.Attr{Mode: 0o644}))
			p.add(c.Root.Service(ctx, []string{"gmond", "ganglia-monitor"}, guest.Enable, guest.Restart))
			return p.err()
		},
	}
}
