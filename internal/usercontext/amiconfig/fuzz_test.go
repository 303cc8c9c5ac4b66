package amiconfig

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

// Any context, applied to any plugin, leaves account files that can be read and a
// report without a fault of the program in it.
func FuzzApply(f *testing.F) {
	f.Add("[cernvm]\nusers=a:b:c,d:d:\nenvironment=A=1\n", "i-1", testKey)
	f.Add("[amiconfig]\nplugins=squid condor openvpn storage nss yp\n[squid]\nbackends=a,b\n[condor]\ncondor_secret=x\n", "", "")
	f.Add("[amiconfig]\nplugins=vaf-setup elastiq-setup dnsupdate noip hepix\n[vaf-setup]\nauth_method=pool_users\nnum_pool_accounts=3\n[dnsupdate]\ntsighost=k\ntsigkey=a2V5\nhost=h\ndomain=d.e\nserver=s\n", "x", "key")
	f.Add("#!/bin/sh.before\nexit\n[cernvm]\ndesktop_icons=../../x,QQ==%a/b,QQ==\nextra_repositories=../../etc/passwd|h|QQ==\n", "", "")
	f.Fuzz(func(t *testing.T, text, instance, key string) {
		dir := t.TempDir()
		for name, data := range bareSystem {
			file := dir + "/" + name
			if err := os.MkdirAll(file[:strings.LastIndex(file, "/")], 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		root, err := guest.Open(guest.Options{Dir: dir, Pretend: true, Volatile: true, Rand: rand.NewChaCha8([32]byte{}), Now: func() time.Time { return time.Unix(0, 0) }})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		var all []string
		for _, p := range plugins.Table() {
			all = append(all, p.Name)
		}
		in := Input{UserData: []byte(text), InstanceID: instance, PublicKeys: []string{key}, Hostname: instance}
		for _, o := range []Options{{Force: true}, {Only: all}} {
			rep, err := Apply(t.Context(), root, in, o)
			if err != nil {
				t.Fatal(err)
			}
			if !json.Valid(rep.JSON()) {
				t.Errorf("report %q is no JSON", rep.JSON())
			}
			for _, p := range rep.Plugins {
				if strings.Contains(p.Message, "a fault of this program") {
					t.Errorf("plugin %s: %s", p.Name, p.Message)
				}
			}
		}
		for file, width := range map[string]int{"passwd": 7, "group": 4, "shadow": 9} {
			data, err := root.ReadFile("/etc/" + file)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range guest.Lines(data) {
				if n := strings.Count(line, ":") + 1; n != width {
					t.Errorf("%s has line %q of %d fields, want %d", file, line, n, width)
				}
			}
		}
	})
}
