package plugins

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: rpath/amiconfig/plugins/noip.py; a name made of prefix,
// launch index and domain as there. Differs: the answer is looked at.
func noip() Plugin {
	return Plugin{
		Name: "noip", Does: "registers the machine's address with no-ip.com",
		Keys: []Key{
			{Name: "username", Kind: Text, Meaning: "account", Required: true},
			{Name: "password", Kind: Text, Meaning: "its password", Required: true, Secret: true},
			{Name: "hostname", Kind: Host, Meaning: "name to register"},
			{Name: "prefix", Kind: Text, Meaning: "start of the name, the machine's number follows"},
			{Name: "domain", Kind: Host, Meaning: "domain of a name made from prefix"},
			{Name: "start", Kind: Integer, Meaning: "number of the first machine"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			s := c.Section
			if err := s.Missing("username", "password"); err != nil {
				return err
			}
			name := s.Get("hostname", "")
			if name == "" {
				if err := s.Missing("prefix", "domain", "start"); err != nil {
					return err
				}
				start, err := number(s.Get("start", ""), 0, 1<<30)
				if err != nil {
					return fmt.Errorf("start: %w", err)
				}
				name = fmt.Sprintf("%s%02d.%s", s.Get("prefix", ""), start+launchIndex(c.Root), s.Get("domain", ""))
			}
			if !guest.ValidHostname(name) {
				return fmt.Errorf("%q is not the name of a host", name)
			}
			address := "https://dynupdate.no-ip.com/nic/update?hostname=" + url.QueryEscape(name)
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
			if err != nil {
				return fmt.Errorf("asking no-ip.com: %w", err)
			}
			request.SetBasicAuth(s.Get("username", ""), s.Get("password", ""))
			request.Header.Set("User-Agent", "mica/1.0 noip@mica.invalid")
			if c.Root.Pretend() {
				_, _ = c.Root.HTTP(ctx, request)
				return nil
			}
			body, err := c.Root.HTTP(ctx, request)
			if err != nil {
				return err
			}
			answer := strings.TrimSpace(string(body))
			if !strings.HasPrefix(answer, "good") && !strings.HasPrefix(answer, "nochg") {
				return fmt.Errorf("no-ip.com does not accept %q: it answers %.40q", name, answer)
			}
			return nil
		},
	}
}

// launchIndex is the number of this machine among those launched together.
func launchIndex(root *guest.Root) int {
	n, err := number(metadata(root, "ami-launch-index"), 0, 1<<20)
	if err != nil {
		return 0
	}
	return n
}
