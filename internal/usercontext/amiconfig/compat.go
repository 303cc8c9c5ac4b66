package amiconfig

import (
	"context"
	"errors"
	"fmt"
	"log/syslog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/online"
)

// amiconfigSh is the program of that name: amiconfig.sh [user|hepix] [--force].
//
// Compat: amiconfig: hepix/commands/amiconfig.sh. Exit 2 without a mode, 1 without
// user data, 0 when it was done before.
func (p program) amiconfigSh(ctx context.Context, args []string) int {
	mode, force := "", false
	for _, a := range args {
		switch {
		case a == "--force":
			force = true
		case mode == "" && !strings.HasPrefix(a, "-"):
			mode = a
		}
	}
	if mode != "user" && mode != "hepix" {
		p.shout("Invalid mode: must be either user or hepix")
		return 2
	}
	done := map[string]string{"user": userDone, "hepix": hepixDone}[mode]
	root, err := p.open(guest.Options{Dir: p.dir, Pretend: true})
	if err != nil {
		p.shout(err.Error())
		return 1
	}
	before := root.Exists(done)
	_ = root.Close()
	if before && !force {
		return 0
	}
	in, ok := p.input(ctx, "")
	if !ok {
		p.shout("No user data found")
		return 1
	}
	options := Options{Force: true}
	if mode == "hepix" {
		options.Only = []string{"hepix"}
	}
	rep, err := p.compatRun(ctx, in, options)
	if err != nil {
		p.shout(err.Error())
		return 1
	}
	for _, w := range rep.Warnings {
		p.shout(w)
	}
	for _, s := range rep.Scripts {
		p.shout(s.String())
	}
	if root, err := p.open(guest.Options{Dir: p.dir}); err == nil { // no runner: it only writes the marker
		if err := root.WriteState(done, nil); err != nil {
			p.shout(err.Error())
		}
		_ = root.Close()
	}
	return 0
}

// amiconfig is the program of that name: -d, -p, -c FILE, -f LIST and their long
// forms; exit 1 if a plugin failed. It runs no script and leaves no marker.
//
// Compat: amiconfig: rpath/amiconfig/lib/flags.py and ami.py.
//
// Differs: the metadata is what this machine's boot found, so --probe asks no
// network; a system without a list of plugins of its own is no error, but one that
// was named must be there; --debug does nothing, since a plugin that fails does
// not stop the others.
func (p program) amiconfig(ctx context.Context, args []string) int {
	flags, err := parseFlags(args)
	switch {
	case err != nil:
		p.say("Usage: amiconfig [options]\n\namiconfig: error: %v", err)
		return 2
	case flags.help:
		_, _ = fmt.Fprint(p.out, amiconfigUsage)
		return 0
	}
	in, ok := p.input(ctx, "AMICONFIG_LOCAL_USER_DATA")
	if flags.probe {
		if ok {
			return 0
		}
		return 1
	}
	if flags.config != "" {
		if _, err := os.Stat(flags.config); err != nil {
			p.say("amiconfig: configuration file %s does not exist", flags.config)
			return 1
		}
	}
	o := Options{Force: true, NoScripts: true, NoMarker: true, Config: flags.config, Only: flags.only}
	rep, err := p.compatRun(ctx, in, o)
	if err != nil {
		p.say("amiconfig: %v", err)
		return 1
	}
	return p.results(rep)
}

// results tells of each plugin the way amiconfig does, and returns its exit code.
func (p program) results(rep Report) int {
	log, err := syslog.New(syslog.LOG_INFO|syslog.LOG_DAEMON, "amiconfig")
	if err == nil {
		defer log.Close() //nolint:errcheck // nothing to lose
	}
	code := 0
	for _, r := range rep.Plugins {
		message := strings.ReplaceAll(r.Message, "\n", "; ")
		if log != nil {
			_ = log.Info(fmt.Sprintf("plugin: %s, rc: %d, msg: %s", r.Name, r.Code, message))
		}
		if message != "" && r.Code != CodeDisabled {
			p.say("%s", message)
		}
		if r.Code == CodeMetadata || r.Code == CodeFailed {
			code = 1
		}
	}
	return code
}

// flags are the options of amiconfig.
type flags struct {
	help, probe bool
	config      string   // "" = the usual one
	only        []string // plugins
}

