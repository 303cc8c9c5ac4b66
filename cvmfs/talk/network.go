package talk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs/client"
)

// link is the way to the servers that a command is about.
type link func(c *Commands) client.Link

var (
	toRepository link = func(c *Commands) client.Link { return c.Repository.Link() }
	toExternal   link = func(c *Commands) client.Link { return c.Repository.ExternalLink() }
)

// network has the commands about servers, proxies and names.
var network = map[string]command{
	"host info":   toRepository.hostInfo(),
	"host switch": toRepository.hostSwitch(),
	"host set":    toRepository.hostSet("host set", "<host list>"),
	"host probe": {answer: func(ctx context.Context, c *Commands, _ string) string {
		return c.done("host probe", "", c.Repository.ProbeServers(ctx))
	}},
	"host probe geo": {answer: func(ctx context.Context, c *Commands, _ string) string {
		return c.done("host probe geo", "", c.Repository.Link().OrderServers(ctx))
	}},
	"proxy info": toRepository.proxyInfo(),
	"proxy set":  toRepository.proxySet("proxy set"),
	"proxy fallback": {usage: "Usage: proxy fallback <proxy list>", empty: true, answer: func(ctx context.Context, c *Commands, list string) string {
		return c.done("proxy fallback", list, c.Repository.Link().SetFallbackProxies(ctx, list))
	}},
	"proxy rebalance": plain(func(c *Commands) string {
		c.Repository.Link().RebalanceProxies()
		return ok
	}),
	"proxy group switch": plain(func(c *Commands) string {
		c.Repository.Link().SwitchProxyGroup()
		return ok
	}),
	"timeout info": plain(func(c *Commands) string {
		proxied, direct := c.Repository.Link().Timeouts()
		return fmt.Sprintf("Timeout with proxy: %s\nTimeout without proxy: %s", seconds(proxied), seconds(direct))
	}),
	"timeout set": {usage: timeoutUsage, answer: timeoutSet},
	"nameserver get": plain(func(c *Commands) string {
		list := c.Repository.Nameservers()
		if len(list) == 0 {
			return "DNS server not set."
		}
		host, _, err := net.SplitHostPort(list[0])
		if err != nil {
			host = list[0]
		}
		return "DNS server address: " + host
	}),
	"nameserver set": {usage: "Usage: nameserver set <host>", answer: func(_ context.Context, c *Commands, ip string) string {
		if net.ParseIP(ip) == nil {
			return failed
		}
		c.Repository.SetNameservers([]string{ip})
		return ok
	}},
}

// externalNetwork has those about the servers of external files.
var externalNetwork = map[string]command{
	"external host info":   toExternal.hostInfo(),
	"external host switch": toExternal.hostSwitch(),
	"external host set":    toExternal.hostSet("external host set", "<URL>"),
	"external proxy info":  toExternal.proxyInfo(),
	"external proxy set":   toExternal.proxySet("external proxy set"),
}

func (to link) hostInfo() command {
	return plain(func(c *Commands) string {
		servers, probes, active := to(c).Probes()
		if len(servers) == 0 {
			return "No hosts defined"
		}
		var b strings.Builder
		for i, s := range servers {
			fmt.Fprintf(&b, "  [%d] %s (%s)\n", i, s, nearness(probes[i]))
		}
		fmt.Fprintf(&b, "Active host %d: %s\n", active, servers[active])
		return b.String()
	})
}

func nearness(p client.Probe) string {
	switch {
	case p.Down:
		return "host down"
	case p.Placed:
		return "geographically ordered"
	case p == client.Probe{}:
		return "unprobed"
	}
	return fmt.Sprintf("%d ms", p.RoundTrip.Milliseconds())
}

func (to link) hostSwitch() command {
	return plain(func(c *Commands) string {
		to(c).SwitchServer()
		return ok
	})
}

func (to link) hostSet(name, argument string) command {
	return command{usage: "Usage: " + name + " " + argument, answer: func(_ context.Context, c *Commands, list string) string {
		var servers []string
		for s := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ';' || r == ',' }) {
			if s = strings.TrimSpace(s); s != "" {
				servers = append(servers, s)
			}
		}
		return c.done(name, list, to(c).SetServers(servers))
	}}
}

func (to link) proxyInfo() command {
	return plain(func(c *Commands) string {
		groups, active, fallback := to(c).Proxies()
		var b strings.Builder
		b.WriteString("Load-balance groups:\n")
		for i, g := range groups {
			fmt.Fprintf(&b, "[%d] %s\n", i, strings.Join(g, ", "))
		}
		group := slices.IndexFunc(groups, func(g []string) bool { return slices.Contains(g, active) })
		fmt.Fprintf(&b, "Active proxy: [%d] %s\n", group, active)
		if fallback < len(groups) {
			fmt.Fprintf(&b, "First fallback group: [%d]\n", fallback)
		}
		return b.String()
	})
}

func (to link) proxySet(name string) command {
	return command{usage: "Usage: " + name + " <proxy list>", answer: func(ctx context.Context, c *Commands, list string) string {
		err := to(c).SetProxies(ctx, list)
		reply := c.done(name, list, err)
		if errors.Is(err, client.ErrNoProxy) {
			reply = "Failed, no valid proxies"
		}
		return reply
	}}
}

const timeoutUsage = "Usage: timeout set <proxy> <direct>"

// timeoutSet takes two numbers of seconds. Differs: a timeout of 0 is refused; to
// the original it means to wait for ever.
func timeoutSet(_ context.Context, c *Commands, text string) string {
	var both [2]time.Duration
	fields := strings.Fields(text)
	if len(fields) != len(both) {
		return timeoutUsage
	}
	for i, f := range fields {
		n, valid := number(f)
		if !valid || n == 0 {
			return failed
		}
		both[i] = time.Duration(n) * time.Second
	}
	c.Repository.Link().SetTimeouts(both[0], both[1])
	return ok
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }
