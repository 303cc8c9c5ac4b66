package plugins

import (
	"context"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

var sshServices = []string{"sshd", "ssh"}

// Compat: amiconfig: rpath/amiconfig/plugins/rootsshkeys.py. Differs: every key
// the platform gives, checked, each once.
func rootSSHKeys() Plugin {
	return Plugin{
		Name: "rootsshkeys", Does: "lets the holders of the machine's public keys log in as root",
		Always: true, Required: true,
		Apply: func(_ context.Context, c *Call) error {
			if len(c.Meta.PublicKeys) == 0 {
				return nil
			}
			root, ok, err := c.Root.Account("root")
			if err != nil {
				return err
			}
			if !ok { // no /etc/passwd yet: offline trees, minimal systems
				root = guest.Account{Name: "root", Home: "/root"}
			}
			return c.Root.Authorize(root, c.Meta.PublicKeys)
		},
	}
}

// Compat: amiconfig: rpath/amiconfig/plugins/disablesshpasswdauth.py edits the
// first PasswordAuthentication line. Differs: the setting is made where sshd reads
// it first, lines inside Match blocks are left alone, and sshd is told.
func disableSSHPasswords() Plugin {
	return Plugin{
		Name: "disablesshpasswdauth", Does: "turns off password logins over SSH",
		Apply: func(ctx context.Context, c *Call) error {
			const file = "/etc/ssh/sshd_config"
			data, err := c.Root.ReadFile(file)
			if err != nil {
				return fmt.Errorf("no SSH server to configure: %w", err)
			}
			lines := sshdOption(guest.Lines(data), "PasswordAuthentication", "no")
			// With keyboard-interactive logins PAM would still ask for the password.
			interactive := "KbdInteractiveAuthentication"
			if hasDirective(lines, "ChallengeResponseAuthentication") {
				interactive = "ChallengeResponseAuthentication"
			}
			lines = sshdOption(lines, interactive, "no")
			if err := c.Root.WriteFile(file, guest.Text(lines), guest.Attr{Backup: true}); err != nil {
				return err
			}
			// sshd keeps the first value it meets, and a drop-in may be included
			// above the line that was edited.
			if includesDropIns(lines) {
				const dropIn = "/etc/ssh/sshd_config.d/00-mica.conf"
				text := "PasswordAuthentication no\n" + interactive + " no\n"
				if err := c.Root.WriteFile(dropIn, []byte(text), guest.Attr{Mode: 0o600}); err != nil {
					return err
				}
			}
			if !c.Root.Pretend() && !c.Root.HasService("sshd") && !c.Root.HasService("ssh") {
				return nil
			}
			return c.Root.Service(ctx, sshServices, guest.Reload)
		},
	}
}

// sshdOption sets an option of the global part of sshd_config: the first line that
// has it, even commented out, else a new line above the first Match block. Further
// global lines are commented out.
func sshdOption(lines []string, key, value string) []string {
	var out []string
	done, matched := false, len(lines)
	for i, l := range lines {
		if f := strings.Fields(l); len(f) > 0 && strings.EqualFold(f[0], "Match") {
			matched = i
			break
		}
	}
	for _, l := range lines[:matched] {
		f := strings.Fields(strings.Replace(l, "=", " ", 1))
		commented := strings.Fields(strings.TrimLeft(strings.TrimSpace(l), "# \t"))
		switch {
		case len(f) > 0 && strings.EqualFold(f[0], key):
			if done {
				out = append(out, "# "+l)
				continue
			}
			out, done = append(out, key+" "+value), true
		case !done && strings.HasPrefix(strings.TrimSpace(l), "#") && len(commented) == 2 && strings.EqualFold(commented[0], key) && !hasDirective(lines[:matched], key):
			out, done = append(out, key+" "+value), true
		default:
			out = append(out, l)
		}
	}
	if !done {
		out = append(out, key+" "+value)
	}
	return append(out, lines[matched:]...)
}

func hasDirective(lines []string, key string) bool {
	for _, l := range lines {
		if f := strings.Fields(strings.Replace(l, "=", " ", 1)); len(f) > 0 && strings.EqualFold(f[0], key) {
			return true
		}
	}
	return false
}

func includesDropIns(lines []string) bool {
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) > 1 && strings.EqualFold(f[0], "Include") && strings.Contains(l, "/etc/ssh/sshd_config.d/") {
			return true
		}
	}
	return false
}
