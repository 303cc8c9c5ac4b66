package transfer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Defaults of the original client.
const (
	defaultTimeout       = 5 * time.Second  // CVMFS_TIMEOUT
	defaultTimeoutDirect = 10 * time.Second // CVMFS_TIMEOUT_DIRECT
	defaultBackoff       = 2 * time.Second  // CVMFS_BACKOFF_INIT
	maxBackoff           = 10 * time.Second // CVMFS_BACKOFF_MAX
	proxyResetAfter      = 300 * time.Second
	hostResetAfter       = 1800 * time.Second
	lowSpeedLimit        = 1024 // bytes a second, CVMFS_LOW_SPEED_LIMIT
	maxTransfers         = 16
)

// Config is what a Client is made from.
type Config struct {
	Servers     []string // base URLs without a trailing slash, in order of preference
	Proxies     [][]string
	Timeout     time.Duration // for connecting, and for a stall; 0 means 5 s through a proxy and 10 s direct
	Retries     int           // of one server and proxy after a transfer error; negative means none
	Backoff     time.Duration // before the first retry at most, doubled after it; 0 means 2 s
	Nameservers []string      // instead of the system's
	UserAgent   string
	Now         func() time.Time
	Log         *slog.Logger
}

// Client gets objects. It is safe for concurrent use.
type Client struct {
	cfg     Config
	servers []string
	http    *http.Transport
	dialer  *dialer
	slots   chan struct{} // one for each transfer that may run

	mu         sync.Mutex // guards the following
	host       int        // index of the active server
	hostLeft   time.Time  // when the first server was left; zero while it is active
	groups     [][]*proxy
	group      int       // index of the active proxy group
	groupLeft  time.Time // when the first group was left
	proxyCount int
}

// Accept reads the body of an answer. It is called once for each attempt and
// must start afresh each time. An error that wraps ErrBad says that the bytes
// are wrong; the attempt then counts as a failure of the server.
type Accept func(body io.Reader) error

// New makes a client; nothing is connected yet.
func New(cfg Config) (*Client, error) {
	if len(cfg.Servers) == 0 {
		return nil, errors.New("no server given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = defaultBackoff
	}
	if len(cfg.Proxies) == 0 {
		cfg.Proxies = [][]string{{Direct}}
	}
	c := &Client{cfg: cfg, dialer: newDialer(cfg.Now, cfg.Nameservers), slots: make(chan struct{}, maxTransfers)}
	secure := false
	for _, s := range cfg.Servers {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("server %q: %w", s, err)
		}
		switch u.Scheme {
		case "http":
		case "https":
			secure = true
		case "file":
			if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
				return nil, fmt.Errorf("server %q: a file URL has the form file:///path", s)
			}
		default:
			return nil, fmt.Errorf("server %q: want a URL of http, https or file", s)
		}
		c.servers = append(c.servers, strings.TrimRight(s, "/"))
	}
	groups, err := makeProxies(cfg.Proxies, nil)
	if err != nil {
		return nil, err
	}
	c.groups = groups
	for _, g := range groups {
		c.proxyCount += len(g)
	}
	c.http = &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			u, _ := r.Context().Value(proxyKey{}).(*url.URL)
			return u, nil
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.dialer.dial(ctx, network, address, c.timeout(false))
		},
		// The hash of an object is over its stored bytes, so that no other coding
		// may be asked for; and HTTP/2 would put all transfers on one connection.
		DisableCompression:  true,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost: maxTransfers,
		MaxConnsPerHost:     maxTransfers,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: c.timeout(true),
		ReadBufferSize:      16 << 10,
		WriteBufferSize:     2 << 10,
	}
	if secure {
		// Loaded now: a process that changes its root cannot find them later.
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("loading certificate authorities: %w", err)
		}
		c.http.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Servers returns the base URLs and the index of the active one.
func (c *Client) Servers() (list []string, active int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servers, c.host
}

// Proxies returns the groups of proxies as they are tried, and the active one.
func (c *Client) Proxies() (groups [][]string, active string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.groups {
		var items []string
		for _, p := range g {
			items = append(items, p.String())
		}
		groups = append(groups, items)
	}
	return groups, c.activeProxy().String()
}

// SetNameservers replaces the name servers, addresses with or without a port.
func (c *Client) SetNameservers(list []string) { c.dialer.setNameservers(list) }

// Nameservers returns what SetNameservers or the configuration set.
func (c *Client) Nameservers() []string {
	c.dialer.mu.Lock()
	defer c.dialer.mu.Unlock()
	return c.dialer.nameservers
}

type proxyKey struct{}

func (c *Client) timeout(viaProxy bool) time.Duration {
	switch {
	case c.cfg.Timeout > 0:
		return c.cfg.Timeout
	case viaProxy:
		return defaultTimeout
	}
	return defaultTimeoutDirect
}

