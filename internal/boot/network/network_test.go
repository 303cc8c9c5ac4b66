package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

func ack(t testing.TB, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithYourIP(net.IPv4(10, 1, 2, 3)), dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	// Through the wire, as a lease comes.
	m, err = dhcpv4.FromBytes(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func opt(o dhcpv4.Option) dhcpv4.Modifier { return dhcpv4.WithOption(o) }

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }
func ip(text string) netip.Addr       { return netip.MustParseAddr(text) }

func TestFromLease(t *testing.T) {
	base := Config{Interface: "eth0", MAC: "52:54:00:00:00:01", Address: prefix("10.1.2.3/24")}
	with := func(change func(*Config)) Config { c := base; change(&c); return c }
	mask := dhcpv4.WithNetmask(net.CIDRMask(24, 32))
	router := opt(dhcpv4.OptRouter(net.IPv4(10, 1, 2, 1), net.IPv4(10, 1, 2, 2)))
	route := func(dest string, via net.IP) *dhcpv4.Route {
		_, n, err := net.ParseCIDR(dest)
		if err != nil {
			t.Fatal(err)
		}
		return &dhcpv4.Route{Dest: n, Router: via}
	}
	for _, tc := range []struct {
		name    string
		options []dhcpv4.Modifier
		want    Config
	}{
		{"plain", []dhcpv4.Modifier{mask, router}, with(func(c *Config) { c.Gateway = ip("10.1.2.1") })},
		{"no mask: by class", []dhcpv4.Modifier{}, with(func(c *Config) { c.Address = prefix("10.1.2.3/8") })},
		{"everything", []dhcpv4.Modifier{
			mask, router, opt(dhcpv4.OptDNS(net.IPv4(10, 1, 2, 4), net.IPv4(10, 1, 2, 5))), opt(dhcpv4.OptNTPServers(net.IPv4(10, 1, 2, 6))),
			opt(dhcpv4.OptDomainName("example.org.")), opt(dhcpv4.OptHostName("node1")), opt(dhcpv4.OptServerIdentifier(net.IPv4(10, 1, 2, 7))),
			opt(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{"a.example.org", "example.org"}})), dhcpv4.WithLeaseTime(3600),
			opt(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0xb4})),
		}, with(func(c *Config) {
			c.Gateway, c.Server, c.Lease, c.MTU = ip("10.1.2.1"), ip("10.1.2.7"), time.Hour, 1460
			c.DNS, c.NTP = []netip.Addr{ip("10.1.2.4"), ip("10.1.2.5")}, []netip.Addr{ip("10.1.2.6")}
			c.Domain, c.Search, c.Hostname = "example.org", []string{"example.org", "a.example.org"}, "node1"
		})},
		{"classless routes replace the router (RFC 3442)", []dhcpv4.Modifier{mask, router, opt(dhcpv4.OptClasslessStaticRoute(
			route("0.0.0.0/0", net.IPv4(10, 1, 2, 9)), route("192.168.0.0/16", net.IPv4(10, 1, 2, 8)), route("169.254.0.0/16", net.IPv4zero),
		))}, with(func(c *Config) {
			c.Gateway = ip("10.1.2.9")
			c.Routes = []Route{{prefix("192.168.0.0/16"), ip("10.1.2.8")}, {prefix("169.254.0.0/16"), netip.Addr{}}}
		})},
		{
			"classless routes without a default: none",
			[]dhcpv4.Modifier{mask, router, opt(dhcpv4.OptClasslessStaticRoute(route("192.168.0.0/16", net.IPv4(10, 1, 2, 8))))},
			with(func(c *Config) { c.Routes = []Route{{prefix("192.168.0.0/16"), ip("10.1.2.8")}} }),
		},
		{
			"Microsoft's number for them",
			[]dhcpv4.Modifier{mask, router, opt(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(249), []byte{0, 10, 1, 2, 9}))},
			with(func(c *Config) { c.Gateway = ip("10.1.2.9") }),
		},
		{"hostile names are dropped", []dhcpv4.Modifier{mask, opt(dhcpv4.OptDomainName("x'; reboot; '")), opt(dhcpv4.OptHostName("$(reboot)"))}, base},
		{"a foolish MTU is left out", []dhcpv4.Modifier{mask, opt(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 68}))}, base},
	} {
		got, err := FromLease("eth0", "52:54:00:00:00:01", ack(t, tc.options...))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
	if _, err := FromLease("eth0", "", ack(t, dhcpv4.WithYourIP(net.IPv4zero))); err == nil {
		t.Error("a lease of 0.0.0.0 is taken")
	}
	if _, err := FromLease("eth0", "", ack(t, dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0)))); err == nil {
		t.Error("a mask with holes is taken")
	}
}

