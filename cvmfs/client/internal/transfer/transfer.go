package transfer

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of the original client.
const (
	defaultTimeout         = 5 * time.Second  // CVMFS_TIMEOUT
	defaultTimeoutDirect   = 10 * time.Second // CVMFS_TIMEOUT_DIRECT
	defaultBackoff         = 2 * time.Second  // CVMFS_BACKOFF_INIT
	defaultMaxBackoff      = 10 * time.Second // CVMFS_BACKOFF_MAX
	defaultProxyResetAfter = 300 * time.Second
	defaultHostResetAfter  = 1800 * time.Second
	defaultLowSpeed        = 1024 // bytes a second, CVMFS_LOW_SPEED_LIMIT
	maxTransfers           = 16
)

// Tuning has the same fields, in the same order, as Network of package client,
// which says what they mean.
type Tuning struct {
	FallbackProxies    string
	TimeoutDirect      time.Duration
	BackoffMax         time.Duration
	LowSpeed           int
	ProxyResetAfter    time.Duration
	HostResetAfter     time.Duration
	IndefiniteFailover bool
	ShardProxies       bool
	FollowRedirects    bool
	MaxServers         int
	GeoOrder           bool
	GeoName            string
	DNSTimeout         time.Duration
	DNSRetries         int
	IPv4Only           bool
	PreferIPv6         bool
	AddressesPerProxy  int
	PACURLs            []string
	EvaluatePAC        func(ctx context.Context, script []byte, url, host string) (string, error)
	SendInfo           bool
}

// Config is what a Client is made from.
type Config struct {
	Tuning
	Servers     []string      // base URLs without a trailing slash, in order of preference
	Proxies     string        // grammar of CVMFS_HTTP_PROXY
	Environment string        // value of http_proxy, which stands in for a group "auto"
	Timeout     time.Duration // for connecting, and for a stall; 0 means 5 s through a proxy and 10 s direct
	Retries     int           // of one server and proxy after a transfer error; negative means none
	Backoff     time.Duration // before the first retry at most, doubled after it; 0 means 2 s
	Nameservers []string      // instead of the system's
	UserAgent   string
	State       State // where what was discovered is kept; the zero value keeps nothing
	Now         func() time.Time
	Log         *slog.Logger
}

// State keeps short texts from one run to the next. Load returns "" for what is
// not there.
type State struct {
	Load func(kind string) string
	Save func(kind, text string)
}

// Client gets objects. It is safe for concurrent use.
type Client struct {
	cfg    Config
	http   *http.Transport
	dialer *dialer
	slots  chan struct{} // one for each transfer that may run
	lookup func(ctx context.Context, host string) ([]string, error)

	ready     chan struct{} // holds a token while nobody prepares
	prepared  atomic.Bool
	life      context.Context //nolint:containedctx // ends with Close, for what runs in the background
	end       context.CancelFunc
	tasks     sync.WaitGroup
	resolving atomic.Bool

	// What the proxies were made from; whoever has the token of ready.
	given, spare string

	mu         sync.Mutex // guards the following
	proxied    time.Duration
	direct     time.Duration
	servers    []string   // replaced as a whole
	probes     []Probe    // of each server; replaced as a whole
	host       int        // index of the active server
	hostLeft   time.Time  // when the first server was left; zero while it is active
	names      [][]string // groups of proxies by name, the fallback ones last
	fallback   int        // index of the first group of fallback proxies
	groups     [][]*proxy // by address
	resolved   time.Time  // when the addresses were looked up
	group      int        // index of the active proxy group
	groupLeft  time.Time  // when the first group was left
	proxyCount int
	failures   throttle
}

// Accept reads the body of an answer. It is called once for each attempt and
// must start afresh each time. An error that wraps ErrBad says that the bytes
// are wrong; the attempt then counts as a failure of the server.
type Accept func(body io.Reader) error

