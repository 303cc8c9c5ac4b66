package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// userSpec is one entry of [cernvm] users.
type userSpec struct {
	name, group string
	password    string // in the clear
	hash        string // of crypt(5)
	locked      bool   // no password opens the account
	generate    bool   // a password is to be made up
}

// parseUsers reads user:group:password, separated by commas. Entries that are
// wrong are left out, and the errors say which, without the password.
//
// Compat: exactly three fields, nothing trimmed inside them, "$6$…" is a hash
// (amiconfig: cernvm/amiconfig/plugins/cernvm.py).
//
// Differs: every hash of crypt(5) is one, not just SHA-512; an entry in double
// quotes may hold commas, and colons in its password; {plain} before a password
// says that it is one whatever it looks like; "!" or "*" locks the account;
// an empty group is the first organisation, or a group of the user's own.
func parseUsers(value, organisation string) ([]userSpec, error) {
	var p problems
	var users []userSpec
	seen := map[string]bool{}
	entries := userEntries(value)
	if len(entries) == 0 {
		return nil, errors.New("users: the list is empty")
	}
	for i, e := range entries {
		fields := strings.SplitN(e.text, ":", 3)
		if !e.quoted {
			fields = strings.Split(e.text, ":")
		}
		if len(fields) != 3 {
			// Not its text: that may be the rest of a password with a comma in it.
			p.addf("users: entry %d has %d fields instead of user:group:password", i+1, len(fields))
			continue
		}
		u := userSpec{name: fields[0], group: fields[1]}
		if u.group == "" {
			u.group = strings.ToLower(organisation)
		}
		if u.group == "" {
			u.group = u.name
		}
		switch secret := fields[2]; {
		case secret == "":
			u.generate = true
		case strings.HasPrefix(secret, "{plain}"):
			u.password = strings.TrimPrefix(secret, "{plain}")
		case secret == "!" || secret == "*" || secret == "!!":
			u.locked = true
		case guest.IsHash(secret):
			u.hash = secret
		default:
			u.password = secret
		}
		switch {
		case !guest.ValidName(u.name):
			p.addf("users: entry %d: %q is not a name for a user", i+1, u.name)
		case !guest.ValidName(u.group):
			p.addf("users: entry %d: %q is not a name for a group", i+1, u.group)
		case seen[u.name]:
			p.addf("users: %q is there twice", u.name)
		case strings.ContainsAny(u.password, "\n\r\x00"):
			p.addf("users: the password of %q has a line break in it", u.name)
		default:
			seen[u.name] = true
			users = append(users, u)
		}
	}
	return users, p.err()
}

type userEntry struct {
	text   string
	quoted bool
}

// userEntries splits at commas outside of entries in double quotes.
func userEntries(value string) []userEntry {
	var entries []userEntry
	for rest := strings.TrimSpace(value); rest != ""; {
		rest = strings.TrimLeft(rest, " \t")
		if strings.HasPrefix(rest, `"`) {
			if body, after, ok := strings.Cut(rest[1:], `"`); ok && (after == "" || after[0] == ',') {
				entries = append(entries, userEntry{body, true})
				rest = strings.TrimPrefix(after, ",")
				continue
			}
		}
		entry, after, more := strings.Cut(rest, ",")
		entries = append(entries, userEntry{text: entry})
		rest = after
		if more && rest == "" { // a comma at the end is an empty entry in the original
			break
		}
	}
	return entries
}

// firstBoot is the marker that tells whether anybody was made sudoer yet.
//
// Compat: cernvm-config: etc/cernvm/config, function for -u.
const firstBoot = "/etc/firstboot"

// makeUsers makes the accounts and returns the names of those that exist now.
func makeUsers(ctx context.Context, c *Call, specs []userSpec, shell string) ([]guest.Account, error) {
	var p problems
	var made []guest.Account
	var generated []string
	if !c.Root.Has(shell) {
		c.Warn("shell: this operating system has no %s, so nobody who has it can log in", shell)
	}
	admin := !c.Root.Exists(firstBoot)
	if admin {
		p.add(prepareSudo(ctx, c.Root))
	}
	for _, u := range specs {
		acc, created, err := makeUser(ctx, c, u, shell, admin)
		if !p.add(err) {
			continue
		}
		if created {
			admin = false
		}
		text, err := setPassword(ctx, c, u)
		p.add(err)
		if text != "" {
			generated = append(generated, u.name+" "+text)
		}
		p.add(c.Root.Authorize(acc, c.Meta.PublicKeys))
		made = append(made, acc)
	}
	if len(generated) > 0 {
		p.add(c.Root.Edit("/root/generated-passwords", guest.Attr{Mode: 0o600, Secret: true}, func(lines []string) []string {
			return append(lines, generated...)
		}))
	}
	return made, p.err()
}

