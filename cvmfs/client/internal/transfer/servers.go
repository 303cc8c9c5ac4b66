package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Probe is what is known of how near a server is; the zero value is nothing.
type Probe struct {
	RoundTrip time.Duration // of one request, when the servers were last compared
	Down      bool          // it did not answer then
	Placed    bool          // its place in the list is what the Geo-API says
}

// parseServers checks base URLs and brings them into one form.
func parseServers(list []string) ([]string, error) {
	servers := make([]string, 0, len(list))
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("server %q: %w", Masked(s), cause(err))
		}
		switch u.Scheme {
		case "http", "https":
			if u.Hostname() == "" {
				return nil, fmt.Errorf("server %q: no host in the URL", Masked(s))
			}
		case "file":
			if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
				return nil, fmt.Errorf("server %q: a file URL has the form file:///path", Masked(s))
			}
		default:
			return nil, fmt.Errorf("server %q: want a URL of http, https or file", Masked(s))
		}
		servers = append(servers, strings.TrimRight(s, "/"))
	}
	return servers, nil
}

func firstServers(list []string, n int) []string {
	if n > 0 && n < len(list) {
		return list[:n:n]
	}
	return list
}

// Servers returns the base URLs and the index of the active one.
func (c *Client) Servers() (list []string, active int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servers, c.host
}

// Probes returns what is known of how near each server is, in the order of
// Servers, and the servers themselves.
func (c *Client) Probes() (list []string, probes []Probe, active int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servers, c.probes, c.host
}

// SwitchServer makes the next server the active one.
func (c *Client) SwitchServer() {
	if servers, active := c.Servers(); len(servers) > 0 {
		c.leaveHost(servers[active])
	}
}

// SetServers replaces the servers, for the requests that are made from now on;
// the first one is asked first.
func (c *Client) SetServers(list []string) error {
	servers, err := parseServers(list)
	if err != nil {
		return err
	}
	if len(servers) == 0 {
		return ErrNoServer
	}
	c.putServers(servers, make([]Probe, len(servers)))
	return nil
}

// putServers replaces the servers and begins with the first.
func (c *Client) putServers(servers []string, probes []Probe) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers, c.probes, c.host, c.hostLeft = servers, probes, 0, time.Time{}
	c.cfg.Log.Info("servers set", "servers", Masked(strings.Join(servers, ";")))
}

// ProbeServers orders the servers by how long each takes to answer a request for
// path, the second time, when caches on the way have the answer. Those that do not
// answer come last.
func (c *Client) ProbeServers(ctx context.Context, path string) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	servers, _ := c.Servers()
	probes := make(map[string]Probe, len(servers))
	for range 2 {
		for _, s := range servers {
			start := c.cfg.Now()
			a := c.ask(ctx, s, path, func(body io.Reader) error {
				_, err := io.Copy(io.Discard, body)
				return err
			})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			probes[s] = Probe{RoundTrip: c.cfg.Now().Sub(start)}
			if a.Err != nil {
				probes[s] = Probe{Down: true}
				c.cfg.Log.Info("the server does not answer", "server", Masked(s), "err", a.Err)
			}
		}
	}
	servers = slices.Clone(servers)
	far := func(s string) time.Duration {
		if probes[s].Down {
			return math.MaxInt64
		}
		return probes[s].RoundTrip
	}
	slices.SortStableFunc(servers, func(a, b string) int { return cmp.Compare(far(a), far(b)) })
	inOrder := make([]Probe, 0, len(servers))
	for _, s := range servers {
		inOrder = append(inOrder, probes[s])
	}
	c.putServers(servers, inOrder)
	return nil
}

// errOrder says that no server knows the order of servers.
var errOrder = errors.New("no server says which servers are near")

// OrderServers asks the servers again which of them are near.
func (c *Client) OrderServers(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	if err := c.lockProxies(ctx); err != nil { // their groups stay the same meanwhile
		return err
	}
	defer c.unlockProxies()
	if !c.orderServers(ctx) {
		return errOrder
	}
	return nil
}

// ask requests something of one server, through one proxy after the other until
// one answers.
func (c *Client) ask(ctx context.Context, server, path string, accept Accept) Attempt {
	for used := 1; ; used++ {
		via, proxies := c.proxyFor(path)
		a := c.try(ctx, server, via, request{path: path}, accept)
		if a.Err == nil || !a.Class.proxyError() || ctx.Err() != nil {
			return a
		}
		c.leaveProxy(via)
		if used >= proxies {
			return a
		}
	}
}