// New makes a client; nothing is connected yet. Without a server every request
// fails with ErrNoServer, until SetServers names some.
func New(cfg Config) (*Client, error) {
	cfg.setDefaults()
	c := &Client{
		cfg: cfg, dialer: newDialer(cfg), slots: make(chan struct{}, maxTransfers),
		ready: make(chan struct{}, 1),
		given: cfg.Proxies, spare: cfg.FallbackProxies, proxied: cfg.Timeout, direct: cfg.TimeoutDirect,
	}
	c.lookup = c.dialer.lookup
	c.ready <- struct{}{}
	servers, err := parseServers(cfg.Servers)
	if err != nil {
		return nil, err
	}
	secure := slices.ContainsFunc(servers, func(s string) bool {
		return strings.HasPrefix(s, "https:") || strings.HasPrefix(s, "http:") && cfg.FollowRedirects
	})
	if !cfg.GeoOrder {
		servers = firstServers(servers, cfg.MaxServers)
	}
	c.servers, c.probes = servers, make([]Probe, len(servers))
	names, fallback, err := chain(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.install(names, fallback); err != nil {
		return nil, err
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.http = &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			u, _ := r.Context().Value(proxyKey{}).(*url.URL)
			return u, nil
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			u, _ := ctx.Value(proxyKey{}).(*url.URL)
			return c.dialer.dial(ctx, network, address, c.timeout(u != nil))
		},
		// The hash of an object is over its stored bytes, so that no other coding
		// may be asked for; and HTTP/2 would put all transfers on one connection.
		DisableCompression:  true,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost: maxTransfers,
		MaxConnsPerHost:     maxTransfers,
		IdleConnTimeout:     90 * time.Second,
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

func (cfg *Config) setDefaults() {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	set := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	if cfg.TimeoutDirect <= 0 {
		cfg.TimeoutDirect = cmp.Or(max(cfg.Timeout, 0), defaultTimeoutDirect)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	set(&cfg.Backoff, defaultBackoff)
	set(&cfg.BackoffMax, defaultMaxBackoff)
	set(&cfg.ProxyResetAfter, defaultProxyResetAfter)
	set(&cfg.HostResetAfter, defaultHostResetAfter)
	if cfg.LowSpeed == 0 {
		cfg.LowSpeed = defaultLowSpeed
	}
	if cfg.State.Load == nil {
		cfg.State.Load = func(string) string { return "" }
	}
	if cfg.State.Save == nil {
		cfg.State.Save = func(string, string) {}
	}
}

// Close ends what runs in the background and drops idle connections.
func (c *Client) Close() {
	c.mu.Lock() // nothing starts after this
	c.end()
	c.mu.Unlock()
	c.tasks.Wait()
	c.http.CloseIdleConnections()
}

// Proxies returns the groups of proxies as they are tried, the active one, and
// the index of the first group of those to fall back to, the number of groups if
// there is none.
func (c *Client) Proxies() (groups [][]string, active string, fallback int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.groups {
		var items []string
		for _, p := range g {
			items = append(items, p.String())
		}
		groups = append(groups, items)
	}
	return groups, c.activeProxy("").String(), min(c.fallback, len(groups))
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
	proxied, direct := c.Timeouts()
	if viaProxy {
		return proxied
	}
	return direct
}

// Timeouts returns how long an answer is waited for, through a proxy and without.
func (c *Client) Timeouts() (proxied, direct time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proxied, c.direct
}

// SetTimeouts changes them, for the requests that are made from now on. Both are
// longer than zero.
func (c *Client) SetTimeouts(proxied, direct time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proxied, c.direct = proxied, direct
}

// Get fetches path, relative to the base URL, and hands the body to accept. It
// returns the server that answered. An error of accept that is the caller's own
// comes back as it is; else the error is an *Error, or ctx's.
func (c *Client) Get(ctx context.Context, path string, accept Accept) (server string, err error) {
	return c.get(ctx, request{path: path}, accept)
}

// GetFresh is Get past all caches on the way.
func (c *Client) GetFresh(ctx context.Context, path string, accept Accept) (server string, err error) {
	return c.get(ctx, request{path: path, fresh: true}, accept)
}

// GetPart is Get for the bytes of a file from offset on, size of them.
func (c *Client) GetPart(ctx context.Context, path string, offset, size int64, accept Accept) (server string, err error) {
	return c.get(ctx, request{path: path, offset: offset, size: size}, accept)
}

// request is what is asked for.
type request struct {
	path         string
	offset, size int64  // of the part; a size of 0 means all of it
	info         string // what it is for, told to servers that count
	fresh        bool
}

func (c *Client) get(ctx context.Context, q request, accept Accept) (server string, err error) {
	if c.cfg.SendInfo {
		q.info, _ = ctx.Value(infoKey{}).(string)
	}
	server, failed, err := c.attempts(ctx, q, accept)
	if failed == nil {
		return server, err
	}
	// Whoever asks again and again for what cannot be had is slowed down. A server
	// that only lacks the object has cost little, and says so each time.
	if !failed.Missing() {
		if err := sleep(ctx, c.penalty()); err != nil {
			return "", err
		}
	}
	return "", failed
}

// attempts tries until the object is there, or nothing is left to try, which
// failed tells.
func (c *Client) attempts(ctx context.Context, q request, accept Accept) (server string, failed *Error, err error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return "", nil, context.Cause(ctx)
	}
	defer func() { <-c.slots }()
	if err := c.prepare(ctx); err != nil {
		return "", nil, err
	}

	failed = &Error{Path: q.path}
	usedProxies, usedHosts, retries, fresh := 1, 1, 0, q.fresh
	backoff := time.Duration(0)
	servers, host := c.start()
	if len(servers) == 0 {
		return "", nil, ErrNoServer
	}
	for {
		via, proxies := c.proxyFor(q.path)
		a := c.try(ctx, servers[host], via, q, accept)
		if a.Err == nil {
			return servers[host], nil, nil
		}
		if ctx.Err() != nil {
			return "", nil, context.Cause(ctx)
		}
		if a.Class == Local {
			return "", nil, a.Err
		}
		c.cfg.Log.Debug("transfer failed", "path", q.path, "server", a.Server, "proxy", a.Proxy, "class", a.Class.String(), "err", a.Err)
		failed.add(a)

		class := a.Class
		if class == BadData {
			if !q.fresh {
				q.fresh = true
				continue
			}
			class = HostHTTP
		}
		if class.transferError() && q.fresh == fresh && retries < c.cfg.Retries {
			retries++
			backoff = c.nextBackoff(backoff)
			if err := sleep(ctx, backoff); err != nil {
				return "", nil, err
			}
			continue
		}
		q.fresh = fresh
		switch {
		case class.proxyError() && usedProxies < proxies:
			c.leaveProxy(via)
			usedProxies++
		case usedHosts < len(servers):
			if class.proxyError() { // all proxies failed: perhaps it is the server behind them
				c.resetProxies()
				usedProxies = 1
			}
			next := (host + 1) % len(servers)
			if class != NotFound {
				c.leaveHost(servers[host])
			}
			host = next
			usedHosts++
		case class.proxyError() && c.cfg.IndefiniteFailover:
			c.resetProxies()
			usedProxies = 1
			backoff = c.nextBackoff(backoff)
			if err := sleep(ctx, backoff); err != nil {
				return "", nil, err
			}
		default:
			return "", failed, nil
		}
	}
}

// try makes one attempt; the result's Err is nil after success.
func (c *Client) try(ctx context.Context, base string, via *proxy, q request, accept Accept) Attempt {
	a := Attempt{Server: base, Proxy: via.String()}
	if dir, ok := strings.CutPrefix(base, "file://"); ok {
		a.Proxy = Direct
		a.Class, a.Err = tryFile(dir, q, accept)
		return a
	}
	c.exchange(ctx, &a, base+"/"+(&url.URL{Path: q.path}).EscapedPath(), via, q, accept)
	return a
}

// exchange makes an attempt over HTTP and enters how it ended.
func (c *Client) exchange(ctx context.Context, a *Attempt, address string, via *proxy, q request, accept Accept) {
	viaProxy := via.url != nil
	timeout := c.timeout(viaProxy)
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, proxyKey{}, via.url))
	defer cancel(nil)
	w := &watch{ctx: ctx, limit: timeout, lowSpeed: c.cfg.LowSpeed, cancel: func() { cancel(errSlow) }}
	w.timer = time.AfterFunc(2*timeout, w.cancel) // connecting, then waiting for the answer
	defer w.timer.Stop()
	resp, err := c.roundTrip(ctx, address, q)
	if err != nil {
		if errors.Is(context.Cause(ctx), errSlow) {
			err = errSlow
		}
		a.Class, a.Err = classify(err, viaProxy), cause(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	w.timer.Stop()
	a.Status = resp.StatusCode
	if resp.StatusCode != q.status() {
		a.Class, a.Err = classifyStatus(resp, viaProxy, c.cfg.FollowRedirects)
		// A short error page is read to its end, which keeps the connection usable.
		_, _ = io.CopyN(io.Discard, &watchedReader{watch: w, r: resp.Body}, 4<<10)
		return
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
}

const maxRedirects = 4

// roundTrip sends one request and, if that is allowed, follows where the answers
// point to: never out of HTTP, and not from a private connection to a plain one.
func (c *Client) roundTrip(ctx context.Context, address string, q request) (*http.Response, error) {
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRequest, err)
		}
		req.Header.Set("User-Agent", c.cfg.UserAgent)
		if q.fresh {
			req.Header.Set("Pragma", "no-cache")
			req.Header.Set("Cache-Control", "no-cache")
		}
		if q.size > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", q.offset, q.offset+q.size-1))
		}
		if q.info != "" { // Compat: the header's name and form (cvmfs: DownloadManager::InitializeRequest)
			req.Header.Set("Cvmfs-Info", q.info)
		}
		resp, err := c.http.RoundTrip(req)
		if err != nil || !c.cfg.FollowRedirects || hop == maxRedirects {
			return resp, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		to, err := resp.Location()
		if err != nil || to.Host == "" || to.Scheme != "https" && (to.Scheme != "http" || req.URL.Scheme == "https") {
			return resp, nil //nolint:nilerr // the answer itself says what is wrong
		}
		address = to.String()
		_ = resp.Body.Close()
	}
}