// makeUser makes one account with its group.
func makeUser(ctx context.Context, c *Call, u userSpec, shell string, admin bool) (guest.Account, bool, error) {
	n := guest.NewAccount{Name: u.name, Shell: shell}
	if u.group != u.name {
		// Compat: the group of a context is a system group, and the user is in
		// "users" besides.
		if _, err := c.Root.EnsureGroup(ctx, u.group, 0, true); err != nil {
			return guest.Account{}, false, err
		}
		n.Group = u.group
		n.Groups = []string{"users", u.group}
	} else if _, ok, err := c.Root.Group(u.name); err != nil {
		return guest.Account{}, false, err
	} else if ok {
		n.Group = u.name
	}
	_, exists, err := c.Root.Account(u.name)
	if err != nil {
		return guest.Account{}, false, err
	}
	if admin && !exists {
		n.Groups = append(n.Groups, "wheel", "sudo", "docker")
	}
	acc, created, err := c.Root.EnsureAccount(ctx, n)
	if err == nil && admin && created && u.locked {
		err = sudoWithoutPassword(c.Root, u.name)
	}
	return acc, created, err
}

// prepareSudo does what the original does before the first user.
func prepareSudo(ctx context.Context, root *guest.Root) error {
	var p problems
	if data, err := root.ReadFile("/etc/sudoers.cernvm"); err == nil {
		p.add(root.WriteFile("/etc/sudoers", data, guest.Attr{Mode: 0o440, Backup: true}))
		_, err := root.EnsureGroup(ctx, "wheel", 0, true)
		p.add(err)
	}
	p.add(root.WriteFile(firstBoot, nil, guest.Attr{}))
	return p.err()
}

// sudoWithoutPassword lets an administrator who has no password become root.
func sudoWithoutPassword(root *guest.Root, name string) error {
	if !root.Exists("/etc/sudoers.d") {
		return nil
	}
	file := "/etc/sudoers.d/90-mica-" + strings.ReplaceAll(name, ".", "_") // sudo skips names with dots
	return root.WriteFile(file, []byte(name+" ALL=(ALL:ALL) NOPASSWD: ALL\n"), guest.Attr{Mode: 0o440})
}

// setPassword gives an account the password of its entry. What it had to make up
// is returned, and told once at the console.
func setPassword(ctx context.Context, c *Call, u userSpec) (generated string, err error) {
	hash, kind := u.hash, "hash from the context"
	switch {
	case u.locked:
		hash, kind = "!", "none: locked"
	case u.generate:
		if has, err := c.Root.HasPassword(u.name); err != nil || has {
			return "", err // made up by an earlier run
		}
		if u.password, err = c.Root.Random(12); err != nil {
			return "", err
		}
		generated, kind = u.password, "made up"
	case u.hash == "":
		if same, err := c.Root.PasswordIs(u.name, u.password); err != nil || same {
			return "", err
		}
		kind = "from the context, hashed with SHA-512"
	}
	if hash == "" {
		if hash, err = c.Root.Hash(u.password); err != nil {
			return "", fmt.Errorf("user %q: %w", u.name, err)
		}
	}
	if err := c.Root.SetPassword(ctx, u.name, hash, kind); err != nil {
		return "", err
	}
	if generated != "" {
		c.Root.Notice("The password of user %s is %s (kept in /root/generated-passwords)", u.name, generated)
	}
	return generated, nil
}

// UserNames returns the names of the users that a value of [cernvm] users makes,
// wrong entries left out.
func UserNames(value string) []string {
	specs, _ := parseUsers(value, "")
	var names []string
	for _, u := range specs {
		names = append(names, u.name)
	}
	return names
}