// parseFlags reads options as Python's optparse does: values in the same or the
// next argument, short ones put together, long ones cut short; what is no option
// is passed over.
func parseFlags(args []string) (flags, error) {
	var f flags
	set := func(name byte, shown, value string) error {
		switch name {
		case 'h':
			f.help = true
		case 'd':
		case 'p':
			f.probe = true
		case 'c':
			f.config = value
		case 'f':
			f.only = strings.Split(value, ",") // Compat: not trimmed
		default:
			return fmt.Errorf("no such option: %s", shown)
		}
		return nil
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		next := func(shown string) (string, error) {
			if i++; i >= len(args) {
				return "", fmt.Errorf("%s option requires an argument", shown)
			}
			return args[i], nil
		}
		name, value, inline := strings.Cut(arg, "=")
		switch {
		case arg == "--":
			return f, nil
		case strings.HasPrefix(arg, "--"):
			full, err := longOption(name)
			if err != nil {
				return flags{}, err
			}
			name = "--" + full
			takes := full == "config" || full == "force"
			if inline && !takes {
				return flags{}, fmt.Errorf("%s option does not take a value", name)
			}
			if takes && !inline {
				if value, err = next(name); err != nil {
					return flags{}, err
				}
			}
			if err := set(full[0], name, value); err != nil {
				return flags{}, err
			}
		case len(arg) > 1 && arg[0] == '-':
			for at := 1; at < len(arg); at++ {
				shown, value := "-"+arg[at:at+1], ""
				if arg[at] == 'c' || arg[at] == 'f' {
					if value = arg[at+1:]; value == "" {
						var err error
						if value, err = next(shown); err != nil {
							return flags{}, err
						}
					}
					at = len(arg)
				}
				if err := set(shown[1], shown, value); err != nil {
					return flags{}, err
				}
			}
		}
	}
	return f, nil
}