func TestHostRouteToTheRouter(t *testing.T) {
	c := Config{Address: prefix("10.128.0.5/32"), Gateway: ip("10.128.0.1")}
	if !c.OnLink() {
		t.Error("a router outside a /32 needs a host route")
	}
	if c.Broadcast() != ip("10.128.0.5") || c.Netmask() != "255.255.255.255" {
		t.Errorf("broadcast %v, mask %v", c.Broadcast(), c.Netmask())
	}
	c = Config{Address: prefix("10.1.2.3/20"), Gateway: ip("10.1.0.1")}
	if c.OnLink() || c.Broadcast() != ip("10.1.15.255") || c.Netmask() != "255.255.240.0" {
		t.Errorf("on link %v, broadcast %v, mask %v", c.OnLink(), c.Broadcast(), c.Netmask())
	}
}

func TestParseIP(t *testing.T) {
	for _, word := range []string{"", "dhcp", "on", "any", "off", "eth0:dhcp", ":::::eth0:dhcp", "10.0.0.2::::::dhcp"} {
		if c, err := ParseIP(word); !errors.Is(err, ErrNoAddress) {
			t.Errorf("ParseIP(%q) = %+v, %v; want ErrNoAddress", word, c, err)
		}
	}
	for _, word := range []string{"10.0.0::", "10.0.0.2::x:24", "10.0.0.2:::255.0.255.0", "10.0.0.2:::33", "fe80::1:::"} {
		if c, err := ParseIP(word); err == nil || errors.Is(err, ErrNoAddress) {
			t.Errorf("ParseIP(%q) = %+v, %v; want an error", word, c, err)
		}
	}
	got, err := ParseIP("192.168.7.2::192.168.7.1:255.255.255.128:node:eth1:none:192.168.7.3:192.168.7.4:192.168.7.5")
	if err != nil {
		t.Fatal(err)
	}
	if got.Address != prefix("192.168.7.2/25") || got.Gateway != ip("192.168.7.1") || got.Interface != "eth1" || got.Hostname != "node" ||
		len(got.DNS) != 2 || len(got.NTP) != 1 || !got.Static {
		t.Errorf("ParseIP = %+v", got)
	}
}

func TestResolvConf(t *testing.T) {
	got := ResolvConf([]Config{
		{DNS: []netip.Addr{ip("10.0.0.1"), ip("10.0.0.2")}, Search: []string{"a.org"}},
		{DNS: []netip.Addr{ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.4")}, Search: []string{"a.org", "b.org"}},
	})
	want := Marker + "\nsearch a.org b.org\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ResolvConf (-want +got):\n%s", diff)
	}
}

func TestKlibc(t *testing.T) {
	c := Config{
		Interface: "eth0", Address: prefix("10.1.2.3/24"), Gateway: ip("10.1.2.1"), DNS: []netip.Addr{ip("10.1.2.4")},
		Domain: "example.org", Search: []string{"example.org", "b.org"}, Hostname: "n", Server: ip("10.1.2.7"), Lease: time.Hour,
	}
	want := `DEVICE='eth0'
PROTO='dhcp'
IPV4ADDR='10.1.2.3'
IPV4BROADCAST='10.1.2.255'
IPV4NETMASK='255.255.255.0'
IPV4GATEWAY='10.1.2.1'
IPV4DNS0='10.1.2.4'
IPV4DNS1='0.0.0.0'
HOSTNAME='n'
DNSDOMAIN='example.org'
ROOTSERVER='10.1.2.7'
DOMAINSEARCH='example.org b.org'
DHCPLEASETIME='3600'
`
	if diff := cmp.Diff(want, c.Klibc()); diff != "" {
		t.Errorf("Klibc (-want +got):\n%s", diff)
	}
}

