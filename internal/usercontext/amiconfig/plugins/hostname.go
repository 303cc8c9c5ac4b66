package plugins

import (
	"context"
	"fmt"
)

// Compat: amiconfig: rpath/amiconfig/plugins/hostname.py takes the value, else the
// platform's name. Differs: the name is kept for later boots and resolves.
func hostname() Plugin {
	apply := func(_ context.Context, c *Call) error {
		name := c.Section.Get("hostname", c.Meta.Hostname)
		if name == "" {
			return nil
		}
		if err := c.Root.SetHostname(name); err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
		return nil
	}
	return Plugin{
		Name: "hostname", Does: "names the machine",
		Keys: []Key{
			{Name: "hostname", Kind: Host, Meaning: "the machine's name, with or without a domain", Default: "the name the platform gives"},
		},
		Apply: apply,
	}
}
