package client

import (
	"context"
	"os"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
	"github.com/micavm/mica/cvmfs/client/internal/transfer"
)

// Network tunes how servers and proxies are chosen and how long they are waited
// for. The zero value is how the original client does it when its configuration
// is silent; the names of its parameters stand behind the fields.
type Network struct {
	FallbackProxies string        // grammar of Options.Proxies; with any, nothing goes direct (CVMFS_FALLBACK_PROXY)
	TimeoutDirect   time.Duration // Options.Timeout is for both ways unless this is set (CVMFS_TIMEOUT_DIRECT)
	BackoffMax      time.Duration // longest pause before a retry; 0 means 10 s (CVMFS_BACKOFF_MAX)
	LowSpeed        int           // bytes a second below which a transfer has stalled; 0 means 1024 (CVMFS_LOW_SPEED_LIMIT)

	// How long after leaving the first group of proxies, or the first server, it
	// is tried again; 0 means 5 and 30 minutes, negative never
	// (CVMFS_PROXY_RESET_AFTER, CVMFS_HOST_RESET_AFTER).
	ProxyResetAfter time.Duration
	HostResetAfter  time.Duration

	IndefiniteFailover bool // try proxies until the caller gives up (CVMFS_FAILOVER_INDEFINITELY)
	ShardProxies       bool // divide objects among the proxies of a group (CVMFS_PROXY_SHARD)
	FollowRedirects    bool // up to four (CVMFS_FOLLOW_REDIRECTS)

	MaxServers int    // use the first of them only, after ordering; 0 means all (CVMFS_MAX_SERVERS)
	GeoOrder   bool   // ask the servers which of them are near (CVMFS_USE_GEOAPI)
	GeoName    string // who is asked for, instead of the proxy or this client (CVMFS_PROXY_TEMPLATE)

	DNSTimeout        time.Duration // of one question; 0 means 3 s (CVMFS_DNS_TIMEOUT)
	DNSRetries        int           // 0 means 1, negative none (CVMFS_DNS_RETRIES)
	IPv4Only          bool          // (CVMFS_IPV4_ONLY)
	PreferIPv6        bool          // of a proxy that has both (CVMFS_IPFAMILY_PREFER)
	AddressesPerProxy int           // 0 means all (CVMFS_MAX_IPADDR_PER_PROXY)

	// Where scripts that choose proxies are looked for, in order, when the list of
	// proxies has a group auto; "auto" here is http://wpad/wpad.dat (CVMFS_PAC_URLS).
	PACURLs []string
	// EvaluatePAC runs the FindProxyForURL of such a script. It has to bound time
	// and memory: the script comes from the network. Without it, or without
	// PACURLs, auto stands for what the environment has as http_proxy.
	EvaluatePAC func(ctx context.Context, script []byte, url, host string) (string, error)

	SendInfo bool // tell servers which file or catalogue an object is wanted for (CVMFS_SEND_INFO_HEADER)
}

// Link is the way to a set of servers. What is changed counts for the requests
// that are made from then on. It is safe for concurrent use.
type Link struct{ c *transfer.Client }

// Link returns the way to the repository's servers.
func (r *Repository) Link() Link { return Link{r.net} }

// ExternalLink returns the way to the servers of external files. There are none if
// the options name none and SetServers did not, either.
func (r *Repository) ExternalLink() Link { return Link{r.ext} }

// ProbeServers asks each of the repository's servers twice for its manifest and puts
// them in the order of how fast they answer; those that do not come last.
func (r *Repository) ProbeServers(ctx context.Context) error {
	return r.net.ProbeServers(ctx, cvmfs.ManifestFile)
}

// Probe is what is known of how near a server is; the zero value is nothing.
type Probe = transfer.Probe

// Servers returns the base URLs and the index of the one in use.
func (l Link) Servers() (urls []string, active int) { return l.c.Servers() }

