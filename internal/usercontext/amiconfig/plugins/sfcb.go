package plugins

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

var certHash = regexp.MustCompile(`^[0-9a-fA-F]{8}(\.0)?$`)

// Compat: amiconfig: rpath/amiconfig/plugins/sfcb-client-setup.py. Differs: base64
// that does not decode is reported.
func sfcbClientSetup() Plugin {
	return Plugin{
		Name: "sfcb-client-setup", Does: "lets a management client in to the CIM broker",
		Keys: []Key{
			{Name: "boot-uuid", Kind: Text, Meaning: "id the management system knows this boot by"},
			{Name: "x509-cert-hash", Kind: Text, Meaning: "subject hash of the client's certificate"},
			{Name: "x509-cert(base64)", Kind: Base64, Meaning: "certificate of the client"},
		},
		Apply: func(_ context.Context, c *Call) error {
			var p problems
			if v := c.Section.Get("boot-uuid", ""); v != "" && p.add(oneLine("boot-uuid", v)) {
				p.add(c.Root.WriteFile("/etc/conary/rpath-tools/boot-uuid", []byte(v+"\n"), guest.Attr{Mode: 0o644}))
			}
			hash, cert := c.Section.Get("x509-cert-hash", ""), c.Section.Get("x509-cert(base64)", "")
			if hash == "" && cert == "" {
				return p.err()
			}
			dir := ""
			for _, d := range []string{"/etc/conary/sfcb", "/etc/sfcb"} {
				if c.Root.Exists(d + "/sfcb.cfg") {
					dir = d
					break
				}
			}
			data, err := decode(cert)
			switch {
			case hash == "" || cert == "":
				p.add(errors.New("x509-cert-hash and x509-cert(base64) need one another"))
			case !certHash.MatchString(hash):
				p.addf("x509-cert-hash: %q is not a subject hash", hash)
			case err != nil:
				p.addf("x509-cert(base64): %w", err)
			case dir == "":
				p.add(errors.New("this operating system has no sfcb"))
			default:
				name := dir + "/clients/" + strings.TrimSuffix(hash, ".0") + ".0"
				p.add(c.Root.WriteFile(name, data, guest.Attr{Mode: 0o644}))
			}
			return p.err()
		},
	}
}
