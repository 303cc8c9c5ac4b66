package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/appliance-agent.py. Differs: that one
// never gets to set the password, but says that it did.
func applianceAgent() Plugin {
	const dir, file = "/usr/libexec/cernvm-appliance-agent", "/usr/libexec/cernvm-appliance-agent/.htpasswd"
	return Plugin{
		Name: "appliance-agent", Does: "sets the password of the appliance's web pages",
		Keys: []Key{{Name: "password", Kind: Text, Meaning: "password of the user admin", Secret: true}},
		Apply: func(ctx context.Context, c *Call) error {
			password := c.Section.Get("password", "")
			switch {
			case password == "":
				return nil
			case len(password) > 72:
				return errors.New("password: longer than the 72 bytes a web server looks at")
			case !c.Root.Exists(dir) && !c.Root.Pretend():
				return errors.New("this operating system has no appliance agent")
			}
			var p problems
			p.add(c.Root.Edit(file, guest.Attr{Mode: 0o640, Secret: true}, func(lines []string) []string {
				for _, l := range lines {
					hash, ok := strings.CutPrefix(l, "admin:")
					if ok && bcrypt.CompareHashAndPassword([]byte(strings.Replace(hash, "$2y$", "$2a$", 1)), []byte(password)) == nil {
						return lines
					}
				}
				hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
				if err != nil {
					p.add(fmt.Errorf("hashing the password: %w", err))
					return lines
				}
				return guest.SetLine(lines, "admin:", "admin:"+strings.Replace(string(hash), "$2a$", "$2y$", 1))
			}))
			attr := guest.Attr{Mode: 0o644}
			if acc, ok, err := c.Root.Account("cernvm-appliance-agent"); err == nil && ok {
				attr = attr.Owner(acc.UID, acc.GID)
				p.add(c.Root.SetAttr(file, guest.Attr{}.Owner(acc.UID, acc.GID)))
			}
			p.add(c.Root.WriteFile("/var/lib/cernvm-appliance-agent/password_set", nil, attr))
			p.add(c.Root.Service(ctx, []string{"cernvm-appliance-agent"}, guest.Restart))
			return p.err()
		},
	}
}
