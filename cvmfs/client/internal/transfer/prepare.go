package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
)

const (
	maxScript   = 1 << 20 // bytes of a proxy script
	maxOrder    = 4 << 10 // bytes of an answer of the Geo-API
	geoAttempts = 3
	wpadURL     = "http://wpad/wpad.dat"
	separator   = "+PXYSEP+"

	proxiesState = "proxies" // what auto stood for the last time
	uuidState    = "uuid"    // Compat: what a client without a proxy is called
)

// prepare does, before the first request, what takes the network: it finds the
// proxies that auto stands for, the addresses of proxies, and the order of
// servers. What fails costs time and is done without.
func (c *Client) prepare(ctx context.Context) error {
	if c.prepared.Load() {
		return nil
	}
	if err := c.lockProxies(ctx); err != nil {
		return err
	}
	defer c.unlockProxies()
	if c.prepared.Load() {
		return nil
	}
	if err := c.discover(ctx); err != nil {
		return err
	}
	c.resolveProxies(ctx)
	if c.cfg.GeoOrder {
		c.orderServers(ctx)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) // the next request prepares again
	}
	c.prepared.Store(true)
	return nil
}

// lockProxies waits for whoever else prepares.
func (c *Client) lockProxies(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Client) unlockProxies() { c.ready <- struct{}{} }

// SetProxies replaces the proxies, but for those to fall back to, for the
// requests that are made from now on. ErrNoProxy says that the list has none, or
// that none is found for its auto; then nothing changes.
func (c *Client) SetProxies(ctx context.Context, list string) error {
	return c.changeProxies(ctx, func() { c.given = list })
}

// SetFallbackProxies replaces the proxies to fall back to. An empty list leaves
// none.
func (c *Client) SetFallbackProxies(ctx context.Context, list string) error {
	return c.changeProxies(ctx, func() { c.spare = list })
}

func (c *Client) changeProxies(ctx context.Context, edit func()) error {
	if err := c.lockProxies(ctx); err != nil {
		return err
	}
	defer c.unlockProxies()
	given, spare := c.given, c.spare
	edit()
	err := c.replaceProxies(ctx, c.given != given)
	if err != nil {
		c.given, c.spare = given, spare
	}
	return err
}

// replaceProxies installs what the lists now say.
func (c *Client) replaceProxies(ctx context.Context, needed bool) error {
	cfg := c.cfg
	cfg.Proxies, cfg.FallbackProxies = c.given, c.spare
	regular, spare, err := readLists(cfg)
	if err != nil {
		return err
	}
	if regular, err = c.expandAuto(ctx, regular); err != nil {
		return err
	}
	if needed && len(regular) == 0 {
		return fmt.Errorf("proxy list %q: %w", Masked(c.given), ErrNoProxy)
	}
	if err := c.install(join(regular, spare)); err != nil {
		return err
	}
	c.cfg.Log.Info("proxies set", "proxies", Masked(c.given), "fallback", Masked(c.spare))
	c.resolveProxies(ctx)
	return nil
}

// discover replaces the groups auto of the list in use.
func (c *Client) discover(ctx context.Context) error {
	c.mu.Lock()
	names, fallback := c.names, c.fallback
	c.mu.Unlock()
	if !hasAuto(names) {
		return nil
	}
	regular, err := c.expandAuto(ctx, names[:fallback])
	if err != nil {
		return err
	}
	return c.install(join(regular, names[fallback:]))
}

func hasAuto(groups [][]string) bool {
	return slices.ContainsFunc(groups, func(g []string) bool { return g[0] == auto })
}

