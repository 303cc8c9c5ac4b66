package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"
)

// requested lists the options that a lease is asked to carry.
var requested = []dhcpv4.OptionCode{
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName,
	dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionBroadcastAddress, dhcpv4.OptionNTPServers,
	dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionServerIdentifier, dhcpv4.OptionRenewTimeValue,
	dhcpv4.OptionRebindingTimeValue, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionClasslessStaticRoute, msClasslessRoutes,
}

// Lease asks for a lease on one interface until it has one or ctx ends. Requests
// are repeated after 0.5, 1, 2, 4 and 8 seconds, then from the start.
func Lease(ctx context.Context, link Link) (Config, error) {
	mac, err := net.ParseMAC(link.MAC)
	if err != nil {
		return Config{}, fmt.Errorf("asking for a lease on %s: %w", link.Name, err)
	}
	client, err := nclient4.New(link.Name, nclient4.WithTimeout(500*time.Millisecond), nclient4.WithRetry(5))
	if err != nil {
		return Config{}, fmt.Errorf("asking for a lease on %s: %w", link.Name, err)
	}
	defer client.Close() //nolint:errcheck // a socket that is no longer needed
	id := append([]byte{byte(iana.HWTypeEthernet)}, mac...)
	options := []dhcpv4.Modifier{
		dhcpv4.WithRequestedOptions(requested...),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(id)),
	}
	for {
		lease, err := client.Request(ctx, options...)
		if err == nil {
			return FromLease(link.Name, link.MAC, lease.ACK)
		}
		if ctx.Err() != nil {
			return Config{}, fmt.Errorf("no answer from a DHCP server on %s: %w", link.Name, context.Cause(ctx))
		}
		var nak *nclient4.ErrNak
		if !errors.Is(err, nclient4.ErrNoResponse) && !errors.As(err, &nak) {
			return Config{}, fmt.Errorf("asking for a lease on %s: %w", link.Name, err)
		}
	}
}

// Race runs get for every link at once. The first result decides that there is
// a network; the others have grace longer to arrive. Results are in order of
// arrival. The errors of those that failed come back too.
func Race(ctx context.Context, links []Link, grace time.Duration, get func(context.Context, Link) (Config, error)) ([]Config, []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		config Config
		err    error
	}
	results := make(chan result, len(links))
	var wg sync.WaitGroup
	for _, link := range links {
		wg.Go(func() {
			c, err := get(ctx, link)
			results <- result{c, err}
		})
	}
	go func() { wg.Wait(); close(results) }()
	var configs []Config
	var errs []error
	var late <-chan time.Time
	for {
		select {
		case r, open := <-results:
			switch {
			case !open:
				return configs, errs
			case r.err != nil:
				errs = append(errs, r.err)
			default:
				configs = append(configs, r.config)
				if late == nil {
					late = time.After(grace)
				}
			}
		case <-late:
			cancel() // the rest ends with an error and closes the channel
			for r := range results {
				if r.err == nil {
					configs = append(configs, r.config)
				} else {
					errs = append(errs, r.err)
				}
			}
			return configs, errs
		}
	}
}
