package transfer

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	dnsFresh   = time.Minute     // how long an answer is taken without asking again
	dnsTimeout = 3 * time.Second // CVMFS_DNS_TIMEOUT
	dnsRetries = 1               // CVMFS_DNS_RETRIES
	maxNames   = 256             // names remembered; a client talks to a handful
)

// dialer connects by name and remembers addresses. A machine whose root file
// system comes from the network must be able to reach its servers when the name
// service is away, so that an old answer is better than none.
type dialer struct {
	net      net.Dialer
	resolver net.Resolver
	now      func() time.Time
	timeout  time.Duration // of one question
	retries  int
	ipv4Only bool

	mu          sync.Mutex // guards the following
	nameservers []string   // host:port; empty means those of the system
	names       map[string]answer
	next        int
}

type answer struct {
	addresses []string
	at        time.Time
}

func newDialer(cfg Config) *dialer {
	d := &dialer{now: cfg.Now, timeout: cfg.DNSTimeout, retries: cfg.DNSRetries, ipv4Only: cfg.IPv4Only, names: map[string]answer{}}
	if d.timeout == 0 {
		d.timeout = dnsTimeout
	}
	if d.retries == 0 {
		d.retries = dnsRetries
	}
	d.net.KeepAlive = 30 * time.Second
	d.resolver = net.Resolver{PreferGo: true, Dial: d.dialNameserver}
	d.setNameservers(cfg.Nameservers)
	return d
}

func (d *dialer) setNameservers(servers []string) {
	list := make([]string, 0, len(servers))
	for _, s := range servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(s, "53")
		}
		list = append(list, s)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nameservers = list
	clear(d.names)
}

// dialNameserver connects the resolver: to the servers that were set, in turn,
// and otherwise to the one the resolver read from the system's configuration.
func (d *dialer) dialNameserver(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	if n := len(d.nameservers); n > 0 {
		address = d.nameservers[d.next%n]
		d.next++
	}
	d.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func (d *dialer) dial(ctx context.Context, network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses, err := d.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	for i, a := range addresses {
		// What time is left is shared among the addresses still to be tried.
		attempt := ctx
		if deadline, ok := ctx.Deadline(); ok && i < len(addresses)-1 {
			share := time.Until(deadline) / time.Duration(len(addresses)-i)
			c, stop := context.WithTimeout(ctx, share)
			defer stop()
			attempt = c
		}
		conn, dialErr := d.net.DialContext(attempt, network, net.JoinHostPort(a, port))
		if dialErr == nil {
			return conn, nil
		}
		err = dialErr
	}
	return nil, err
}

func (d *dialer) lookup(ctx context.Context, host string) ([]string, error) {
	if net.ParseIP(host) != nil {
		return []string{host}, nil
	}
	d.mu.Lock()
	old, known := d.names[host]
	d.mu.Unlock()
	if known && d.now().Sub(old.at).Abs() < dnsFresh {
		return old.addresses, nil
	}
	found, err := d.ask(ctx, host)
	switch {
	case err == nil && len(found) > 0:
	case known:
		return old.addresses, nil
	case err == nil:
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	default:
		var dns *net.DNSError
		if !errors.As(err, &dns) {
			err = &net.DNSError{Err: err.Error(), Name: host, UnwrapErr: err}
		}
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.names) >= maxNames {
		clear(d.names)
	}
	d.names[host] = answer{addresses: found, at: d.now()}
	return found, nil
}

// ask asks the name service, and again if it does not answer in time.
func (d *dialer) ask(ctx context.Context, host string) (found []string, err error) {
	for attempt := 0; ; attempt++ {
		c, cancel := context.WithTimeout(ctx, d.timeout)
		found, err = d.resolver.LookupHost(c, host)
		cancel()
		var dns *net.DNSError
		if err == nil || attempt >= d.retries || ctx.Err() != nil || errors.As(err, &dns) && dns.IsNotFound {
			break
		}
	}
	if d.ipv4Only {
		found = slices.DeleteFunc(found, func(a string) bool { return strings.Contains(a, ":") })
	}
	return found, err
}
