package plugins

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: rpath/amiconfig/plugins/openvpn.py: the same files.
//
// Differs: each of ca, cert and key may be PEM text in base64, the same compressed
// with zlib, or for ca an address to fetch it from; the original takes exactly one
// of these for each, and CernVM Online wrote another. ns-cert-type and BF-CBC,
// which current OpenVPN refuses, gave way to what replaced them; the client is
// started; resolv.conf keeps its first version.
func openvpn() Plugin {
	return Plugin{
		Name: "openvpn", Does: "connects the machine to a private network",
		Keys: []Key{
			{Name: "server", Kind: Host, Meaning: "server to connect to", Required: true},
			{Name: "port", Kind: Port, Meaning: "its port", Required: true},
			{Name: "ca", Kind: Base64, Meaning: "certificate of the authority, or the address to fetch it from", Required: true},
			{Name: "cert", Kind: Base64, Meaning: "certificate of this machine", Required: true},
			{Name: "key", Kind: Base64, Meaning: "key of this machine", Required: true, Secret: true},
			{Name: "proto", Kind: Text, Meaning: "udp or tcp", Default: "udp"},
			{Name: "nameserver", Kind: Host, Meaning: "address of the network's name server"},
			{Name: "search", Kind: Text, Meaning: "domains to search"},
		},
		Apply: applyOpenVPN,
	}
}

func applyOpenVPN(ctx context.Context, c *Call) error {
	s := c.Section
	if err := s.Missing("server", "port", "ca", "cert", "key"); err != nil {
		return err
	}
	var p problems
	server, proto := s.Get("server", ""), s.Get("proto", "udp")
	p.add(host(server))
	port, err := number(s.Get("port", ""), 1, 65535)
	if err != nil {
		p.addf("port: %w", err)
	}
	switch proto {
	case "udp", "tcp", "udp4", "tcp4", "udp6", "tcp6", "tcp-client":
	default:
		p.addf("proto: %q is neither udp nor tcp", proto)
	}
	nameserver := s.Get("nameserver", "")
	if _, err := netip.ParseAddr(nameserver); nameserver != "" && err != nil {
		p.addf("nameserver: %q is not an address", nameserver)
	}
	search := s.Get("search", "")
	for _, domain := range strings.Fields(search) {
		if !guest.ValidHostname(domain) {
			p.addf("search: %q is not a domain", domain)
		}
	}
	files := map[string][]byte{}
	for _, key := range []string{"ca", "cert", "key"} {
		data, err := certificate(ctx, c, s.Get(key, ""), key == "ca")
		if err != nil {
			p.addf("%s: %w", key, err)
		}
		files[key] = data
	}
	if len(p.errs) > 0 {
		return p.err() // a half configured network is none
	}
	const dir = "/etc/openvpn/amiconfig"
	p.add(c.Root.MkdirAll(dir, guest.Attr{Mode: 0o700}))
	for _, f := range []struct {
		name, key string
		attr      guest.Attr
	}{{"ca.crt", "ca", guest.Attr{Mode: 0o644}}, {"cert.crt", "cert", guest.Attr{Mode: 0o644}}, {"key.key", "key", guest.Attr{Mode: 0o600, Secret: true}}} {
		p.add(c.Root.WriteFile(dir+"/"+f.name, files[f.key], f.attr))
	}
	lines := []string{
		"client", "dev tun", "proto " + proto, "remote " + server + " " + strconv.Itoa(port), "resolv-retry infinite",
		"nobind", "persist-key", "persist-tun", "ca " + dir + "/ca.crt", "cert " + dir + "/cert.crt", "key " + dir + "/key.key",
		"remote-cert-tls server", "comp-lzo", "verb 3",
	}
	p.add(c.Root.WriteFile("/etc/openvpn/amiconfig.conf", guest.Text(lines), guest.Attr{Mode: 0o644}))
	if nameserver != "" {
		var text []string
		if search != "" {
			text = append(text, "search "+search)
		}
		text = append(text, "nameserver "+nameserver)
		p.add(c.Root.WriteFile("/etc/resolv.conf", guest.Text(text), guest.Attr{Mode: 0o644, Backup: true}))
	}
	service := []string{"openvpn@amiconfig", "openvpn"}
	if c.Root.Exists("/etc/openvpn/client") { // where newer packages look
		p.add(c.Root.Symlink("../amiconfig.conf", "/etc/openvpn/client/amiconfig.conf"))
		service = append([]string{"openvpn-client@amiconfig"}, service...)
	}
	p.add(c.Root.Service(ctx, service, guest.Enable, guest.Restart))
	return p.err()
}

// maxInflated bounds what a compressed certificate may unpack to.
const maxInflated = 1 << 20

// certificate reads one of the forms a certificate or key comes in.
func certificate(ctx context.Context, c *Call, value string, fetch bool) ([]byte, error) {
	if strings.HasPrefix(value, "http://") || strings.HasPrefix(value, "https://") {
		if !fetch {
			return nil, errors.New("an address is not accepted here")
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, value, nil)
		if err != nil {
			return nil, errors.New("not an address")
		}
		data, err := c.Root.HTTP(ctx, request)
		if c.Root.Pretend() && errors.Is(err, guest.ErrOffline) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return pem(data)
	}
	data, err := decode(value)
	if err != nil {
		return nil, err
	}
	if z, err := zlib.NewReader(bytes.NewReader(data)); err == nil {
		data, err = io.ReadAll(io.LimitReader(z, maxInflated+1))
		if err != nil {
			return nil, fmt.Errorf("unpacking: %w", err)
		}
		if len(data) > maxInflated {
			return nil, errors.New("unpacks to more than 1 MiB")
		}
	}
	return pem(data)
}

func pem(data []byte) ([]byte, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		return nil, errors.New("not a certificate or key in PEM form")
	}
	return data, nil
}
