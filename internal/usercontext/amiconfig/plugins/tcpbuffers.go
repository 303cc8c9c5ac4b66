package plugins

import (
	"context"
	"strings"
)

var tcpKeys = []Key{
	{Name: "net.core.rmem_max", Kind: Integer, Meaning: "largest receive buffer, bytes"},
	{Name: "net.core.wmem_max", Kind: Integer, Meaning: "largest send buffer, bytes"},
	{Name: "net.core.netdev_max_backlog", Kind: Integer, Meaning: "packets that may wait for the kernel"},
	{Name: "net.ipv4.tcp_rmem", Kind: Text, Meaning: "receive buffer of TCP: least, default, most bytes"},
	{Name: "net.ipv4.tcp_wmem", Kind: Text, Meaning: "send buffer of TCP: least, default, most bytes"},
	{Name: "net.ipv4.tcp_timestamps", Kind: Integer, Meaning: "time stamps in TCP: 0, 1 or 2"},
	{Name: "net.ipv4.tcp_sack", Kind: Integer, Meaning: "selective acknowledgements in TCP: 0 or 1"},
}

// Compat: amiconfig: cernvm/amiconfig/plugins/tcpbuffers.py. Differs: that one
// ends in an exception at the first key; and the kernel forgets, so this is done
// at every boot.
func tcpBuffers() Plugin {
	return Plugin{
		Name: "tcpbuffers", Does: "sizes network buffers", Keys: tcpKeys,
		Apply: func(context.Context, *Call) error { return nil },
		EveryBoot: func(_ context.Context, c *Call) error {
			var p problems
			for _, key := range tcpKeys {
				v, ok := c.Section.Lookup(key.Name)
				if !ok {
					continue
				}
				numbers := strings.Fields(unquote(v))
				want := 1
				if key.Kind == Text {
					want = 3
				}
				valid := len(numbers) == want
				for _, n := range numbers {
					_, err := number(n, 0, 1<<31-1)
					valid = valid && err == nil
				}
				if !valid {
					p.addf("%s: %q is not %d of the kernel's numbers", key.Name, v, want)
					continue
				}
				p.add(c.Root.Sysctl(key.Name, strings.Join(numbers, " ")))
			}
			return p.err()
		},
	}
}