// Probes is Servers with what is known of each.
func (l Link) Probes() (urls []string, probes []Probe, active int) { return l.c.Probes() }

// SwitchServer makes the next server the active one, as after a failure.
func (l Link) SwitchServer() { l.c.SwitchServer() }

// SetServers replaces the servers by base URLs (http, https, file) in order of
// preference. On error nothing changes.
func (l Link) SetServers(urls []string) error { return l.c.SetServers(urls) }

// OrderServers asks the servers which of them are near and puts them, and the
// proxies to fall back to, in that order. On error the order stays.
func (l Link) OrderServers(ctx context.Context) error { return l.c.OrderServers(ctx) }

// Proxies returns the groups of proxies, the one in use, and the index of the
// first group of those to fall back to, which is len(groups) if there is none.
func (l Link) Proxies() (groups [][]string, active string, fallback int) { return l.c.Proxies() }

// SetProxies replaces the proxies, by the grammar of Options.Proxies, but for those
// to fall back to. On error, which is ErrNoProxy if the list has none of use,
// nothing changes.
func (l Link) SetProxies(ctx context.Context, list string) error { return l.c.SetProxies(ctx, list) }

// SetFallbackProxies replaces the proxies to fall back to; an empty list leaves
// none. On error nothing changes.
func (l Link) SetFallbackProxies(ctx context.Context, list string) error {
	return l.c.SetFallbackProxies(ctx, list)
}

// RebalanceProxies takes another one of the proxies that share the load, by
// chance, and forgets which of them have failed.
func (l Link) RebalanceProxies() { l.c.RebalanceProxies() }

// SwitchProxyGroup makes the next group of proxies the active one, as after a
// failure of all of the active one.
func (l Link) SwitchProxyGroup() { l.c.SwitchProxyGroup() }

// Timeouts returns how long a server is waited for, through a proxy and without.
func (l Link) Timeouts() (proxied, direct time.Duration) { return l.c.Timeouts() }

// SetTimeouts changes them; both must be longer than zero.
func (l Link) SetTimeouts(proxied, direct time.Duration) { l.c.SetTimeouts(proxied, direct) }

// SetNameservers replaces the name servers asked for the names of servers and
// proxies. The system's own configuration may be out of reach by then.
func (r *Repository) SetNameservers(addresses []string) {
	r.net.SetNameservers(addresses)
	r.ext.SetNameservers(addresses)
}

// Nameservers returns the name servers that were set, if any.
func (r *Repository) Nameservers() []string { return r.net.Nameservers() }

// Masked returns a text with stars for the names and passwords in its URLs.
func Masked(text string) string { return transfer.Masked(text) }

func newTransfer(opt Options, cache *objectcache.Cache, state string) (*transfer.Client, error) {
	return transfer.New(transfer.Config{
		Tuning: transfer.Tuning(opt.Network), Servers: opt.Servers, Proxies: opt.Proxies, Environment: os.Getenv("http_proxy"),
		Timeout: opt.Timeout, Retries: opt.Retries, Backoff: opt.Backoff, Nameservers: opt.Nameservers, UserAgent: opt.UserAgent,
		State: stateIn(cache, state), Log: opt.Log,
		// Not opt.Now: what is waited for is time that passes, whatever the date.
	})
}

// stateIn keeps what the network was found to be like in the cache. That it cannot
// be written is no matter: it is found out again. Compat: the names uuid and proxies
// are the original's.
func stateIn(cache *objectcache.Cache, suffix string) transfer.State {
	file := func(kind string) string {
		if kind == "uuid" {
			return kind
		}
		return kind + suffix
	}
	return transfer.State{
		Load: func(kind string) string {
			data, err := cache.ReadShared(file(kind))
			if err != nil || len(data) > maxSigned {
				return ""
			}
			return string(data)
		},
		Save: func(kind, text string) { _ = cache.WriteShared(file(kind), []byte(text), false) },
	}
}
