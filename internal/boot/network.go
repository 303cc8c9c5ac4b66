package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/boot/network"
	"github.com/micavm/mica/internal/fail"
)

// dhcpBudget is how long a machine waits for a lease in all.
const dhcpBudget = 30 * time.Second

// startNetwork brings the machine onto its network: by the address on the
// command line, by an OpenNebula context on a medium, or else by DHCP on every
// Ethernet interface at once.
func startNetwork(ctx context.Context, s *state, r *report) error {
	s.configs = nil
	if word, ok := s.cmd.Get("ip"); ok && (word == "off" || word == "none") {
		return skipped("switched off by ip=%s", word)
	}
	links, err := waitForLinks(ctx, 3*time.Second)
	if err != nil {
		return err
	}
	s.links = links
	if len(links) == 0 {
		return noNetwork(errors.New(network.Describe(links)))
	}
	static, err := staticConfigs(s, links)
	if err != nil {
		s.rec.note("%v", err)
	}
	if len(static) > 0 {
		return s.useNetwork(ctx, static, r)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.cmd.Seconds("cvm_dhcp_timeout", dhcpBudget), errors.New("time is up"))
	defer cancel()
	configs, errs := network.Race(ctx, links, time.Second, func(ctx context.Context, link network.Link) (network.Config, error) {
		// A card without a cable must not hold up the answer that there is no network.
		carrier, done := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("waited 10 s"))
		defer done()
		if err := network.Up(carrier, link.Name); err != nil {
			return network.Config{}, err
		}
		return network.Lease(ctx, link)
	})
	if len(configs) == 0 {
		return noNetwork(errors.Join(errs...))
	}
	return s.useNetwork(ctx, configs, r)
}

func noNetwork(cause error) error {
	return fail.New(fail.HostLacks, "no network: %w", cause).
		Hint("check that the machine has a network card that is plugged in, and that there is a DHCP server; or give ip= on the kernel command line")
}

// waitForLinks returns the Ethernet interfaces, waiting a little for the first:
// drivers of real hardware take their time.
func waitForLinks(ctx context.Context, patience time.Duration) ([]network.Link, error) {
	deadline := time.Now().Add(patience)
	for {
		links, err := network.Links("/sys")
		if err != nil || len(links) > 0 || time.Now().After(deadline) {
			return links, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// staticConfigs returns the set-up that does not come from DHCP.
func staticConfigs(s *state, links []network.Link) ([]network.Config, error) {
	if word, ok := s.cmd.Get("ip"); ok {
		c, err := network.ParseIP(word)
		if err == nil {
			for _, link := range links {
				if c.Interface == "" || c.Interface == link.Name {
					c.Interface, c.MAC = link.Name, link.MAC
					return []network.Config{c}, nil
				}
			}
			return nil, fmt.Errorf("kernel word ip=%s: no interface %q", word, c.Interface)
		}
		if !errors.Is(err, network.ErrNoAddress) {
			return nil, err
		}
	}
	var configs []network.Config
	for _, i := range s.static {
		for _, link := range links {
			if link.MAC == i.MAC {
				configs = append(configs, network.Config{
					Interface: link.Name, MAC: link.MAC, Static: true,
					Address: i.Address, Gateway: i.Gateway, DNS: i.DNS, Search: i.Search,
				})
			}
		}
	}
	return configs, nil
}

// useNetwork applies configurations, in order of preference, and writes down
// what resolvers and the operating system need.
func (s *state) useNetwork(ctx context.Context, configs []network.Config, r *report) error {
	var errs []error
	for i, c := range configs {
		if c.Static {
			up, done := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("waited 5 s"))
			if err := network.Up(up, c.Interface); err != nil {
				errs = append(errs, err)
			}
			done()
		}
		if err := network.Apply(c, i*100); err != nil {
			errs = append(errs, err)
			continue
		}
		s.configs = append(s.configs, c)
	}
	if len(s.configs) == 0 {
		return noNetwork(errors.Join(errs...))
	}
	resolv := network.ResolvConf(s.configs)
	if err := atomicfile.Write("/etc/resolv.conf", []byte(resolv), 0o644); err != nil {
		errs = append(errs, err)
	}
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		errs = append(errs, err)
	}
	for _, c := range s.configs {
		if err := atomicfile.Write(filepath.Join(runDir, "net-"+c.Interface+".conf"), []byte(c.Klibc()), 0o644); err != nil {
			errs = append(errs, err)
		}
	}
	if err := atomicfile.Write(filepath.Join(runDir, "resolv.conf"), []byte(resolv), 0o644); err != nil {
		errs = append(errs, err)
	}
	first := s.configs[0]
	how := "DHCP"
	if first.Static {
		how = "static network settings"
	}
	r.say("%s on %s (%s)", first.Address, first.Interface, how)
	r.fact("address", first.Address.Addr().String())
	r.fact("interface", first.Interface)
	if err := errors.Join(errs...); err != nil {
		return warned(err)
	}
	return nil
}
