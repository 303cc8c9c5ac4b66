package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Account is one user of the system.
type Account struct {
	Name  string
	UID   int
	GID   int
	Gecos string
	Home  string
	Shell string
}

// NewAccount says how an account should be. Empty fields of an existing account
// stay as they are.
type NewAccount struct {
	Name   string
	UID    int      // 0: the next free one
	Group  string   // primary group, which must exist; "" makes one of the account's own name
	Groups []string // further groups; those that do not exist are left out
	Gecos  string
	Home   string // "" is /home/NAME
	Shell  string
	System bool // for a service: no home directory is made
}

const (
	passwdFile  = "/etc/passwd"
	groupFile   = "/etc/group"
	shadowFile  = "/etc/shadow"
	gshadowFile = "/etc/gshadow"
)

// accounts is the four files, under their lock.
type accounts struct {
	passwd, group, shadow, gshadow *table
	actions                        []Action // recorded when the files are written
}

// ValidName reports whether name can name a user or a group.
func ValidName(name string) bool {
	if name == "" || len(name) > 32 || name == "." || name == ".." {
		return false
	}
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return true
}

// validField reports whether text can stand in a field of an account file.
func validField(text string) bool { return !strings.ContainsAny(text, ":\n\r\x00") }

// edit locks and reads the account files, lets change have them, and writes those
// that changed.
func (r *Root) edit(ctx context.Context, change func(*accounts) error) error {
	unlock, err := r.lockAccounts(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	a, err := r.readAccounts()
	if err != nil {
		return err
	}
	if err := change(a); err != nil {
		return err
	}
	// Groups first: a user whose group is missing is worse than a group without users.
	for _, f := range []struct {
		name string
		t    *table
		attr Attr
	}{
		{groupFile, a.group, Attr{}},
		{gshadowFile, a.gshadow, Attr{Secret: true}},
		{passwdFile, a.passwd, Attr{}},
		{shadowFile, a.shadow, Attr{Secret: true}},
	} {
		if f.t == nil || !f.t.changed {
			continue
		}
		if f.attr.Secret && !r.Exists(f.name) {
			f.attr.Mode = 0o600
		}
		if err := r.WriteFile(f.name, f.t.bytes(), f.attr); err != nil {
			return err
		}
	}
	for _, done := range a.actions {
		r.Note(done)
	}
	return nil
}

func (r *Root) readAccounts() (*accounts, error) {
	a := &accounts{}
	for _, f := range []struct {
		name  string
		t     **table
		width int
	}{{passwdFile, &a.passwd, 7}, {groupFile, &a.group, 4}, {shadowFile, &a.shadow, 8}, {gshadowFile, &a.gshadow, 4}} {
		data, err := r.ReadFile(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			if f.name == gshadowFile {
				continue // optional
			}
			err = nil
		}
		if err != nil {
			return nil, err
		}
		*f.t = parseTable(data, f.width)
	}
	return a, nil
}

// lockAccounts takes the lock of lckpwdf(3) and waits up to 15 seconds for it.
func (r *Root) lockAccounts(ctx context.Context) (unlock func(), err error) {
	const name = "/etc/.pwd.lock"
	if err := r.MkdirAll("/etc", Attr{}); err != nil {
		return nil, err
	}
	at, err := r.resolve(name, true)
	if err != nil {
		return nil, about("locking accounts with", name, err)
	}
	f, err := r.dir.OpenFile(at, syscall.O_WRONLY|syscall.O_CREAT, 0o600)
	if err != nil {
		return nil, about("locking accounts with", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		// An open file description lock keeps out the process locks of other
		// programs, and is not lost when somebody else here closes the file.
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			_ = f.Close()
			return nil, about("locking accounts with", name, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("locking accounts with %s: held by another program: %w", name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Accounts lists the users of the system, in the order of /etc/passwd.
func (r *Root) Accounts() ([]Account, error) {
	a, err := r.readAccounts()
	if err != nil {
		return nil, err
	}
	var list []Account
	a.passwd.entries(func(f []string) {
		if acc, ok := account(f); ok {
			list = append(list, acc)
		}
	})
	return list, nil
}

// Account returns the user of that name, if there is one.
func (r *Root) Account(name string) (Account, bool, error) {
	a, err := r.readAccounts()
	if err != nil {
		return Account{}, false, err
	}
	acc, ok := account(a.passwd.find(name))
	return acc, ok, nil
}

func account(f []string) (Account, bool) {
	if len(f) < 7 {
		return Account{}, false
	}
	uid, err := strconv.Atoi(f[2])
	gid, err2 := strconv.Atoi(f[3])
	if err != nil || err2 != nil || uid < 0 || gid < 0 {
		return Account{}, false
	}
	return Account{Name: f[0], UID: uid, GID: gid, Gecos: f[4], Home: f[5], Shell: f[6]}, true
}

// Group returns the id of the group of that name, if there is one.
func (r *Root) Group(name string) (gid int, ok bool, err error) {
	a, err := r.readAccounts()
	if err != nil {
		return 0, false, err
	}
	gid, ok = a.gid(name)
	return gid, ok, nil
}

func (a *accounts) gid(name string) (int, bool) {
	f := a.group.find(name)
	if f == nil {
		return 0, false
	}
	gid, err := strconv.Atoi(f[2])
	return gid, err == nil && gid >= 0
}

// Members returns the users that /etc/group lists in a group.
func (r *Root) Members(name string) ([]string, error) {
	a, err := r.readAccounts()
	if err != nil {
		return nil, err
	}
	f := a.group.find(name)
	if f == nil {
		return nil, nil
	}
	return members(f[3]), nil
}

func members(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
}

// EnsureGroup makes a group unless it exists, and returns its id. gid 0 takes
// the next free one, of the system's range with system.
func (r *Root) EnsureGroup(ctx context.Context, name string, gid int, system bool) (int, error) {
	if !ValidName(name) {
		return 0, fmt.Errorf("group %q: not a name for a group", name)
	}
	err := r.edit(ctx, func(a *accounts) (err error) {
		gid, err = a.ensureGroup(name, gid, system)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", name, err)
	}
	return gid, nil
}

func (a *accounts) ensureGroup(name string, gid int, system bool) (int, error) {
	if have, ok := a.gid(name); ok {
		return have, nil
	}
	if a.group.find(name) != nil {
		return 0, errors.New("its line in /etc/group has no id")
	}
	used := a.group.ids(2)
	ok := true
	switch {
	case gid != 0:
		if used[gid] {
			return 0, fmt.Errorf("id %d belongs to another group", gid)
		}
	case system:
		gid, ok = freeSystemID(used)
	default:
		gid, ok = freeID(used)
	}
	if !ok {
		return 0, errors.New("no id is free")
	}
	a.group.set([]string{name, "x", strconv.Itoa(gid), ""})
	if a.gshadow != nil {
		a.gshadow.set([]string{name, "!", "", ""})
	}
	a.actions = append(a.actions, Action{Kind: KindGroup, Target: name, Detail: "gid " + strconv.Itoa(gid)})
	return gid, nil
}

// EnsureAccount makes an account, or brings an existing one to the shell, the
// primary group and the further groups asked for. An existing account keeps its
// id, its home directory and all that is in it, and its password. A new one has
// no password that fits, and a home directory copied from /etc/skel.
func (r *Root) EnsureAccount(ctx context.Context, n NewAccount) (acc Account, created bool, err error) {
	if !ValidName(n.Name) {
		return Account{}, false, fmt.Errorf("user %q: not a name for a user", n.Name)
	}
	if n.Home == "" {
		n.Home = "/home/" + n.Name
		if n.System {
			n.Home = "/"
		}
	}
	for _, field := range []string{n.Gecos, n.Home, n.Shell} {
		if !validField(field) {
			return Account{}, false, fmt.Errorf("user %q: %q cannot be written to /etc/passwd", n.Name, field)
		}
	}
	err = r.edit(ctx, func(a *accounts) (err error) {
		acc, created, err = a.ensure(n, r.Now())
		return err
	})
	if err == nil && created && !n.System {
		err = errors.Join(r.makeHome(acc), r.addSubIDs(n.Name))
	}
	if err != nil {
		return acc, created, fmt.Errorf("user %q: %w", n.Name, err)
	}
	return acc, created, nil
}

func (a *accounts) ensure(n NewAccount, now time.Time) (Account, bool, error) {
	f := a.passwd.find(n.Name)
	acc, ok := account(f)
	if f != nil && !ok {
		return Account{}, false, errors.New("its line in /etc/passwd cannot be read")
	}
	created := f == nil
	if created {
		acc = Account{Name: n.Name, UID: n.UID, Gecos: n.Gecos, Home: n.Home, Shell: "/bin/sh"}
		used := a.passwd.ids(2)
		free := true
		switch {
		case n.UID != 0 && used[n.UID]:
			return Account{}, false, fmt.Errorf("id %d belongs to another user", n.UID)
		case n.UID == 0 && n.System:
			acc.UID, free = freeSystemID(used)
		case n.UID == 0:
			acc.UID, free = freeID(used)
		}
		if !free {
			return Account{}, false, errors.New("no id is free")
		}
	}
	before := acc
	if n.Shell != "" {
		acc.Shell = n.Shell
	}
	switch {
	case n.Group != "":
		gid, ok := a.gid(n.Group)
		if !ok {
			return Account{}, false, fmt.Errorf("there is no group %q", n.Group)
		}
		acc.GID = gid
	case created:
		want := 0
		if !n.System && !a.group.ids(2)[acc.UID] {
			want = acc.UID // the same number for both, where it is free
		}
		gid, err := a.ensureGroup(n.Name, want, n.System)
		if err != nil {
			return Account{}, false, err
		}
		acc.GID = gid
	}
	if f == nil {
		f = []string{acc.Name, "x", strconv.Itoa(acc.UID), "", acc.Gecos, acc.Home, ""}
		a.shadow.set([]string{acc.Name, "!", strconv.FormatInt(now.Unix()/86400, 10), "0", "99999", "7", "", "", ""})
		a.actions = append(a.actions, Action{
			Kind: KindUser, Target: acc.Name,
			Detail: fmt.Sprintf("uid %d, gid %d, shell %s", acc.UID, acc.GID, acc.Shell),
		})
	} else if acc != before {
		a.actions = append(a.actions, Action{
			Kind: KindAccount, Target: acc.Name,
			Detail: fmt.Sprintf("gid %d, shell %s", acc.GID, acc.Shell),
		})
	}
	f[3], f[6] = strconv.Itoa(acc.GID), acc.Shell
	a.passwd.set(f)
	for _, g := range n.Groups {
		a.join(acc.Name, g)
	}
	return acc, created, nil
}

// join adds a user to a group, if there is such a group.
func (a *accounts) join(user, group string) {
	f := a.group.find(group)
	if f == nil || slices.Contains(members(f[3]), user) {
		return
	}
	f[3] = strings.Join(append(members(f[3]), user), ",")
	a.group.set(f)
	if a.gshadow != nil {
		if g := a.gshadow.find(group); g != nil && !slices.Contains(members(g[3]), user) {
			g[3] = strings.Join(append(members(g[3]), user), ",")
			a.gshadow.set(g)
		}
	}
	a.actions = append(a.actions, Action{Kind: KindAccount, Target: user, Detail: "member of " + group})
}

// SetPassword sets the password field of a user to a hash of crypt(5), or to "!"
// for an account that no password opens. The detail recorded says of what kind.
func (r *Root) SetPassword(ctx context.Context, name, hash, kind string) error {
	if !validField(hash) {
		return fmt.Errorf("user %q: the password hash cannot be written to /etc/shadow", name)
	}
	err := r.edit(ctx, func(a *accounts) error {
		if a.passwd.find(name) == nil {
			return errors.New("no such user")
		}
		f := a.shadow.find(name)
		if f == nil {
			f = []string{name, "", "", "0", "99999", "7", "", "", ""}
		}
		if f[1] == hash {
			return nil
		}
		f[1], f[2] = hash, strconv.FormatInt(r.Now().Unix()/86400, 10)
		a.shadow.set(f)
		// An account without "x" here would not be looked up in /etc/shadow.
		if p := a.passwd.find(name); p[1] != "x" {
			p[1] = "x"
			a.passwd.set(p)
		}
		a.actions = append(a.actions, Action{Kind: KindPassword, Target: name, Detail: kind})
		return nil
	})
	if err != nil {
		return fmt.Errorf("user %q: %w", name, err)
	}
	return nil
}

// GroupNames returns the name of every group by its id.
func (r *Root) GroupNames() (map[int]string, error) {
	a, err := r.readAccounts()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	a.group.entries(func(f []string) {
		if gid, err := strconv.Atoi(f[2]); err == nil && names[gid] == "" {
			names[gid] = f[0]
		}
	})
	return names, nil
}
