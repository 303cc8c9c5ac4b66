package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Marker is the first line of files that Mica writes into the operating
// system, by which it knows its own again.
const Marker = "# Written by Mica at boot."

// ResolvConf returns the resolver configuration for a set of interfaces; the
// servers of the first come first.
func ResolvConf(configs []Config) string {
	var b strings.Builder
	fmt.Fprintln(&b, Marker)
	var search []string
	var servers []netip.Addr
	seenName, seenAddr := map[string]bool{}, map[netip.Addr]bool{}
	for _, c := range configs {
		for _, name := range c.Search {
			if !seenName[name] {
				seenName[name] = true
				search = append(search, name)
			}
		}
		for _, a := range c.DNS {
			if !seenAddr[a] {
				seenAddr[a] = true
				servers = append(servers, a)
			}
		}
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	const most = 3 // MAXNS of the resolver
	for i, a := range servers {
		if i < most {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	return b.String()
}

// Klibc returns the file net-<interface>.conf as klibc's ipconfig leaves it:
// shell assignments, read by cloud-init and by network managers at boot.
func (c Config) Klibc() string {
	var b strings.Builder
	set := func(key, value string) {
		// Nothing that gets here holds a quote: addresses, numbers, checked names.
		fmt.Fprintf(&b, "%s='%s'\n", key, strings.ReplaceAll(value, "'", ""))
	}
	proto := "dhcp"
	if c.Static {
		proto = "none"
	}
	set("DEVICE", c.Interface)
	set("PROTO", proto)
	set("IPV4ADDR", c.Address.Addr().String())
	set("IPV4BROADCAST", c.Broadcast().String())
	set("IPV4NETMASK", c.Netmask())
	set("IPV4GATEWAY", orZero(c.Gateway))
	for i := range 2 {
		dns := netip.Addr{}
		if i < len(c.DNS) {
			dns = c.DNS[i]
		}
		set(fmt.Sprintf("IPV4DNS%d", i), orZero(dns))
	}
	set("HOSTNAME", c.Hostname)
	set("DNSDOMAIN", c.Domain)
	set("ROOTSERVER", orZero(c.Server))
	set("DOMAINSEARCH", strings.Join(c.Search, " "))
	if c.Lease > 0 {
		set("DHCPLEASETIME", fmt.Sprint(int64(c.Lease.Seconds())))
	}
	return b.String()
}

// Networkd returns a systemd-networkd .network file that takes the interface
// over without a moment in which its address is gone: the operating system's
// own files come through it.
func (c Config) Networkd() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s The root file system hangs on this interface.\n", Marker)
	// "PermanentMACAddress" would miss bonded or virtual cards; the interface
	// types that copy their parent's address (VLAN, bridge) are kept out by Type.
	fmt.Fprintf(&b, "[Match]\nMACAddress=%s\nType=ether\n\n[Network]\nKeepConfiguration=yes\nIPv6AcceptRA=yes\n", c.MAC)
	if c.Static {
		fmt.Fprintf(&b, "DHCP=no\nAddress=%s\n", c.Address)
		for _, a := range c.DNS {
			fmt.Fprintf(&b, "DNS=%s\n", a)
		}
		if len(c.Search) > 0 {
			fmt.Fprintf(&b, "Domains=%s\n", strings.Join(c.Search, " "))
		}
	} else {
		fmt.Fprint(&b, "DHCP=ipv4\n")
	}
	if c.MTU > 0 {
		fmt.Fprintf(&b, "\n[Link]\nMTUBytes=%d\n", c.MTU)
	}
	if c.Static {
		if c.Gateway.IsValid() {
			fmt.Fprintf(&b, "\n[Route]\nGateway=%s\n", c.Gateway)
			if c.OnLink() {
				fmt.Fprint(&b, "GatewayOnLink=yes\n")
			}
		}
		for _, r := range c.Routes {
			fmt.Fprintf(&b, "\n[Route]\nDestination=%s\n", r.Destination)
			if r.Via.IsValid() {
				fmt.Fprintf(&b, "Gateway=%s\n", r.Via)
			}
		}
	} else {
		// The same identity as the boot code used, so that the server gives the
		// same address again.
		fmt.Fprint(&b, "\n[DHCPv4]\nClientIdentifier=mac\nUseDomains=yes\nUseMTU=yes\n")
	}
	return b.String()
}

func orZero(a netip.Addr) string {
	if !a.IsValid() {
		return "0.0.0.0"
	}
	return a.String()
}
