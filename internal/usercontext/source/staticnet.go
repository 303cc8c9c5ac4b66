package source

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Interface is the static set-up of one network interface.
type Interface struct {
	MAC      string
	Address  netip.Prefix
	Gateway  netip.Addr   // not valid if this interface has none
	Address6 netip.Prefix // not valid if there is none
	Gateway6 netip.Addr
	DNS      []netip.Addr
	Search   []string
}

// StaticNetwork reads the ETHn_ variables of the first medium with a context.sh,
// which have to be known before there is a network. An empty list means DHCP.
//
// Compat: cernvm-micro: packages.d/one_network, with its defaults: the address is
// in the last four bytes of the hardware address, the mask is 255.255.255.0, and
// eth0 has a gateway that ends in 1.
func StaticNetwork(ctx context.Context, env Env) ([]Interface, error) {
	for _, m := range newSearch(env).readMedia(ctx) {
		if script, ok := m.files["context.sh"]; ok {
			return staticNetwork(readAssignments(script))
		}
	}
	return nil, ctx.Err()
}

func staticNetwork(vars assignments) ([]Interface, error) {
	numbers := map[int]bool{}
	for name := range vars {
		rest, ok := strings.CutPrefix(name, "ETH")
		digits, _, found := strings.Cut(rest, "_")
		if n, err := strconv.ParseUint(digits, 10, 8); ok && found && err == nil {
			numbers[int(n)] = true
		}
	}
	var list []Interface
	for _, n := range slices.Sorted(maps.Keys(numbers)) {
		i, ok, err := staticInterface(vars, n)
		if err != nil {
			return nil, fmt.Errorf("context.sh: %w", err)
		}
		if ok {
			list = append(list, i)
		}
	}
	return list, nil
}

func staticInterface(vars assignments, n int) (Interface, bool, error) {
	get := func(names ...string) string {
		for _, name := range names {
			if v := strings.TrimSpace(vars[fmt.Sprintf("ETH%d_%s", n, name)]); v != "" {
				return v
			}
		}
		return ""
	}
	mac, err := net.ParseMAC(get("MAC"))
	if err != nil || len(mac) != 6 {
		return Interface{}, false, nil // matched by hardware address, or not at all
	}
	i := Interface{MAC: mac.String()}
	ip := netip.AddrFrom4([4]byte(mac[2:6]))
	if text := get("IP"); text != "" {
		if ip, err = netip.ParseAddr(text); err != nil || !ip.Is4() {
			return i, false, fmt.Errorf("ETH%d_IP is %q, not an IPv4 address", n, text)
		}
	}
	bits := 24
	if text := get("MASK"); text != "" {
		mask, err := netip.ParseAddr(text)
		if err != nil || !mask.Is4() {
			return i, false, fmt.Errorf("ETH%d_MASK is %q, not a network mask", n, text)
		}
		m := mask.As4()
		ones, size := net.IPMask(m[:]).Size()
		if size == 0 {
			return i, false, fmt.Errorf("ETH%d_MASK is %q, not a network mask", n, text)
		}
		bits = ones
	}
	i.Address = netip.PrefixFrom(ip, bits)
	if only := vars["GATEWAY_IFACE"]; only == "" || only == fmt.Sprintf("eth%d", n) || only == strconv.Itoa(n) {
		if i.Gateway, err = gateway(get("GATEWAY"), i.Address, n); err != nil {
			return i, false, err
		}
	}
	if text := get("IPV6", "IP6"); text != "" && get("CONTEXT_FORCE_IPV4") == "" {
		if i.Address6, err = prefix6(text, get("IP6_PREFIX_LENGTH")); err != nil {
			return i, false, fmt.Errorf("ETH%d_IP6 is %q, not an IPv6 address", n, text)
		}
		if text := get("GATEWAY6", "IP6_GATEWAY"); text != "" {
			if i.Gateway6, err = netip.ParseAddr(text); err != nil {
				return i, false, fmt.Errorf("ETH%d_GATEWAY6 is %q, not an address", n, text)
			}
		}
	}
	for _, word := range strings.Fields(strings.ReplaceAll(get("DNS")+" "+vars["DNS"], ",", " ")) {
		if a, err := netip.ParseAddr(word); err == nil && !slices.Contains(i.DNS, a) {
			i.DNS = append(i.DNS, a)
		}
	}
	for _, word := range strings.Fields(get("SEARCH_DOMAIN") + " " + vars["SEARCH_DOMAIN"]) {
		if hostname(word) != "" && !slices.Contains(i.Search, word) {
			i.Search = append(i.Search, word)
		}
	}
	return i, true, nil
}

func gateway(text string, address netip.Prefix, n int) (netip.Addr, error) {
	if text == "" && n == 0 {
		first := address.Addr().As4()
		first[3] = 1
		return netip.AddrFrom4(first), nil
	}
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("ETH%d_GATEWAY is %q, not an IPv4 address", n, text)
	}
	return a, nil
}

func prefix6(text, length string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	bits := 64
	if n, err := strconv.ParseUint(length, 10, 8); err == nil && n <= 128 {
		bits = int(n)
	}
	return netip.PrefixFrom(a, bits), nil
}
