package plugins

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

const (
	condorConfig = "/etc/condor/condor_config"
	condorLocal  = "/etc/condor/condor_config.local"
	condorSecret = "/etc/condor/pool_password"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/condor.py: the same lines of
// condor_config.local in the same order, without a line break at the end.
//
// Differs: the pool password is written to its file instead of being an argument
// of condor_store_cred, where every user of the machine sees it, and a last line
// says where it is.
func condor() Plugin {
	return Plugin{
		Name: "condor", Does: "joins an HTCondor pool, or is its master",
		Keys: []Key{
			{Name: "hostname", Kind: Host, Meaning: "name to give the machine"},
			{Name: "condor_master", Kind: Host, Meaning: "the pool's master; without it this machine is the master"},
			{Name: "condor_secret", Kind: Text, Meaning: "password of the pool", Secret: true},
			{Name: "collector_name", Kind: Text, Meaning: "name of the pool"},
			{Name: "condor_user", Kind: Text, Meaning: "user that owns condor's files", Default: "condor"},
			{Name: "condor_group", Kind: Text, Meaning: "that user's group", Default: "condor"},
			{Name: "condor_dir", Kind: Path, Meaning: "where condor works", Default: "the user's home directory"},
			{Name: "condor_admin", Kind: Text, Meaning: "whom to write to", Default: "root@ the master"},
			{Name: "highport", Kind: Port, Meaning: "last port to use", Default: "9700"},
			{Name: "lowport", Kind: Port, Meaning: "first port to use", Default: "9600"},
			{Name: "uid_domain", Kind: Text, Meaning: "domain with the same users; * trusts any", Default: "the machine's domain, else *"},
			{Name: "allow_write", Kind: Text, Meaning: "hosts that may join and submit"},
			{Name: "extra_vars", Kind: List, Meaning: "further lines of the configuration"},
			{Name: "use_ips", Kind: Bool, Meaning: "do without DNS; only true turns it on"},
			{Name: "filesystem_domain", Kind: Text, Meaning: "in the original's manual, read by nobody", NoEffect: true},
			{Name: "localconfig", Kind: Text, Meaning: "as above", NoEffect: true},
			{Name: "slots", Kind: Text, Meaning: "as above", NoEffect: true},
			{Name: "slot_user", Kind: Text, Meaning: "as above", NoEffect: true},
			{Name: "cannonical_user", Kind: Text, Meaning: "as above", NoEffect: true},
		},
		Apply: func(ctx context.Context, c *Call) error {
			plan, err := planCondor(ctx, c)
			if err != nil {
				return err
			}
			return plan.apply(ctx, c)
		},
	}
}

type condorPlan struct {
	assigned, real, ip string
	useIPs             bool
	user, group, dir   string
	secret             string
	lines              func(uid, gid int, dir string) []string
}

func planCondor(ctx context.Context, c *Call) (condorPlan, error) {
	var p problems
	s := c.Section
	plan := condorPlan{
		user: s.Get("condor_user", "condor"), group: s.Get("condor_group", "condor"), dir: s.Get("condor_dir", ""),
		secret: s.Get("condor_secret", ""), useIPs: s.Get("use_ips", "") == "true", // Compat: this very word
		assigned: s.Get("hostname", ""), real: ownName(c),
	}
	for _, o := range s.Options {
		if o.Key != "condor_secret" && strings.ContainsAny(o.Value, "\n\r\x00") {
			p.addf("%s: the value has a line break in it", o.Key)
		}
	}
	if plan.assigned != "" && !guest.ValidHostname(plan.assigned) {
		p.addf("hostname: %q is not a host name", plan.assigned)
	}
	if !guest.ValidName(plan.user) || !guest.ValidName(plan.group) {
		p.addf("condor_user, condor_group: %q, %q are not names", plan.user, plan.group)
	}
	if plan.dir != "" && !path.IsAbs(plan.dir) {
		p.addf("condor_dir: %q is not a directory", plan.dir)
	}
	high, err := number(s.Get("highport", "9700"), 1, 65535)
	if err != nil {
		p.addf("highport: %w", err)
	}
	low, err := number(s.Get("lowport", "9600"), 1, 65535)
	if err != nil {
		p.addf("lowport: %w", err)
	} else if low > high {
		p.addf("lowport %d is above highport %d", low, high)
	}
	master := s.Get("condor_master", "")
	if master != "" {
		p.add(host(master))
	}
	if plan.ip, err = outboundIP(ctx, c.Root); err != nil {
		p.add(err)
	}
	if len(p.errs) > 0 {
		return plan, p.err()
	}
	plan.lines = func(uid, gid int, dir string) []string { return condorLines(s, plan, master, low, high, uid, gid, dir) }
	return plan, nil
}

func condorLines(s Section, plan condorPlan, master string, low, high, uid, gid int, dir string) []string {
	assigned := plan.assigned
	if assigned == "" {
		assigned = plan.real
	}
	lines := []string{
		"# Written from the context of this machine",
		"# Assigned hostname: " + assigned,
		"# Real hostname: " + plan.real,
	}
	if master != "" {
		lines = append(lines, "DAEMON_LIST = MASTER, STARTD")
	} else {
		lines = append(lines, "DAEMON_LIST = COLLECTOR, MASTER, NEGOTIATOR, SCHEDD")
		master = plan.real
		if assigned != plan.real || plan.useIPs {
			master = plan.ip
		}
	}
	lines = append(lines, "CONDOR_HOST = "+master, "CONDOR_ADMIN = "+s.Get("condor_admin", "root@"+master))
	_, domain, _ := strings.Cut(plan.real, ".")
	if _, err := netip.ParseAddr(plan.real); err == nil {
		domain = ""
	}
	if domain == "" {
		domain = "*"
	}
	switch v := s.Get("uid_domain", domain); v {
	case "*":
		lines = append(lines, "UID_DOMAIN = *", "TRUST_UID_DOMAIN = True", "SOFT_UID_DOMAIN = True")
	default:
		lines = append(lines, "UID_DOMAIN = "+v)
	}
	lines = append(lines,
		fmt.Sprintf("CONDOR_IDS = %d.%d", uid, gid),
		"QUEUE_SUPER_USERS = root, "+plan.user,
		"LOCAL_DIR = "+dir,
		"HIGHPORT = "+strconv.Itoa(high), "LOWPORT = "+strconv.Itoa(low))
	if v := s.Get("collector_name", ""); v != "" {
		lines = append(lines, "COLLECTOR_NAME = "+v)
	}
	if v := s.Get("allow_write", ""); v != "" {
		lines = append(lines, "ALLOW_WRITE = "+v)
	}
	lines = append(lines, list(s.Get("extra_vars", ""))...)
	if plan.secret != "" {
		lines = append(lines, "SEC_PASSWORD_FILE = "+condorSecret)
	}
	return lines
}

func (plan condorPlan) apply(ctx context.Context, c *Call) error {
	root := c.Root
	config, err := root.ReadFile(condorConfig)
	if err != nil { // Compat: without it the plugin stops
		return fmt.Errorf("no condor to configure: %w", err)
	}
	var p problems
	if plan.assigned != "" {
		p.add(root.SetHostname(plan.assigned))
	}
	lines := removeKeys(guest.Lines(config), "NO_DNS", "DEFAULT_DOMAIN_NAME", "NETWORK_INTERFACE")
	if plan.useIPs {
		lines = append(lines, "NO_DNS=True", "DEFAULT_DOMAIN_NAME=virtual-analysis-facility", "NETWORK_INTERFACE="+plan.ip)
	}
	p.add(root.WriteFile(condorConfig, guest.Text(lines), guest.Attr{}))
	if _, err := root.EnsureGroup(ctx, plan.group, 0, true); !p.add(err) {
		return p.err()
	}
	acc, ok, err := root.Account(plan.user)
	if err == nil && !ok {
		acc, _, err = root.EnsureAccount(ctx, guest.NewAccount{
			Name: plan.user, Group: plan.group, System: true, Home: "/var/lib/condor", Shell: "/sbin/nologin",
		})
	}
	if !p.add(err) {
		return p.err()
	}
	gid, _, err := root.Group(plan.group)
	p.add(err)
	dir := plan.dir
	if dir == "" {
		dir = acc.Home
	}
	if dir == "/" || dir == "" {
		p.add(errors.New("condor_dir: the user has no home directory; name one"))
		return p.err()
	}
	owned := guest.Attr{Mode: 0o755}.Owner(acc.UID, gid)
	dirs := []string{"/var/lib/condor", "/var/log/condor", "/var/run/condor", "/var/lock/condor", dir}
	for _, sub := range []string{"run", "log", "lock", "spool", "execute"} {
		dirs = append(dirs, path.Join(dir, sub))
	}
	for _, d := range dirs {
		if p.add(root.MkdirAll(d, owned)) {
			p.add(root.SetAttr(d, owned))
		}
	}
	text := strings.Join(plan.lines(acc.UID, gid, dir), "\n")
	p.add(root.WriteFile(condorLocal, []byte(text), guest.Attr{Mode: 0o644, Backup: true}))
	if plan.secret != "" {
		p.add(root.WriteFile(condorSecret, scramble(plan.secret), guest.Attr{Mode: 0o600, Secret: true}))
	}
	p.add(root.Service(ctx, []string{"condor"}, guest.Enable, guest.Restart))
	return p.err()
}

// removeKeys drops the lines that set one of the keys.
func removeKeys(lines []string, keys ...string) []string {
	var out []string
	for _, l := range lines {
		name, _, ok := strings.Cut(l, "=")
		drop := false
		for _, key := range keys {
			drop = drop || ok && strings.TrimSpace(name) == key
		}
		if !drop {
			out = append(out, l)
		}
	}
	return out
}

// scramble is how HTCondor keeps a pool password in a file: not a cipher, only out
// of sight (HTCondor: condor_utils/secure_file.cpp).
func scramble(secret string) []byte {
	mask := []byte{0xde, 0xad, 0xbe, 0xef}
	out := []byte(secret)
	for i := range out {
		out[i] ^= mask[i%len(mask)]
	}
	return out
}
