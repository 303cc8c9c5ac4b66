package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

const (
	poolGroup, poolGID   = "pool", 50000
	aliceGroup, aliceGID = "alice", 1395
	maxPoolAccounts      = 999
	globusKeys           = "/etc/ssh/authorized_keys_globus/%u"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/vaf-setup.py: the accounts, the
// client's settings and where sshd looks for keys are set up alike.
//
// Differs: the master's web pages for logins with grid certificates (sshcertauth
// under Apache with a certificate signed by the machine itself), its expiry job
// and the LDAP directory of the experiment, which were services of their time, are
// not set up; the plugin says so.
func vafSetup() Plugin {
	return Plugin{
		Name: "vaf-setup", Does: "makes accounts and client settings of a virtual analysis facility",
		Keys: []Key{
			{Name: "auth_method", Kind: Text, Meaning: "pool_users or alice_ldap; without it no accounts"},
			{Name: "num_pool_accounts", Kind: Integer, Meaning: "how many pool accounts, at least 2"},
			{Name: "node_type", Kind: Text, Meaning: "master or slave"},
			{Name: "client_settings", Kind: Text, Meaning: "settings of the client to link as default"},
			{Name: "alice_*", Kind: Text, Meaning: "settings of the client alice, such as alice_vaf_data_set_storage"},
		},
		Apply: applyVAF,
	}
}

func applyVAF(ctx context.Context, c *Call) error {
	var p problems
	s := c.Section
	method := s.Get("auth_method", "")
	switch method {
	case "", "pool_users", "alice_ldap":
	default: // Compat: the plugin stops
		return fmt.Errorf("auth_method: %q is neither pool_users nor alice_ldap", method)
	}
	client := s.Get("client_settings", "")
	if client != "" && !repositoryName.MatchString(client) {
		p.addf("client_settings: %q is not a name", client)
		client = ""
	}
	switch method {
	case "pool_users":
		n, err := number(s.Get("num_pool_accounts", ""), 2, maxPoolAccounts)
		if err != nil {
			return errors.Join(p.err(), fmt.Errorf("num_pool_accounts: %w", err))
		}
		p.add(poolAccounts(ctx, c.Root, n))
	case "alice_ldap":
		_, err := c.Root.EnsureGroup(ctx, aliceGroup, aliceGID, false)
		p.add(err)
		c.Warn("the directory of users is not set up: auth_method alice_ldap makes its group only")
	}
	if s.Get("node_type", "") == "master" && method != "" {
		p.add(globusLogins(ctx, c.Root))
		c.Warn("logins with grid certificates are not set up; keys go to %s by hand", globusKeys)
	}
	if client != "" {
		p.add(c.Root.Symlink(client, "/etc/vaf/default"))
	}
	if client == "alice" {
		if v := dataSetStorage(s); v != "" {
			word, err := shellWord(unquote(v))
			if p.add(err) {
				if !strings.HasPrefix(word, `"`) && !strings.HasPrefix(word, "'") {
					word = `"` + word + `"`
				}
				p.add(c.Root.WriteFile("/etc/vaf/alice/remote.before", []byte("export VafDataSetStorage="+word+"\n"), guest.Attr{Mode: 0o644}))
			}
		}
	}
	return p.err()
}

// dataSetStorage returns the option for alice's data sets, with or without
// underscores in its name.
func dataSetStorage(s Section) string {
	for _, o := range s.Options {
		if name, ok := strings.CutPrefix(o.Key, "alice_"); ok && strings.HasSuffix(strings.ReplaceAll(name, "_", ""), "datasetstorage") {
			return o.Value
		}
	}
	return ""
}

func poolAccounts(ctx context.Context, root *guest.Root, n int) error {
	if _, err := root.EnsureGroup(ctx, poolGroup, poolGID, false); err != nil {
		return err
	}
	var p problems
	for i := 1; i <= n; i++ {
		_, _, err := root.EnsureAccount(ctx, guest.NewAccount{
			Name: fmt.Sprintf("pool%03d", i), UID: poolGID + i, Group: poolGroup, Shell: "/bin/bash",
		})
		p.add(err)
	}
	return p.err()
}

// globusLogins makes sshd look where certificate logins leave their keys, too.
func globusLogins(ctx context.Context, root *guest.Root) error {
	const file = "/etc/ssh/sshd_config"
	data, err := root.ReadFile(file)
	if err != nil {
		return fmt.Errorf("no SSH server to configure: %w", err)
	}
	lines := sshdOption(guest.Lines(data), "AuthorizedKeysFile", ".ssh/authorized_keys "+globusKeys)
	if err := root.WriteFile(file, guest.Text(lines), guest.Attr{Backup: true}); err != nil {
		return err
	}
	if err := root.MkdirAll("/etc/ssh/authorized_keys_globus", guest.Attr{Mode: 0o755}); err != nil {
		return err
	}
	if !root.Pretend() && !root.HasService("sshd") && !root.HasService("ssh") {
		return nil
	}
	return root.Service(ctx, sshServices, guest.Reload)
}
