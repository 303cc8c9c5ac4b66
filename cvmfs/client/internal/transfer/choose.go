package transfer

import (
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// LeaveServer moves on from a server whose answers turned out to be of no use,
// although they came through.
func (c *Client) LeaveServer(server string) { c.leaveHost(server) }

// start returns to preferred proxies and servers whose time has come, and
// returns the servers and the index of the active one.
func (c *Client) start() (servers []string, host int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	due := func(since time.Time, after time.Duration) bool {
		return after > 0 && !since.IsZero() && now.Sub(since) > after
	}
	if c.group != 0 && due(c.groupLeft, c.cfg.ProxyResetAfter) {
		c.group = 0
		c.cfg.Log.Info("back to the first proxy group")
	}
	for _, p := range c.groups[c.group] {
		if due(p.burned, c.cfg.ProxyResetAfter) {
			p.burned = time.Time{}
		}
	}
	if c.host != 0 && due(c.hostLeft, c.cfg.HostResetAfter) {
		c.host = 0
		c.cfg.Log.Info("back to the first server", "server", c.servers[0])
	}
	c.refreshAddresses(now)
	return c.servers, c.host
}

// proxyFor returns the proxy to ask for path, and how many proxies there are.
func (c *Client) proxyFor(path string) (via *proxy, count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.activeProxy(path), c.proxyCount
}

// activeProxy is called with the lock held.
func (c *Client) activeProxy(path string) *proxy {
	group := c.groups[c.group]
	var best *proxy
	var most uint64
	for _, p := range group {
		switch {
		case !p.burned.IsZero():
		case !c.cfg.ShardProxies:
			return p
		default:
			if w := weight(path, p); best == nil || w > most {
				best, most = p, w
			}
		}
	}
	if best == nil {
		best = group[0]
	}
	return best
}

// weight is how much a proxy is meant for a path. All clients find the same, and
// a proxy that goes away disturbs only what was meant for it.
func weight(path string, p *proxy) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, p.String()+"\x00"+path) // never fails
	sum := h.Sum64()
	sum ^= sum >> 31 // FNV hardly mixes the last bytes
	sum *= 0x9e3779b97f4a7c15
	return sum ^ sum>>29
}

// leaveProxy burns a proxy, and goes to the next group when all of the active
// one are burned. Another request may have done so already.
func (c *Client) leaveProxy(used *proxy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := c.groups[c.group]
	// Not the pointer: the addresses may have been looked up anew meanwhile.
	i := slices.IndexFunc(group, func(p *proxy) bool { return p.burned.IsZero() && p.String() == used.String() })
	if i < 0 {
		return
	}
	now := c.cfg.Now()
	group[i].burned = now
	if slices.ContainsFunc(group, func(p *proxy) bool { return p.burned.IsZero() }) {
		return
	}
	c.nextGroup(now, used.String())
}

// nextGroup is called with the lock held.
func (c *Client) nextGroup(now time.Time, from string) {
	if c.group == 0 {
		c.groupLeft = now
	}
	c.group = (c.group + 1) % len(c.groups)
	for _, p := range c.groups[c.group] {
		p.burned = time.Time{}
	}
	c.cfg.Log.Warn("switched proxy group", "from", Masked(from), "to", Masked(c.activeProxy("").String()))
}

// SwitchProxyGroup makes the next group of proxies the active one.
func (c *Client) SwitchProxyGroup() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextGroup(c.cfg.Now(), c.activeProxy("").String())
}

// RebalanceProxies takes another one of the active group's proxies, by chance, and
// forgets which of them have failed.
func (c *Client) RebalanceProxies() {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := slices.Clone(c.groups[c.group]) // others are just reading the old one
	rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
	for _, p := range group {
		p.burned = time.Time{}
	}
	c.groups[c.group] = group
}

func (c *Client) resetProxies() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.group = 0
	for _, g := range c.groups {
		for _, p := range g {
			p.burned = time.Time{}
		}
	}
}

// leaveHost makes the next server the active one, unless that was done already.
func (c *Client) leaveHost(used string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.servers) < 2 || c.servers[c.host] != used {
		return
	}
	if c.host == 0 {
		c.hostLeft = c.cfg.Now()
	}
	c.host = (c.host + 1) % len(c.servers)
	c.cfg.Log.Warn("switched server", "from", Masked(used), "to", Masked(c.servers[c.host]))
}
