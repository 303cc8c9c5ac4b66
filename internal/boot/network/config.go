package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Config is the IPv4 set-up of one interface.
type Config struct {
	Interface string
	MAC       string       // lower case, with colons
	Address   netip.Prefix // own address with the length of the network
	Gateway   netip.Addr   // default router; not valid when there is none
	Routes    []Route      // besides the default route
	DNS       []netip.Addr
	Search    []string // domains to search, the own one first
	Domain    string
	Hostname  string
	NTP       []netip.Addr
	MTU       int        // 0 leaves the interface as it is
	Server    netip.Addr // the DHCP server; not valid for a static set-up
	Lease     time.Duration
	Static    bool // not from DHCP
}

// Route is one network reached through a router; with no router it is on the
// link itself.
type Route struct {
	Destination netip.Prefix
	Via         netip.Addr
}

// Bounds on what a lease may carry. A reply is at most 1500 bytes, so these
// only keep what we write down readable.
const (
	mostRoutes  = 64
	mostServers = 6
)

// msClasslessRoutes is option 249, the number that Microsoft servers use for
// option 121.
var msClasslessRoutes = dhcpv4.GenericOptionCode(249)

// FromLease turns a DHCP acknowledgement into a Config.
func FromLease(ifname, mac string, ack *dhcpv4.DHCPv4) (Config, error) {
	c := Config{Interface: ifname, MAC: strings.ToLower(mac)}
	own, ok := addr(ack.YourIPAddr)
	if !ok || own.IsUnspecified() || own.IsMulticast() {
		return Config{}, fmt.Errorf("lease on %s: no usable address (%v)", ifname, ack.YourIPAddr)
	}
	bits := classBits(own)
	if mask := ack.SubnetMask(); mask != nil {
		ones, size := mask.Size()
		if size != 32 {
			return Config{}, fmt.Errorf("lease on %s: subnet mask %v is not contiguous", ifname, mask)
		}
		bits = ones
	}
	c.Address = netip.PrefixFrom(own, bits)
	c.Server, _ = addr(ack.ServerIdentifier())
	c.Lease = ack.IPAddressLeaseTime(0)
	c.DNS = addrs(ack.DNS())
	c.NTP = addrs(ack.NTPServers())
	if mtu := mtuOf(ack); mtu >= 576 {
		c.MTU = mtu
	}
	if name := ack.HostName(); ValidName(name) {
		c.Hostname = name
	}
	if name := strings.TrimSuffix(ack.DomainName(), "."); ValidName(name) {
		c.Domain = name
		c.Search = append(c.Search, name)
	}
	if labels := ack.DomainSearch(); labels != nil {
		for _, name := range labels.Labels {
			if name = strings.TrimSuffix(name, "."); ValidName(name) && !slices.Contains(c.Search, name) && len(c.Search) < mostServers {
				c.Search = append(c.Search, name)
			}
		}
	}
	routers := addrs(ack.Router())
	routes := ack.ClasslessStaticRoute()
	if len(routes) == 0 {
		var ms dhcpv4.Routes
		if data := ack.Options.Get(msClasslessRoutes); data != nil && ms.FromBytes(data) == nil {
			routes = ms
		}
	}
	c.takeRoutes(routers, routes)
	return c, nil
}

// takeRoutes applies RFC 3442: if classless routes are given, the router option
// does not count.
//
// Differs: cernvm-micro's udhcpc script uses the router option besides option 121.
func (c *Config) takeRoutes(routers []netip.Addr, routes dhcpv4.Routes) {
	if len(routes) == 0 {
		if len(routers) > 0 {
			c.Gateway = routers[0]
		}
		return
	}
	for _, r := range routes {
		if r.Dest == nil || len(c.Routes) >= mostRoutes {
			continue
		}
		ones, size := r.Dest.Mask.Size()
		dest, ok := addr(r.Dest.IP)
		if !ok || size != 32 {
			continue
		}
		via, hasVia := addr(r.Router)
		if hasVia && via.IsUnspecified() {
			via = netip.Addr{}
		}
		prefix := netip.PrefixFrom(dest, ones).Masked()
		if prefix.Bits() == 0 && via.IsValid() {
			if !c.Gateway.IsValid() {
				c.Gateway = via
			}
			continue
		}
		c.Routes = append(c.Routes, Route{prefix, via})
	}
}

