package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is one Ethernet interface of this machine.
type Link struct {
	Name string
	MAC  string
}

// Links sets the loopback interface up and returns the Ethernet interfaces that
// belong to a device (no bridges, tunnels or VLANs), ordered as the kernel
// numbered them.
func Links(sys string) ([]Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing network interfaces: %w", err)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Attrs().Index < all[j].Attrs().Index })
	var links []Link
	for _, l := range all {
		attrs := l.Attrs()
		if attrs.Flags&net.FlagLoopback != 0 {
			if err := netlink.LinkSetUp(l); err != nil {
				return nil, fmt.Errorf("setting %s up: %w", attrs.Name, err)
			}
			continue
		}
		if attrs.EncapType != "ether" || len(attrs.HardwareAddr) != 6 {
			continue
		}
		if _, err := os.Stat(filepath.Join(sys, "class/net", attrs.Name, "device")); err != nil {
			continue
		}
		links = append(links, Link{attrs.Name, attrs.HardwareAddr.String()})
	}
	return links, nil
}

// Up sets an interface up and waits until it has a carrier or ctx ends.
func Up(ctx context.Context, name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding interface %s: %w", name, err)
		}
		// Drivers that cannot tell say "unknown": those must be tried.
		if state := l.Attrs().OperState; state == netlink.OperUp || state == netlink.OperUnknown {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interface %s has no carrier: %w", name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Apply gives an interface its address and routes. The first interface (metric
// 0) gets the preferred default route. Applying the same Config again changes
// nothing.
func Apply(c Config, metric int) error {
	l, err := netlink.LinkByName(c.Interface)
	if err != nil {
		return fmt.Errorf("finding interface %s: %w", c.Interface, err)
	}
	if c.MTU > 0 && c.MTU != l.Attrs().MTU {
		if err := netlink.LinkSetMTU(l, c.MTU); err != nil {
			return fmt.Errorf("setting MTU %d on %s: %w", c.MTU, c.Interface, err)
		}
	}
	own := &netlink.Addr{IPNet: ipnet(c.Address), Broadcast: net.IP(c.Broadcast().AsSlice())}
	if c.Address.Bits() >= 31 {
		own.Broadcast = nil
	}
	if err := netlink.AddrReplace(l, own); err != nil {
		return fmt.Errorf("giving %s the address %s: %w", c.Interface, c.Address, err)
	}
	index := l.Attrs().Index
	var errs []error
	route := func(dst netip.Prefix, via netip.Addr) {
		r := &netlink.Route{LinkIndex: index, Dst: ipnet(dst), Priority: metric, Src: net.IP(c.Address.Addr().AsSlice())}
		if via.IsValid() {
			r.Gw = via.AsSlice()
			if !c.Address.Masked().Contains(via) {
				r.Flags = int(netlink.FLAG_ONLINK)
			}
		} else {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(r); err != nil {
			errs = append(errs, fmt.Errorf("adding the route to %s on %s: %w", dst, c.Interface, err))
		}
	}
	if c.OnLink() {
		route(netip.PrefixFrom(c.Gateway, 32), netip.Addr{})
	}
	if c.Gateway.IsValid() {
		route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), c.Gateway)
	}
	for _, r := range c.Routes {
		route(r.Destination, r.Via)
	}
	// The metadata services of clouds live in 169.254/16; where no router knows
	// the way, they are on the link.
	linkLocal := netip.MustParsePrefix("169.254.0.0/16")
	if metric == 0 && !c.Gateway.IsValid() && !slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Destination.Overlaps(linkLocal) }) {
		route(linkLocal, netip.Addr{})
	}
	return errors.Join(errs...)
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Describe returns the interfaces' state in one line, for a boot that found no
// network.
func Describe(links []Link) string {
	if len(links) == 0 {
		return "no Ethernet interface; the driver of the card may be missing from the image"
	}
	var parts []string
	for _, link := range links {
		state := "gone"
		if l, err := netlink.LinkByName(link.Name); err == nil {
			state = l.Attrs().OperState.String()
			if l.Attrs().RawFlags&unix.IFF_UP == 0 {
				state = "down"
			}
		}
		parts = append(parts, fmt.Sprintf("%s (%s, %s)", link.Name, link.MAC, state))
	}
	return strings.Join(parts, ", ")
}