// status is the one of an answer that has what was asked for. The bytes of a
// part are verified like those of a whole file, so that which part it is need
// not be read from the answer.
func (q request) status() int {
	if q.size > 0 {
		return http.StatusPartialContent
	}
	return http.StatusOK
}

// infoKey is for what a request is made for.
type infoKey struct{}

// For tells the servers, where the configuration wants that, what a request is made
// for; "" is nothing.
func For(ctx context.Context, purpose string) context.Context {
	if purpose == "" {
		return ctx
	}
	return context.WithValue(ctx, infoKey{}, escape(purpose))
}

// escape makes text fit for a header. Compat: the characters that need no escape
// there are the original's (cvmfs: EscapeUrlChar).
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("/:.@+-_~[],", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func tryFile(dir string, q request, accept Accept) (Class, error) {
	dir = strings.TrimPrefix(dir, "localhost")
	if plain, err := url.PathUnescape(dir); err == nil {
		dir = plain
	}
	f, err := os.Open(filepath.Join(dir, q.path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return NotFound, errAbsent // not fs.ErrNotExist, which is for paths in the repository
	case err != nil:
		return HostConnection, err
	}
	defer func() { _ = f.Close() }()
	body := &watchedReader{r: f}
	if q.size > 0 {
		body.r = io.NewSectionReader(f, q.offset, q.size)
	}
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
