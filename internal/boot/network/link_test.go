package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"github.com/micavm/mica/internal/tier"
)

// TestLeaseAndApply gets a lease over a pair of virtual cards from a real DHCP
// server, in a network namespace of its own, and looks at what the kernel has.
func TestLeaseAndApply(t *testing.T) {
	tier.Root(t)
	if os.Getenv("MICA_NETWORK_CHILD") != "1" {
		cmd := exec.Command("unshare", "--net", os.Args[0], "-test.run=^TestLeaseAndApply$", "-test.v")
		cmd.Env = append(os.Environ(), "MICA_NETWORK_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("child: %v\n%s", err, out)
		}
		return
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "guest"}, PeerName: "server"}))
	server, err := netlink.LinkByName("server")
	must(err)
	must(netlink.AddrAdd(server, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, 0, 1), Mask: net.CIDRMask(24, 32)}}))
	must(netlink.LinkSetUp(server))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(Up(ctx, "guest"))

	clientID := make(chan []byte, 8)
	dhcp, err := server4.NewServer("server", nil, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		clientID <- m.Options.Get(dhcpv4.OptionClientIdentifier)
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 77)),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithServerIP(net.IPv4(10, 9, 0, 1)), opt(dhcpv4.OptServerIdentifier(net.IPv4(10, 9, 0, 1))),
			opt(dhcpv4.OptRouter(net.IPv4(10, 9, 0, 1))), opt(dhcpv4.OptDNS(net.IPv4(10, 9, 0, 1))), dhcpv4.WithLeaseTime(600),
			opt(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0xb4})))
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
	})
	must(err)
	go func() { _ = dhcp.Serve() }()
	defer dhcp.Close()

	guest, err := netlink.LinkByName("guest")
	must(err)
	mac := guest.Attrs().HardwareAddr
	c, err := Lease(ctx, Link{"guest", mac.String()})
	must(err)
	if c.Address != netip.MustParsePrefix("10.9.0.77/24") || c.Gateway != netip.MustParseAddr("10.9.0.1") || c.Lease != 10*time.Minute {
		t.Errorf("lease = %+v", c)
	}
	if id := <-clientID; string(id) != "\x01"+string(mac) {
		t.Errorf("client identifier = %x, want 01 and the hardware address, as networkd sends it", id)
	}
	for range 2 { // applying again changes nothing and is no error
		must(Apply(c, 0))
	}
	addrs, err := netlink.AddrList(guest, netlink.FAMILY_V4)
	must(err)
	if len(addrs) != 1 || addrs[0].IPNet.String() != "10.9.0.77/24" {
		t.Errorf("addresses: %v", addrs)
	}
	if guest, err = netlink.LinkByName("guest"); err != nil || guest.Attrs().MTU != 1460 {
		t.Errorf("MTU = %d, %v; want 1460", guest.Attrs().MTU, err)
	}
	routes, err := netlink.RouteGet(net.IPv4(169, 254, 169, 254))
	must(err)
	if len(routes) != 1 || !routes[0].Gw.Equal(net.IPv4(10, 9, 0, 1)) {
		t.Errorf("the metadata address goes %v, want through the router", routes)
	}
	// A lease as Google Compute Engine gives: no router is on the link.
	c.Address, c.Gateway = netip.MustParsePrefix("10.8.0.5/32"), netip.MustParseAddr("10.8.0.1")
	must(Apply(c, 100))
	if routes, err = netlink.RouteGet(net.IPv4(10, 8, 0, 1)); err != nil || len(routes) != 1 || routes[0].Gw != nil {
		t.Errorf("the router of a /32 goes %v, %v; want it on the link", routes, err)
	}
	// Without any router the metadata address is on the link.
	must(netlink.LinkSetDown(guest))
	must(netlink.LinkSetUp(guest))
	must(Up(ctx, "guest"))
	c.Address, c.Gateway = netip.MustParsePrefix("10.9.0.77/24"), netip.Addr{}
	must(Apply(c, 0))
	if routes, err = netlink.RouteGet(net.IPv4(169, 254, 169, 254)); err != nil || len(routes) != 1 || routes[0].Gw != nil {
		t.Errorf("the metadata address goes %v, %v; want it on the link", routes, err)
	}
}