// Get fetches path, relative to the base URL, and hands the body to accept. It
// returns the server that answered. An error of accept that is the caller's own
// comes back as it is; else the error is an *Error, or ctx's.
func (c *Client) Get(ctx context.Context, path string, accept Accept) (server string, err error) {
	return c.get(ctx, path, false, accept)
}

// GetFresh is Get past all caches on the way.
func (c *Client) GetFresh(ctx context.Context, path string, accept Accept) (server string, err error) {
	return c.get(ctx, path, true, accept)
}

func (c *Client) get(ctx context.Context, path string, fresh bool, accept Accept) (server string, err error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { <-c.slots }()

	failed := &Error{Path: path}
	usedProxies, usedHosts, retries, noCache := 1, 1, 0, fresh
	backoff := time.Duration(0)
	host := c.start()
	for {
		c.mu.Lock()
		via := c.activeProxy()
		c.mu.Unlock()
		a := c.try(ctx, host, via, path, noCache, accept)
		if a.Err == nil {
			return c.servers[host], nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if a.Class == Local {
			return "", a.Err
		}
		c.cfg.Log.Debug("transfer failed", "path", path, "server", a.Server, "proxy", a.Proxy, "class", a.Class.String(), "err", a.Err)
		failed.Attempts = append(failed.Attempts, a)
		direct := via.url == nil

		class := a.Class
		if class == BadData {
			if !noCache {
				noCache = true
				continue
			}
			class = HostHTTP
		}
		if class.transferError() && retries < c.cfg.Retries {
			retries++
			backoff = nextBackoff(backoff, c.cfg.Backoff)
			if err := sleep(ctx, backoff); err != nil {
				return "", err
			}
			continue
		}
		noCache = fresh
		switch {
		case class.proxyError() && !direct && usedProxies < c.proxyCount:
			c.leaveProxy(via)
			usedProxies++
		case usedHosts < len(c.servers):
			if class.proxyError() && !direct { // all proxies failed: perhaps it is the server behind them
				c.resetProxies()
				usedProxies = 1
			}
			next := (host + 1) % len(c.servers)
			if class != NotFound {
				c.leaveHost(host)
			}
			host = next
			usedHosts++
		default:
			return "", failed
		}
	}
}

// LeaveServer moves on from a server whose answers turned out to be of no use,
// although they came through.
func (c *Client) LeaveServer(server string) {
	for i, s := range c.servers {
		if s == server {
			c.leaveHost(i)
			return
		}
	}
}

// start returns to preferred proxies and servers whose time has come, and
// returns the active server.
func (c *Client) start() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	if c.group != 0 && now.Sub(c.groupLeft) > proxyResetAfter {
		c.group = 0
	}
	for _, p := range c.groups[c.group] {
		if !p.burned.IsZero() && now.Sub(p.burned) > proxyResetAfter {
			p.burned = time.Time{}
		}
	}
	if c.host != 0 && now.Sub(c.hostLeft) > hostResetAfter {
		c.host = 0
	}
	return c.host
}

// activeProxy is called with the lock held.
func (c *Client) activeProxy() *proxy {
	group := c.groups[c.group]
	for _, p := range group {
		if p.burned.IsZero() {
			return p
		}
	}
	return group[0]
}