// expandAuto replaces the groups auto by what a proxy script says, or else by what
// one said the last time. Compat: cvmfs/wpad.cc.
//
// Differs: the script is asked for the first server only, whose answer is the
// one that counts there too; and what is remembered stands in for auto alone,
// and only as long as the configuration is the same.
func (c *Client) expandAuto(ctx context.Context, groups [][]string) ([][]string, error) {
	if !hasAuto(groups) {
		return groups, nil
	}
	mark := fmt.Sprintf("%q %q\n", c.given, c.cfg.PACURLs)
	found := c.askScripts(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if found != nil {
		c.cfg.State.Save(proxiesState, mark+listOf(found)+"\n")
	} else if text, ok := strings.CutPrefix(c.cfg.State.Load(proxiesState), mark); ok {
		if groups, err := parseProxies(strings.TrimSpace(text)); err == nil {
			found = without(groups, auto)
			c.cfg.Log.Warn("no proxy discovered, taking those of the last time", "proxies", Masked(listOf(found)))
		}
	}
	if found == nil {
		c.cfg.Log.Warn("no proxy discovered for auto", "remedy", "set http_proxy or name the proxies")
	}
	var expanded [][]string
	for _, g := range groups {
		if g[0] == auto {
			expanded = append(expanded, found...)
		} else {
			expanded = append(expanded, g)
		}
	}
	return expanded, nil
}

// askScripts returns what the first script says that can be had and runs.
func (c *Client) askScripts(ctx context.Context) [][]string {
	servers, _ := c.Servers()
	if len(servers) == 0 {
		return nil
	}
	server, err := url.Parse(servers[0])
	if err != nil || server.Scheme == "file" {
		return nil
	}
	for _, address := range c.cfg.PACURLs {
		if address = strings.TrimSpace(address); address == auto {
			address = wpadURL
		}
		var script []byte
		a := Attempt{Server: address, Proxy: Direct}
		c.exchange(ctx, &a, address, &proxy{}, request{}, func(body io.Reader) (err error) {
			script, err = io.ReadAll(io.LimitReader(body, maxScript+1))
			return err
		})
		if a.Err == nil && len(script) > maxScript {
			a.Err = errors.New("the script is too long")
		}
		if a.Err == nil {
			var answer string
			if answer, a.Err = c.cfg.EvaluatePAC(ctx, script, server.String()+"/.cvmfspublished", server.Hostname()); a.Err == nil {
				groups := readAnswer(answer)
				c.cfg.Log.Info("proxies discovered", "script", address, "proxies", Masked(listOf(groups)))
				return groups
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		c.cfg.Log.Info("no proxies from this script", "script", address, "err", a.Err)
	}
	return nil
}

// readAnswer turns what FindProxyForURL returned into groups, each of one proxy:
// such a list is in the order of fail-over. What is no HTTP proxy is passed over.
func readAnswer(answer string) [][]string {
	var groups [][]string
	for part := range strings.SplitSeq(answer, ";") {
		fields := strings.Fields(part)
		if len(fields) == 0 {
			continue
		}
		item := strings.Join(fields[1:], "")
		switch strings.ToUpper(fields[0]) {
		case Direct:
			item = Direct
		case "PROXY", "HTTP":
		case "HTTPS":
			item = "https://" + item
		default:
			continue
		}
		// One that would divide a list again is none.
		if g, err := parseProxies(item); err == nil && len(g) == 1 && len(g[0]) == 1 && g[0][0] != auto {
			groups = append(groups, g[0])
		}
	}
	if len(groups) == 0 {
		return [][]string{{Direct}}
	}
	return groups
}

func listOf(groups [][]string) string {
	text := make([]string, 0, len(groups))
	for _, g := range groups {
		text = append(text, strings.Join(g, "|"))
	}
	return strings.Join(text, ";")
}

// orderServers asks the servers which of them, and which of the proxies to fall
// back to, are near, and reports whether it knows now. Compat: cvmfs:
// DownloadManager::ProbeGeo.
func (c *Client) orderServers(ctx context.Context) bool {
	c.mu.Lock()
	servers, spare, fallback := slices.Clone(c.servers), slices.Clone(c.groups[min(c.fallback, len(c.groups)):]), c.fallback
	names := c.names
	c.mu.Unlock()
	known := len(servers) < 2 && len(spare) < 2
	if order, ok := c.askOrder(ctx, servers, spare, fallback == 0); ok {
		known = true
		var regular []string
		var group []int
		for _, i := range order {
			switch first := len(order) - len(spare); {
			case i < len(servers):
				regular = append(regular, servers[i])
			case i >= first:
				group = append(group, i-first)
			}
		}
		c.putServers(regular, slices.Repeat([]Probe{{Placed: true}}, len(regular)))
		c.mu.Lock()
		old := slices.Clone(c.groups)
		byName := slices.Clone(names)
		for to, from := range group {
			c.groups[fallback+to] = old[fallback+from]
			byName[fallback+to] = names[fallback+from]
		}
		c.names = byName
		c.group = min(c.group, fallback)
		c.mu.Unlock()
	}
	all, probes, _ := c.Probes()
	if kept := firstServers(all, c.cfg.MaxServers); len(kept) < len(all) {
		c.putServers(kept, probes[:len(kept)])
	}
	return known
}

// askOrder sorts servers by name, so that caches see one question from all
// clients, and returns the order of servers, then of proxies, as indexes.
func (c *Client) askOrder(ctx context.Context, servers []string, spare [][]*proxy, onlySpare bool) ([]int, bool) {
	if len(servers) == 0 || len(servers) < 2 && len(spare) < 2 {
		return nil, false
	}
	host := func(base string) string {
		u, err := url.Parse(base)
		if err != nil || u.Scheme == "file" {
			return ""
		}
		return u.Hostname()
	}
	sort.SliceStable(servers, func(i, j int) bool { return host(servers[i]) < host(servers[j]) })
	var names []string
	for _, s := range servers {
		if host(s) == "" {
			return nil, false
		}
		names = append(names, host(s))
	}
	if onlySpare && len(servers) > 1 {
		names = append(names, separator)
	}
	for _, g := range spare {
		names = append(names, g[0].name)
	}
	asked := slices.Clone(servers)
	mathrand.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
	for _, s := range firstServers(asked, geoAttempts) {
		via, _ := c.proxyFor("")
		var order []int
		a := c.try(ctx, s, via, request{path: "api/v1.0/geo/" + c.geoName(via) + "/" + strings.Join(names, ",")}, func(body io.Reader) error {
			text, err := io.ReadAll(io.LimitReader(body, maxOrder))
			if err == nil {
				order, err = parseOrder(string(text), len(names))
			}
			return err
		})
		if a.Err == nil {
			return order, true
		}
		if ctx.Err() != nil {
			return nil, false
		}
		c.cfg.Log.Info("the server does not say which servers are near", "server", s, "err", a.Err)
		if a.Class.proxyError() {
			c.leaveProxy(via)
		}
	}
	return nil, false
}

// geoName is what the servers look up to know where this client is: its proxy,
// which is near it, or a name that nobody knows, so that they take the address
// that the request comes from.
func (c *Client) geoName(via *proxy) string {
	switch {
	case c.cfg.GeoName != "":
		return c.cfg.GeoName
	case via.url != nil:
		return via.name
	}
	if id := strings.TrimSpace(c.cfg.State.Load(uuidState)); isUUID(id) {
		return id
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	c.cfg.State.Save(uuidState, id+"\n")
	return id
}

func isUUID(text string) bool {
	return len(text) == 36 && strings.Trim(text, "0123456789abcdefABCDEF-") == ""
}

// parseOrder reads "2,1,3": each number from 1 to n once. The result counts from
// zero.
func parseOrder(text string, n int) ([]int, error) {
	bad := fmt.Errorf("%.100q is no order of %d servers", text, n)
	fields := strings.Split(strings.TrimSuffix(text, "\n"), ",")
	if len(fields) != n {
		return nil, bad
	}
	order := make([]int, 0, n)
	for _, f := range fields {
		i, err := strconv.Atoi(strings.TrimSpace(f))
		if err != nil || i < 1 || i > n || slices.Contains(order, i-1) {
			return nil, bad
		}
		order = append(order, i-1)
	}
	return order, nil
}
