package machine

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/stage"
)

// Login is how to reach a machine by SSH.
type Login struct {
	Name       string
	User       string
	Address    string // empty is this computer, 127.0.0.1
	Port       int    // 0 where there is no way in
	Through    string // the computer from which Address is seen, as ssh takes it; empty for this one
	Key        string // the machine's private key
	KnownHosts string // its own known_hosts
	Pinned     bool   // the host's key is known from the machine's console
}

// Login prepares logging in: it pins the host key that the guest told over its
// console, a path no one on the network can touch.
func (f *Fleet) Login(ctx context.Context, name string, action Action) (Login, error) {
	m, err := f.Get(ctx, name)
	if err != nil {
		return Login{}, err
	}
	if m.Record == nil || m.State == Unknown {
		return Login{}, m.Err
	}
	if action == DoSSH {
		if _, err := m.State.Allows(name, action); err != nil {
			return Login{}, err
		}
	}
	s := m.Record.spec()
	l := Login{Name: name, User: m.Record.User, Key: s.Path(keyFile), KnownHosts: s.Path(knownHostsFile)}
	way, err := f.reach(ctx, m.Record.Instance)
	if err != nil {
		return l, err
	}
	if way.pending && action == DoSSH {
		return l, fail.New(fail.Conflict, "%q has no address in network %q yet", name, s.Network).
			Hint("it asks for one as it boots: 'mica logs %s' shows how far it is", name)
	}
	l.Address, l.Port, l.Through = way.address, way.port, way.through
	key := m.Record.Facts[FactHostKey]
	if key == "" {
		key = f.hostKeyFromLog(ctx, m)
	}
	if key == "" || strings.ContainsAny(key, "\r\n") { // a line break would add lines of the guest's choice
		return l, nil
	}
	l.Pinned = true
	line := fmt.Sprintf("%s %s\n", l.alias(), key)
	if have, err := os.ReadFile(l.KnownHosts); err == nil && string(have) == line {
		return l, nil
	}
	return l, atomicfile.Write(l.KnownHosts, []byte(line), 0o600)
}

// way is where the guest's SSH server is: at a forwarded port, or at an address
// of its own.
type way struct {
	address string // empty is 127.0.0.1
	port    int    // 0: there is none
	through string // the computer from which it is seen; empty is this one
	pending bool   // the guest will have an address, but has none yet
}

// reach finds the way to the guest's SSH server.
func (f *Fleet) reach(ctx context.Context, i Instance) (way, error) {
	w := way{port: i.Spec.SSHPort()}
	d, err := f.Drivers.Get(i.Spec.Driver)
	if err != nil {
		return w, err
	}
	r, ok := d.(Reacher)
	if !ok {
		return w, nil
	}
	if w.through, err = r.Host(i); err != nil || !r.Addressed(i) {
		return w, err
	}
	w.port = guestSSH
	w.address, err = r.Address(ctx, i)
	w.pending = w.address == ""
	return w, err
}

// hostKeyFromLog serves machines whose create did not wait to the end. Only
// the event that ends the boot counts, and of several the first.
func (f *Fleet) hostKeyFromLog(ctx context.Context, m Machine) string {
	all, err := f.Stages(ctx, m)
	if err != nil {
		return ""
	}
	for _, e := range all {
		if key := e.Facts[FactHostKey]; e.Stage == stage.Apply && key != "" {
			return key
		}
	}
	return ""
}

// alias is the name the host key is filed under: the machine's, since its port
// may change.
func (l Login) alias() string { return "mica-" + strings.ToLower(l.Name) }

// Options are ssh's options, as -o takes them, without the user's own
// configuration getting in the way of the machine's key.
func (l Login) Options() [][2]string {
	strict := "yes"
	if !l.Pinned {
		strict = "accept-new"
	}
	options := [][2]string{
		{"HostName", cmp.Or(l.Address, "127.0.0.1")},
		{"Port", strconv.Itoa(l.Port)},
		{"User", l.User},
		{"IdentityFile", quoteOption(l.Key)},
		{"IdentitiesOnly", "yes"},
		{"UserKnownHostsFile", quoteOption(l.KnownHosts)},
		{"GlobalKnownHostsFile", "/dev/null"},
		{"HostKeyAlias", l.alias()},
		{"StrictHostKeyChecking", strict},
		{"UpdateHostKeys", "no"},
		{"ConnectTimeout", "30"}, // a machine that is starting takes connections and does not answer
		{"LogLevel", "ERROR"},
	}
	if l.Through != "" { // a program, not ProxyJump: the user's own configuration holds for that computer
		options = append(options, [2]string{"ProxyCommand", "ssh -W '[%h]:%p' " + shellQuote("ssh://"+strings.ReplaceAll(l.Through, "%", "%%"))})
	}
	return options
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// quoteOption writes a path for ssh's configuration, where percent signs,
// blanks, quotes and backslashes have a meaning of their own.
func quoteOption(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.ContainsAny(path, " \t#'\"\\") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
	}
	return path
}

// Args are the arguments of the ssh program for one login.
func (l Login) Args(command []string) []string {
	args := []string{"-F", "none"}
	for _, o := range l.Options() {
		args = append(args, "-o", o[0]+"="+o[1])
	}
	args = append(args, l.alias())
	if len(command) > 0 {
		args = append(append(args, "--"), command...)
	}
	return args
}

// Config is a section for ssh's configuration file.
func (l Login) Config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", l.alias())
	for _, o := range l.Options() {
		fmt.Fprintf(&b, "  %s %s\n", o[0], o[1])
	}
	return b.String()
}