// longOption returns the long option that a name is, or begins.
func longOption(name string) (string, error) {
	var found []string
	for _, full := range []string{"config", "debug", "force", "help", "probe"} {
		if strings.HasPrefix(full, name[2:]) {
			found = append(found, full)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no such option: %s", name)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("ambiguous option: %s (--%s?)", name, strings.Join(found, ", --"))
}

const amiconfigUsage = `Usage: amiconfig [options]

Options:
  -h, --help            show this help message and exit
  -d, --debug           accepted, does nothing
  -p, --probe           exit with 0 if there is user data, 1 if not
  -c FILE, --config=FILE
                        list of plugins of this system
  -f LIST, --force=LIST
                        run these plugins only, separated by commas
`

// cernvmOnline is the program cernvm-online.sh: site, apply ID[:SECRET] and pair
// PIN [SECRET] fetch a context and apply it, whatever was applied before.
//
// Compat: cernvm-online-guest: usr/sbin/cernvm-online.sh. Differs: login, which asks
// for the pairing number on a console of its own, is not there; handlers in
// /etc/cernvm/online.d, which get further values of the context, are not called.
func (p program) cernvmOnline(ctx context.Context, args []string) int {
	const usage = "Usage: cernvm-online.sh site | apply ID[:SECRET] | pair PIN [SECRET]"
	mode := ""
	if len(args) > 0 {
		mode = args[0]
	}
	var key online.Key
	var err error
	switch {
	case mode == "site" && len(args) == 1:
		text, found := p.siteKey()
		if !found {
			return 0
		}
		key, err = online.ParseKey(text)
	case mode == "apply" && len(args) == 2:
		key, err = online.ParseKey(args[1])
	case mode == "pair" && len(args) == 2:
		key, err = online.ParsePin(args[1], "")
	case mode == "pair" && len(args) == 3:
		key, err = online.ParsePin(args[1], args[2])
	default:
		p.say("%s", usage)
		return 2
	}
	if err != nil {
		p.say("cernvm-online.sh: %v", err)
		return 2
	}
	in, err := readInput(p.dir, "")
	if err != nil {
		p.say("cernvm-online.sh: %v", err)
	}
	rep, err := p.compatRun(ctx, in, Options{Force: true, NoMarker: true, Online: key})
	if err != nil {
		p.say("cernvm-online.sh: %v", err)
		return 1
	}
	return p.results(rep)
}

// siteKey returns the key that the context left in CernVM's configuration.
func (p program) siteKey() (string, bool) {
	data, err := os.ReadFile(filepath.Join(p.dir, "etc/cernvm/site.conf"))
	if err != nil {
		return "", false
	}
	for _, a := range usercontext.ParseAssignments(data) {
		if a.Name == "CERNVM_CONTEXTUALIZATION_KEY" && a.Value != "" {
			return a.Value, true
		}
	}
	return "", false
}

func (p program) compatRun(ctx context.Context, in Input, o Options) (Report, error) {
	options := guest.Options{Dir: p.dir, Live: p.dir == "/", Owners: os.Geteuid() == 0}
	con := &console{p.consoles()}
	p.alive(&options, con)
	return p.run(ctx, options, in, o, nil)
}

// input finds the context the way the original's programs do: local names the
// variable that may hold a file, "" for none; then the place that
// AMICONFIG_CONTEXT_URL names; what was fetched from CernVM Online; and what this
// machine's boot left.
//
// Compat: amiconfig: hepix/commands/amiconfig.sh, rpath/amiconfig/instancedata.py.
// Differs: the metadata services are not asked, the boot has done that; an address
// is fetched with its certificate verified, or from this machine or its link alone.
func (p program) input(ctx context.Context, local string) (Input, bool) {
	in, err := readInput(p.dir, "")
	if err != nil {
		p.say("amiconfig: %v", err)
	}
	var files []string
	if name := p.env(local); local != "" && path.IsAbs(name) {
		files = append(files, name)
	}
	place := p.contextURL()
	if dir := strings.TrimPrefix(place, "file:"); path.IsAbs(dir) {
		files = append(files, path.Join(strings.TrimPrefix(dir, "//"), "user-data"))
	}
	for _, name := range files {
		if data, err := readUserFile(name); err == nil {
			in.UserData, in.Extra = data, nil
			return in, true
		}
	}
	if strings.Contains(place, "://") && !strings.HasPrefix(place, "file:") {
		data, err := p.download(ctx, place)
		if err == nil {
			in.UserData, in.Extra = data, nil
			return in, true
		}
		p.say("amiconfig: %v", err)
	}
	if data, err := readUserFile(filepath.Join(p.dir, onlineCopy)); err == nil {
		in.UserData, in.Extra = data, nil
		return in, true
	}
	if len(in.UserData) > 0 || len(in.Extra) > 0 {
		return in, true
	}
	if data, err := readUserFile(filepath.Join(p.dir, userDataCopy)); err == nil {
		in.UserData = data
		return in, true
	}
	return in, false
}

// contextURL is AMICONFIG_CONTEXT_URL, else what the system's settings say.
func (p program) contextURL() string {
	const name = "AMICONFIG_CONTEXT_URL"
	if v := p.env(name); v != "" {
		return v
	}
	data, err := os.ReadFile(filepath.Join(p.dir, "etc/sysconfig/amiconfig"))
	if err != nil {
		return ""
	}
	value := ""
	for _, a := range usercontext.ParseAssignments(data) {
		if a.Name == name {
			value = a.Value
		}
	}
	return value
}

// customCopy keeps what was downloaded from AMICONFIG_CONTEXT_URL.
const customCopy = amiDir + "/custom/user-data"

// download fetches user-data below an address, twice if need be, and keeps it.
func (p program) download(ctx context.Context, place string) ([]byte, error) {
	u, err := url.Parse(place)
	if err != nil || u.Host == "" || u.Scheme != "https" && !near(u) {
		return nil, errors.New("AMICONFIG_CONTEXT_URL is no directory and no https address")
	}
	options := guest.Options{Dir: p.dir}
	p.alive(&options, nil)
	options.Runner = nil
	root, err := p.open(options)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only a directory handle
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		data, err := get(ctx, root, u.JoinPath("user-data"))
		cancel()
		if err == nil && len(data) > usercontext.MaxSize {
			err = usercontext.ErrTooLarge
		}
		if err == nil {
			return data, root.WriteState(customCopy, data)
		}
		if try == 2 {
			return nil, err
		}
	}
}

func get(ctx context.Context, root *guest.Root, u *url.URL) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	return root.HTTP(ctx, request)
}

// near reports whether an address is of this machine or its link, which nobody else
// answers for.
func near(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && u.Scheme == "http" && (ip.IsLoopback() || ip.IsLinkLocalUnicast())
}

// shout says something the way amiconfig.sh does: to syslog, or with AMILOGECHO
// to standard output.
func (p program) shout(text string) {
	text = strings.ReplaceAll(text, "\n", "; ")
	if v := p.env("AMILOGECHO"); v != "" && v != "0" {
		_, _ = fmt.Fprintf(p.out, ":: %s\n", text)
		return
	}
	if log, err := syslog.New(syslog.LOG_INFO|syslog.LOG_DAEMON, "amiconfig.sh"); err == nil {
		_ = log.Info(text)
		_ = log.Close()
	}
}
