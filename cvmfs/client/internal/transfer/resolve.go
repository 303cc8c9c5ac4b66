package transfer

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// install makes groups of names the ones in use. Each group is in random order,
// so that clients spread over its members. Groups that are still to be
// discovered are left out.
func (c *Client) install(names [][]string, fallback int) error {
	var groups [][]*proxy
	count := 0
	for _, items := range names {
		if items[0] == auto {
			continue
		}
		var group []*proxy
		for _, item := range items {
			p, err := parseProxy(item)
			if err != nil {
				return err
			}
			group = append(group, p)
		}
		rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		groups = append(groups, group)
		count += len(group)
	}
	if len(groups) == 0 {
		groups, count = [][]*proxy{{{}}}, 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.fallback, c.groups, c.group, c.proxyCount = names, fallback, groups, 0, count
	c.resolved = time.Time{}
	return nil
}

// byName reports whether the address of a proxy has to be looked up. That of a
// proxy behind TLS is not: its certificate is for the name.
func (p *proxy) byName() bool {
	return p.url != nil && p.url.Scheme == "http" && net.ParseIP(p.name) == nil
}

// refreshAddresses looks the names of proxies up again, in the background, when
// what is known of them is old. It is called with the lock held.
func (c *Client) refreshAddresses(now time.Time) {
	if c.resolved.IsZero() || now.Sub(c.resolved).Abs() < dnsFresh || c.life.Err() != nil || !c.resolving.CompareAndSwap(false, true) {
		return
	}
	c.tasks.Go(func() {
		defer c.resolving.Store(false)
		c.resolveProxies(c.life)
	})
}

// resolveProxies makes a proxy of each address that a name stands for. A name
// that stands for none stays, and is asked for again when it is used.
func (c *Client) resolveProxies(ctx context.Context) {
	c.mu.Lock()
	hosts := map[string][]string{}
	for _, g := range c.groups {
		for _, p := range g {
			if p.byName() {
				hosts[p.name] = nil
			}
		}
	}
	c.mu.Unlock()
	if len(hosts) == 0 {
		return
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, h := range slices.Collect(maps.Keys(hosts)) { // answers are entered while this goes on
		all.Go(func() {
			found, err := c.lookup(ctx, h)
			if err != nil {
				c.cfg.Log.Warn("the proxy's address is not known", "proxy", h, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			hosts[h] = c.cfg.preferred(found)
		})
	}
	all.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolved = c.cfg.Now()
	c.proxyCount = 0
	for i, g := range c.groups {
		c.groups[i] = expand(g, hosts)
		c.proxyCount += len(c.groups[i])
	}
}

// expand returns a group with the addresses that names have now. Proxies that
// stay keep their place and what is known of them.
func expand(group []*proxy, hosts map[string][]string) []*proxy {
	var out, fresh []*proxy
	done := map[string]bool{}
	for _, p := range group {
		found := hosts[p.name]
		if !p.byName() || len(found) == 0 {
			out = append(out, p)
			continue
		}
		if slices.Contains(found, p.url.Hostname()) {
			out = append(out, p)
		}
		key := p.name + ":" + p.url.Port() + p.url.User.String()
		if done[key] {
			continue
		}
		done[key] = true
		for _, address := range found {
			u := *p.url
			if u.Host = address; strings.Contains(address, ":") {
				u.Host = "[" + address + "]"
			}
			if port := p.url.Port(); port != "" {
				u.Host = net.JoinHostPort(address, port)
			}
			n := &proxy{name: p.name, url: &u}
			if !slices.ContainsFunc(group, func(old *proxy) bool { return old.String() == n.String() && old.name == n.name }) {
				fresh = append(fresh, n)
			}
		}
	}
	rand.Shuffle(len(fresh), func(i, j int) { fresh[i], fresh[j] = fresh[j], fresh[i] })
	return append(out, fresh...)
}

// preferred leaves one family of addresses, as many as are wanted of it.
func (cfg *Config) preferred(addresses []string) []string {
	var four, six []string
	for _, a := range addresses {
		if strings.Contains(a, ":") {
			six = append(six, a)
		} else {
			four = append(four, a)
		}
	}
	out := four
	if len(six) > 0 && !cfg.IPv4Only && (cfg.PreferIPv6 || len(four) == 0) {
		out = six
	}
	if n := cfg.AddressesPerProxy; n > 0 && n < len(out) {
		out = out[:n]
	}
	return out
}