func TestNetworkd(t *testing.T) {
	lease := Config{Interface: "eth0", MAC: "52:54:00:00:00:01", Address: prefix("10.1.2.3/24"), Gateway: ip("10.1.2.1"), MTU: 1460}
	want := Marker + ` The root file system hangs on this interface.
[Match]
MACAddress=52:54:00:00:00:01
Type=ether

[Network]
KeepConfiguration=yes
IPv6AcceptRA=yes
DHCP=ipv4

[Link]
MTUBytes=1460

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes
UseMTU=yes
`
	if diff := cmp.Diff(want, lease.Networkd()); diff != "" {
		t.Errorf("lease (-want +got):\n%s", diff)
	}
	static := Config{
		Interface: "eth0", MAC: "52:54:00:00:00:01", Address: prefix("10.1.2.3/32"), Gateway: ip("10.1.2.1"), Static: true,
		DNS: []netip.Addr{ip("10.1.2.4")}, Search: []string{"a.org"}, Routes: []Route{{prefix("192.168.0.0/16"), ip("10.1.2.8")}},
	}
	text := static.Networkd()
	for _, line := range []string{"DHCP=no", "Address=10.1.2.3/32", "DNS=10.1.2.4", "Domains=a.org", "Gateway=10.1.2.1", "GatewayOnLink=yes", "Destination=192.168.0.0/16"} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("static file lacks %q:\n%s", line, text)
		}
	}
}

func TestRace(t *testing.T) {
	links := []Link{{Name: "fast"}, {Name: "late"}, {Name: "never"}, {Name: "broken"}}
	began := time.Now()
	configs, errs := Race(t.Context(), links, 300*time.Millisecond, func(ctx context.Context, l Link) (Config, error) {
		switch l.Name {
		case "fast":
			return Config{Interface: l.Name}, nil
		case "late":
			time.Sleep(20 * time.Millisecond)
			return Config{Interface: l.Name}, nil
		case "broken":
			return Config{}, errors.New("broken")
		}
		<-ctx.Done()
		return Config{}, ctx.Err()
	})
	if len(configs) != 2 || configs[0].Interface != "fast" || len(errs) != 2 {
		t.Errorf("Race = %+v, %v; want fast and late, and two errors", configs, errs)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Race took %v", took)
	}
	configs, errs = Race(t.Context(), nil, time.Second, nil)
	if len(configs) != 0 || len(errs) != 0 {
		t.Errorf("Race of no links = %v, %v", configs, errs)
	}
}

func FuzzFromLease(f *testing.F) {
	f.Add(ack(f, dhcpv4.WithNetmask(net.CIDRMask(24, 32)), opt(dhcpv4.OptHostName("x"))).ToBytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		c, err := FromLease("eth0", "52:54:00:00:00:01", m)
		if err != nil {
			return
		}
		for _, line := range strings.Split(strings.TrimSuffix(c.Klibc(), "\n"), "\n") {
			if strings.Count(line, "'") != 2 || !strings.HasSuffix(line, "'") {
				t.Errorf("the klibc file has the line %q", line)
			}
		}
		if strings.ContainsAny(c.Domain+c.Hostname+strings.Join(c.Search, ""), " \n'\"$`") {
			t.Errorf("names %q %q %q reach files", c.Domain, c.Hostname, c.Search)
		}
	})
}

func FuzzParseIP(f *testing.F) {
	f.Add("10.0.0.2::10.0.0.1:255.255.255.0:h:eth0:none:10.0.0.3")
	f.Fuzz(func(t *testing.T, word string) {
		if c, err := ParseIP(word); err == nil && !c.Address.IsValid() {
			t.Errorf("ParseIP(%q) has no address", word)
		}
	})
}
