package plugins

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/elastiq-setup.py: SECTION_KEY=V sets
// KEY of [SECTION] in /etc/elastiq.conf, which must be there. Differs: only keys
// of sections that elastiq has, so that a neighbour's lines do not end up there.
func elastiqSetup() Plugin {
	return Plugin{
		Name: "elastiq-setup", Does: "grows and shrinks a cluster with its queue",
		Keys: []Key{
			{Name: "elastiq_*", Kind: Text, Meaning: "an option of elastiq's section [elastiq]"},
			{Name: "ec2_*", Kind: Text, Meaning: "an option of elastiq's section [ec2], such as ec2_api_url", Secret: true},
			{Name: "quota_*", Kind: Text, Meaning: "an option of elastiq's section [quota], min_vms and max_vms"},
			{Name: "debug_*", Kind: Text, Meaning: "an option of elastiq's section [debug]"},
			{Name: "htcondor_*", Kind: Text, Meaning: "an option of elastiq's section [htcondor]"},
			{Name: "cacerts_b64", Kind: Base64, Meaning: "authorities of the cloud's service"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			const file = "/etc/elastiq.conf"
			data, err := c.Root.ReadFile(file)
			if err != nil {
				return fmt.Errorf("no elastiq to configure: %w", err)
			}
			var p problems
			lines := guest.Lines(data)
			for _, o := range c.Section.Options {
				section, key, ok := strings.Cut(o.Key, "_")
				if o.Key == "cacerts_b64" {
					continue
				}
				switch section {
				case "elastiq", "ec2", "quota", "debug", "htcondor":
				default:
					ok = false
				}
				if !ok || key == "" {
					c.Warn("%s is no option of elastiq", o.Key)
					continue
				}
				if p.add(oneLine(o.Key, o.Value)) {
					lines = setInSection(lines, section, key, o.Value)
				}
			}
			if scalable, err := c.Root.ReadFile("/var/lib/amiconfig/scalable.user-data"); err == nil {
				lines = setInSection(lines, "ec2", "user_data_b64", base64.StdEncoding.EncodeToString(scalable))
			}
			attr := guest.Attr{Mode: 0o660, Secret: true}
			if acc, ok, err := c.Root.Account("elastiq"); err == nil && ok {
				attr = attr.Owner(acc.UID, acc.GID)
			}
			p.add(c.Root.WriteFile(file, guest.Text(lines), attr))
			if v := c.Section.Get("cacerts_b64", ""); v != "" {
				certs, err := decode(v)
				if err == nil {
					certs, err = pem(certs)
				}
				if err != nil {
					p.addf("cacerts_b64: %w", err)
				} else {
					p.add(c.Root.WriteFile("/etc/boto_cacerts.txt", certs, guest.Attr{Mode: 0o644}))
					p.add(c.Root.Edit("/etc/boto.cfg", guest.Attr{Mode: 0o644}, func(lines []string) []string {
						return setInSection(lines, "Boto", "ca_certificates_file", "/etc/boto_cacerts.txt")
					}))
				}
			}
			p.add(c.Root.Service(ctx, []string{"elastiq"}, guest.Enable, guest.Restart))
			return p.err()
		},
	}
}

// setInSection sets "key = value" in a section of an INI file, which it adds if
// need be.
func setInSection(lines []string, section, key, value string) []string {
	entry := key + " = " + value
	at, in := -1, false
	for i, l := range lines {
		t := strings.TrimSpace(l)
		if strings.HasPrefix(t, "[") {
			in = strings.EqualFold(t, "["+section+"]")
			if in {
				at = i + 1
			}
			continue
		}
		if !in {
			continue
		}
		if name, _, ok := strings.Cut(t, "="); ok && strings.EqualFold(strings.TrimSpace(name), key) {
			out := append(lines[:i:i], entry)
			return append(out, lines[i+1:]...)
		}
		if t != "" {
			at = i + 1
		}
	}
	if at < 0 {
		return append(lines, "["+section+"]", entry)
	}
	out := append(lines[:at:at], entry)
	return append(out, lines[at:]...)
}
