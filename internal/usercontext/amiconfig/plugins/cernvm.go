package plugins

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// The files that CernVM's own scripts read.
const (
	siteConf        = "/etc/cernvm/site.conf"
	cvmfsSiteConf   = "/etc/cvmfs/site.conf"
	environmentConf = "/etc/cernvm/environment.conf"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/cernvm.py, with what it runs from
// cernvm-config: etc/cernvm/config and etc/cernvm/context.d.
//
// Differs: that plugin ends by running a program with a blank in its name, so it
// always fails after its work; and the download of more configuration over plain
// HTTP, which the original evaluates as root, is not done.
func cernvm() Plugin {
	return Plugin{
		Name: "cernvm", Does: "sets up users, software repositories, desktop and services of a CernVM",
		Required: true,
		Keys: []Key{
			{Name: "group_profile", Kind: Text, Meaning: "obsolete", NoEffect: true},
			{Name: "entitlement_key", Kind: Text, Meaning: "stored as CVMFS_ENTITLEMENT_KEY", Secret: true},
			{Name: "contextualization_key", Kind: Text, Meaning: "ID or ID:SECRET of a context of CernVM Online, which is fetched and applied after this one", Secret: true},
			{Name: "contextualization_command", Kind: Text, Meaning: "user:command, run in the background at every boot"},
			{Name: "organisations", Kind: List, Meaning: "organisations whose login profiles are used"},
			{Name: "repositories", Kind: List, Meaning: "CernVM-FS repositories below /cvmfs; names without a dot are of cern.ch"},
			{Name: "extra_repositories", Kind: List, Meaning: "further repositories, each name|server|public key in base64"},
			{Name: "screenres", Kind: Resolution, Meaning: "screen resolution; stored, read by nobody", NoEffect: true},
			{Name: "startxdm", Kind: Bool, Meaning: "boot into the graphical desktop, with edition Desktop"},
			{Name: "edition", Kind: Text, Meaning: "Desktop starts the graphical desktop"},
			{Name: "keyboard", Kind: Text, Meaning: "keyboard layout"},
			{Name: "griduiversion", Kind: Text, Meaning: "stored, read by nobody", NoEffect: true},
			{Name: "config_url", Kind: URL, Meaning: "accepted for the many contexts that have it", NoEffect: true},
			{Name: "proxy", Kind: ProxyList, Meaning: "proxies for the repositories below /cvmfs; the operating system's own are cvmfs_http_proxy"},
			{Name: "services", Kind: List, Meaning: "services to start at every boot"},
			{Name: "shell", Kind: Path, Meaning: "login shell of the users", Default: "/bin/bash"},
			{Name: "auto_login", Kind: Bool, Meaning: "log the first user in to the desktop", Default: "off"},
			{Name: "swap_size", Kind: Size, Meaning: "swap file on the data disk; auto is 2 GiB for each processor, off is none"},
			{Name: "desktop_icons", Kind: Text, Meaning: "icons for new users' desktops: Name,base64 separated by %, ~ for a blank"},
			{Name: "environment", Kind: Assignment, Meaning: "variables of every login"},
			{Name: "users", Kind: Users, Meaning: "accounts as user:group:password; the password may be a hash of crypt(5), empty (made up) or ! (none)", Secret: true},
			{Name: "x509-user", Kind: Text, Meaning: "whose the grid proxy is", Default: "the first user, else root"},
			{Name: "x509-cert-file", Kind: Path, Meaning: "grid proxy to copy from a file"},
			{Name: "x509-cert", Kind: Base64, Meaning: "grid proxy", Secret: true},
			{Name: "eos-user", Kind: Text, Meaning: "whose the EOS mount is", Default: "the first user, else root"},
			{Name: "eos-x509-cert", Kind: Base64, Meaning: "grid proxy for EOS", Secret: true},
			{Name: "eos-readaheadsize", Kind: Integer, Meaning: "bytes EOS reads ahead", Default: "4000000"},
			{Name: "eos-readcachesize", Kind: Integer, Meaning: "bytes of EOS's read cache", Default: "16000000"},
			{Name: "eos-server", Kind: Host, Meaning: "EOS server to mount on /eos; needs a grid proxy"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			run, err := planCernVM(c)
			return errors.Join(err, run.apply(ctx, c))
		},
		EveryBoot: cernvmEveryBoot,
		Last:      cernvmLast,
	}
}

// cernvmPlan is a [cernvm] section that was looked through.
type cernvmPlan struct {
	site, cvmfs  assignments
	environment  []assignment
	repositories []extraRepository
	icons        []icon
	users        []userSpec
	shell        string
	keyboard     string
	desktop      bool
	startX       *bool
	autoLogin    *bool
	proxies      proxyPlan
}

var organisationName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// planCernVM reads every option. What is wrong is in the error, and not in the
// plan.
func planCernVM(c *Call) (cernvmPlan, error) {
	var p problems
	s := c.Section
	plan := cernvmPlan{
		site:  assignments{file: siteConf, secret: s.Get("contextualization_key", "") != ""},
		cvmfs: assignments{file: cvmfsSiteConf, secret: s.Get("entitlement_key", "") != "" || strings.Contains(s.Get("proxy", ""), "@")},
		shell: s.Get("shell", "/bin/bash"),
	}
	plan.store(s)
	if v, _ := s.Lookup("contextualization_command"); v != "" {
		_, _, err := backgroundCommand(v)
		p.add(err)
	}
	organisation := ""
	for _, o := range list(s.Get("organisations", "")) {
		if !organisationName.MatchString(o) {
			p.addf("organisations: %q is not a name", o)
			continue
		}
		if organisation == "" {
			organisation = o
		}
	}
	if !path.IsAbs(plan.shell) || strings.ContainsAny(plan.shell, ": \t,") {
		p.addf("shell: %q is not the path of a program", plan.shell)
		plan.shell = "/bin/bash"
	}
	var err error
	plan.repositories, err = parseExtraRepositories(s.Get("extra_repositories", ""))
	p.add(err)
	plan.icons, err = parseIcons(s.Get("desktop_icons", ""))
	p.add(err)
	plan.environment, err = parseEnvironment(s.Get("environment", ""))
	p.add(err)
	if len(plan.environment) > 0 {
		names := ""
		for _, v := range plan.environment {
			names += "+" + v.name
		}
		plan.site.put("CERNVM_ENVIRONMENT_VARS", names)
	}
	if v, ok := s.Lookup("users"); ok {
		plan.users, err = parseUsers(v, organisation)
		p.add(err)
	}
	if len(plan.users) > 0 {
		plan.site.put("CERNVM_USER", plan.users[0].name)
		plan.site.put("CERNVM_USER_GROUP", plan.users[0].group)
	}
	plan.keyboard = s.Get("keyboard", "")
	if plan.keyboard != "" && !plainWord.MatchString(plan.keyboard) {
		p.addf("keyboard: %q is not a layout", plan.keyboard)
		plan.keyboard = ""
	}
	plan.desktop = s.Get("edition", "") == "Desktop" // Compat: in exactly this case
	plan.startX, err = optionalTruth(s, "startxdm")
	p.add(err)
	plan.autoLogin, err = optionalTruth(s, "auto_login")
	p.add(err)
	_, err = swapSize(c.Root, s.Get("swap_size", "off"))
	p.add(err)
	plan.proxies, err = parseProxies(c, plan.users)
	p.add(err)
	return plan, p.err()
}

// store notes the options that are only written down, in the order of the original.
func (plan *cernvmPlan) store(s Section) {
	for _, o := range []struct {
		key  string
		file *assignments
		name string
	}{
		{"entitlement_key", &plan.cvmfs, "CVMFS_ENTITLEMENT_KEY"},
		{"contextualization_key", &plan.site, "CERNVM_CONTEXTUALIZATION_KEY"},
		{"contextualization_command", &plan.site, "CERNVM_CONTEXTUALIZATION_COMMAND"},
		{"organisations", &plan.site, "CERNVM_ORGANISATION"},
		{"repositories", &plan.cvmfs, "CVMFS_REPOSITORIES"},
		{"screenres", &plan.site, "CERNVM_SCREEN_RES"},
		{"startxdm", &plan.site, "CERNVM_START_XDM"},
		{"edition", &plan.site, "CERNVM_EDITION"},
		{"keyboard", &plan.site, "CERNVM_KEYBOARD"},
		{"griduiversion", &plan.site, "CERNVM_GRID_UI_VERSION"},
		{"proxy", &plan.cvmfs, "CVMFS_HTTP_PROXY"},
		{"services", &plan.site, "CERNVM_SERVICES"},
		{"shell", &plan.site, "CERNVM_USER_SHELL"},
		{"auto_login", &plan.site, "CERNVM_AUTOLOGIN"},
		{"swap_size", &plan.site, "CERNVM_SWAP_SIZE"},
		{"desktop_icons", &plan.site, "CERNVM_DESKTOP_ICONS"},
	} {
		if v, ok := s.Lookup(o.key); ok {
			o.file.put(o.name, unquote(v))
		}
	}
}

func optionalTruth(s Section, key string) (*bool, error) {
	v := s.Get(key, "")
	if v == "" {
		return nil, nil
	}
	b, err := truth(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return &b, nil
}

// apply does what the plan says. Icons come before the users, who get copies.
func (plan *cernvmPlan) apply(ctx context.Context, c *Call) error {
	var p problems
	p.add(plan.cvmfs.write(c.Root))
	p.add(plan.site.write(c.Root))
	p.add(writeEnvironment(c.Root, plan.environment))
	for _, r := range plan.repositories {
		p.add(r.write(c.Root))
	}
	for _, i := range plan.icons {
		p.add(i.write(c.Root))
	}
	if plan.keyboard != "" {
		p.add(setKeyboard(ctx, c.Root, plan.keyboard))
	}
	if len(plan.users) > 0 {
		_, err := makeUsers(ctx, c, plan.users, plan.shell)
		p.add(err)
	}
	if plan.autoLogin != nil {
		user := systemUser(c.Root)
		if len(plan.users) > 0 {
			user = plan.users[0].name
		}
		if *plan.autoLogin && user == "" {
			c.Warn("auto_login: neither the context nor the system names a user to log in")
		} else {
			p.add(setAutoLogin(c.Root, user, *plan.autoLogin))
		}
	}
	p.add(plan.proxies.apply(ctx, c))
	if plan.desktop {
		p.add(setDesktop(ctx, c, plan.startX))
	}
	return p.err()
}

// systemUser returns the user that CernVM's configuration names, "" without one.
//
// Compat: cernvm-config: etc/cernvm/config, whose own default is overridden by what
// an earlier context left.
func systemUser(root *guest.Root) string {
	user := ""
	for _, file := range []string{"/etc/cernvm/default.conf", siteConf} {
		data, err := root.ReadFile(file)
		if err != nil {
			continue
		}
		for _, l := range guest.Lines(data) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(l), "CERNVM_USER="); ok {
				user = unquote(v)
			}
		}
	}
	if !guest.ValidName(user) {
		return ""
	}
	return user
}

// cernvmEveryBoot does what init scripts of the original do early at each boot: the
// proxy and swap.
func cernvmEveryBoot(ctx context.Context, c *Call) error {
	var p problems
	s := c.Section
	if v, ok := s.Lookup("proxy"); ok && v != "" {
		// Compat: an init script of the OS appends its own default at each boot,
		// and the last line wins (cernvm-config: etc/cernvm/cernvm.d/S05*).
		conf := assignments{file: cvmfsSiteConf}
		conf.put("CVMFS_HTTP_PROXY", unquote(v))
		p.add(conf.write(c.Root))
	}
	if err := swapOn(ctx, c.Root, s.Get("swap_size", "off")); err != nil {
		c.Warn("%v", err)
	}
	return p.err()
}

// cernvmLast starts the services and the contextualization command.
//
// Compat: at each boot, when the script has run, too (cernvm-config:
// etc/init.d/cernvm-context, which starts at 95).
func cernvmLast(ctx context.Context, c *Call) error {
	var p problems
	s := c.Section
	for _, name := range list(s.Get("services", "")) {
		// One context serves several operating systems: what one of them lacks is
		// no failure.
		if err := c.Root.Service(ctx, []string{name}, guest.Start); err != nil {
			c.Warn("services: %v", err)
		}
	}
	if v, _ := s.Lookup("contextualization_command"); v != "" {
		p.add(runInBackground(ctx, c.Root, v))
	}
	return p.err()
}

// backgroundCommand reads user:command.
func backgroundCommand(value string) (user, command string, err error) {
	user, command, ok := strings.Cut(value, ":")
	user = strings.TrimSpace(user)
	switch {
	case !ok || strings.TrimSpace(command) == "":
		return "", "", fmt.Errorf("contextualization_command: not of the form user:command")
	case user == "" || strings.Trim(user, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" || user[0] < 'a' || user[0] > 'z':
		return "", "", fmt.Errorf("contextualization_command: %q is not the name of a user", user)
	}
	return user, command, nil
}

// runInBackground starts the contextualization command.
//
// Compat: not as root or a system account: the user id is at least 500
// (cernvm-config: etc/init.d/cernvm-context).
func runInBackground(ctx context.Context, root *guest.Root, value string) error {
	user, command, err := backgroundCommand(value)
	if err != nil {
		return nil // reported when the options were looked through
	}
	acc, ok, err := root.Account(user)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("contextualization_command: there is no user %q", user)
	case acc.UID < 500:
		return fmt.Errorf("contextualization_command: user %q is a system account", user)
	}
	_, err = root.Run(ctx, "su", "-", user, "-c", command+" >/dev/null 2>&1 &")
	return err
}