// leaveProxy burns a proxy, and goes to the next group when all of the active
// one are burned. Another request may have done so already.
func (c *Client) leaveProxy(used *proxy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.activeProxy() != used {
		return
	}
	now := c.cfg.Now()
	used.burned = now
	if c.activeProxy() != used { // the group has another one
		return
	}
	if c.group == 0 {
		c.groupLeft = now
	}
	c.group = (c.group + 1) % len(c.groups)
	for _, p := range c.groups[c.group] {
		p.burned = time.Time{}
	}
	c.cfg.Log.Warn("switched proxy group", "from", used.String(), "to", c.activeProxy().String())
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
func (c *Client) leaveHost(used int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.host != used || len(c.servers) == 1 {
		return
	}
	if c.host == 0 {
		c.hostLeft = c.cfg.Now()
	}
	c.host = (c.host + 1) % len(c.servers)
	c.cfg.Log.Warn("switched server", "from", c.servers[used], "to", c.servers[c.host])
}

// try makes one attempt; the result's Err is nil after success.
func (c *Client) try(ctx context.Context, host int, via *proxy, path string, noCache bool, accept Accept) Attempt {
	a := Attempt{Server: c.servers[host], Proxy: via.String()}
	if dir, ok := strings.CutPrefix(a.Server, "file://"); ok {
		a.Proxy = Direct
		a.Class, a.Err = tryFile(dir, path, accept)
		return a
	}
	viaProxy := via.url != nil
	timeout := c.timeout(viaProxy)
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, proxyKey{}, via.url))
	defer cancel(nil)
	w := &watch{ctx: ctx, limit: timeout, cancel: func() { cancel(errSlow) }}
	w.timer = time.AfterFunc(2*timeout, w.cancel) // connecting, then waiting for the answer
	defer w.timer.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Server+"/"+(&url.URL{Path: path}).EscapedPath(), nil)
	if err != nil {
		a.Class, a.Err = Local, err
		return a
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if noCache {
		req.Header.Set("Pragma", "no-cache")
		req.Header.Set("Cache-Control", "no-cache")
	}
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		if errors.Is(context.Cause(ctx), errSlow) {
			err = errSlow
		}
		a.Class, a.Err = classify(err, viaProxy), cause(err)
		return a
	}
	defer func() { _ = resp.Body.Close() }()
	w.timer.Stop()
	a.Status = resp.StatusCode
	if resp.StatusCode != http.StatusOK {
		a.Class, a.Err = classifyStatus(resp, viaProxy)
		// A short error page is read to its end, which keeps the connection usable.
		_, _ = io.CopyN(io.Discard, &watchedReader{watch: w, r: resp.Body}, 4<<10)
		return a
	}
	body := &watchedReader{watch: w, r: resp.Body}
	err = accept(body)
	switch {
	case err == nil:
	case body.err != nil && !errors.Is(body.err, io.EOF):
		a.Class, a.Err = classify(body.err, viaProxy), cause(body.err)
	case errors.Is(err, ErrBad):
		a.Class, a.Err = BadData, err
	default:
		a.Class, a.Err = Local, err
	}
	return a
}

func tryFile(dir, path string, accept Accept) (Class, error) {
	dir = strings.TrimPrefix(dir, "localhost")
	if plain, err := url.PathUnescape(dir); err == nil {
		dir = plain
	}
	f, err := os.Open(filepath.Join(dir, path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return NotFound, errAbsent // not fs.ErrNotExist, which is for paths in the repository
	case err != nil:
		return HostConnection, err
	}
	defer func() { _ = f.Close() }()
	body := &watchedReader{r: f}
	err = accept(body)
	switch {
	case err == nil:
		return Local, nil
	case body.err != nil && !errors.Is(body.err, io.EOF):
		return HostShort, body.err
	case errors.Is(err, ErrBad):
		return BadData, err
	}
	return Local, err
}

func classifyStatus(resp *http.Response, viaProxy bool) (Class, error) {
	status := resp.StatusCode
	err := error(statusError(status))
	class := HostHTTP
	switch {
	case viaProxy && (resp.Header.Get("X-Squid-Error") != "" || strings.Contains(resp.Header.Get("Proxy-Status"), "error=")):
		class = ProxyHTTP
	case status == http.StatusNotFound:
		class = NotFound
	case status == http.StatusTooManyRequests:
		class = HostConnection
	case status >= 300 && status < 400:
		err = errRedirect
	case status >= 500 || status == http.StatusBadRequest:
	case viaProxy:
		class = ProxyHTTP
	}
	return class, err
}

// cause drops the URL that net/http puts in front: the attempt names it anyway.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// watch ends a transfer that stalls or crawls.
type watch struct {
	ctx    context.Context //nolint:containedctx // of one request, to tell why it was cancelled
	limit  time.Duration
	timer  *time.Timer
	cancel func()

	waited time.Duration // time spent in reads, and bytes they gave, in the window
	bytes  int64
}

// watchedReader remembers how reading ended, apart from what the reader of the
// body makes of it. Only the time inside Read counts against the server.
type watchedReader struct {
	watch *watch // nil for local files
	r     io.Reader
	err   error
}

func (r *watchedReader) Read(p []byte) (int, error) {
	w := r.watch
	if w == nil {
		n, err := r.r.Read(p)
		r.err = err
		return n, err
	}
	w.timer.Reset(w.limit)
	start := time.Now()
	n, err := r.r.Read(p)
	w.timer.Stop()
	w.waited += time.Since(start)
	w.bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(w.ctx), errSlow) {
		err = errSlow
	}
	if err == nil && w.waited >= w.limit {
		if float64(w.bytes) < lowSpeedLimit*w.waited.Seconds() {
			err = errSlow
		}
		w.waited, w.bytes = 0, 0
	}
	if err != nil {
		r.err = err
	}
	return n, err
}

// nextBackoff is random at first and then doubles.
func nextBackoff(last, first time.Duration) time.Duration {
	if last == 0 {
		return rand.N(first) + time.Millisecond
	}
	return min(2*last, maxBackoff)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