// OnLink reports whether the gateway must first be made reachable by a host
// route: Google Compute Engine leases a /32, so that no router is on the link.
func (c Config) OnLink() bool {
	return c.Gateway.IsValid() && !c.Address.Masked().Contains(c.Gateway)
}

// Broadcast returns the broadcast address of the network.
func (c Config) Broadcast() netip.Addr {
	if !c.Address.IsValid() || c.Address.Bits() >= 31 {
		return c.Address.Addr()
	}
	a := c.Address.Masked().Addr().As4()
	host := uint32(1)<<(32-c.Address.Bits()) - 1
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|host)
	return netip.AddrFrom4(a)
}

// Netmask returns the mask of the network in dotted form.
func (c Config) Netmask() string {
	return net.IP(net.CIDRMask(c.Address.Bits(), 32)).String()
}

// ValidName reports whether a name from the network is a plain host or domain
// name, and so safe in resolv.conf and in files that a shell reads.
func ValidName(name string) bool {
	if name == "" || len(name) > 253 || name[0] == '-' || name[0] == '.' {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

// ErrNoAddress says that a static set-up leaves the address to DHCP.
var ErrNoAddress = errors.New("no static address")

// ParseIP reads the kernel word
//
//	ip=<client>:<server>:<gateway>:<netmask>:<hostname>:<device>:<autoconf>:<dns0>:<dns1>:<ntp0>
//
// and the short forms ip=dhcp, ip=off, and dracut's ip=<device>:dhcp. The
// netmask may be a length. A word that wants DHCP, or nothing, gives ErrNoAddress.
func ParseIP(word string) (Config, error) {
	f := strings.Split(word, ":")
	if len(f) < 3 || f[0] == "" {
		return Config{}, ErrNoAddress
	}
	field := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	switch field(6) {
	case "", "none", "off", "static":
	default:
		return Config{}, ErrNoAddress
	}
	own, err := parse4(f[0])
	if err != nil {
		return Config{}, fmt.Errorf("kernel word ip=%s: %w", word, err)
	}
	c := Config{Static: true, Interface: field(5)}
	bits := classBits(own)
	if mask := field(3); mask != "" {
		if bits, err = maskBits(mask); err != nil {
			return Config{}, fmt.Errorf("kernel word ip=%s: %w", word, err)
		}
	}
	c.Address = netip.PrefixFrom(own, bits)
	if gw := field(2); gw != "" {
		if c.Gateway, err = parse4(gw); err != nil {
			return Config{}, fmt.Errorf("kernel word ip=%s: %w", word, err)
		}
	}
	if name := field(4); ValidName(name) {
		c.Hostname = name
	}
	for _, text := range []string{field(7), field(8)} {
		if a, err := parse4(text); err == nil && !a.IsUnspecified() {
			c.DNS = append(c.DNS, a)
		}
	}
	if a, err := parse4(field(9)); err == nil && !a.IsUnspecified() {
		c.NTP = append(c.NTP, a)
	}
	return c, nil
}

func parse4(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 address", text)
	}
	return a, nil
}

// maskBits reads a netmask as 255.255.255.0 or as 24.
func maskBits(text string) (int, error) {
	if a, err := parse4(text); err == nil {
		b := a.As4()
		if ones, size := net.IPMask(b[:]).Size(); size == 32 {
			return ones, nil
		}
	}
	var n int
	if _, err := fmt.Sscanf(text, "%d", &n); err == nil && n >= 0 && n <= 32 && fmt.Sprint(n) == text {
		return n, nil
	}
	return 0, fmt.Errorf("%q is not a netmask", text)
}

// classBits is the network length of an address without a mask, by its class.
func classBits(a netip.Addr) int {
	switch first := a.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	}
	return 24
}

func addr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	return a, ok
}

func addrs(ips []net.IP) []netip.Addr {
	var list []netip.Addr
	for _, ip := range ips {
		if a, ok := addr(ip); ok && !a.IsUnspecified() && len(list) < mostServers {
			list = append(list, a)
		}
	}
	return list
}

func mtuOf(ack *dhcpv4.DHCPv4) int {
	data := ack.Options.Get(dhcpv4.OptionInterfaceMTU)
	if len(data) != 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(data))
}
