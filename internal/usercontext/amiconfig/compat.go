package amiconfig

import (
	"context"
	"fmt"
	"log/syslog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
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
	in, ok := p.userData()
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

// amiconfig is the program of that name.
//
// Compat: amiconfig: rpath/amiconfig/lib/flags.py and ami.py: -d, -p, -c FILE,
// -f LIST and their long forms; exit 1 if a plugin failed. Differs: the metadata
// is what this machine's boot found, so --probe asks no network.
func (p program) amiconfig(ctx context.Context, args []string) int {
	var o Options
	probe, config := false, defaultConfig
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(args[i], "=")
		takes := func() bool {
			if inline {
				return true
			}
			if i++; i >= len(args) {
				p.say("amiconfig: error: %s option requires 1 argument", name)
				return false
			}
			value = args[i]
			return true
		}
		switch name {
		case "-d", "--debug":
		case "-p", "--probe":
			probe = true
		case "-c", "--config":
			if !takes() {
				return 2
			}
			config = value
		case "-f", "--force":
			if !takes() {
				return 2
			}
			o.Only = strings.Split(value, ",") // Compat: not trimmed
		case "-h", "--help":
			_, _ = fmt.Fprint(p.out, amiconfigUsage)
			return 0
		default:
			p.say("amiconfig: error: no such option: %s", args[i])
			return 2
		}
	}
	in, ok := p.userData()
	if probe {
		if ok {
			return 0
		}
		return 1
	}
	if config != defaultConfig {
		if _, err := os.Stat(config); err != nil {
			p.say("amiconfig: configuration file %s does not exist", config)
			return 1
		}
	}
	o.Force, o.NoScripts, o.Config = true, true, config
	rep, err := p.compatRun(ctx, in, o)
	if err != nil {
		p.say("amiconfig: %v", err)
		return 1
	}
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

func (p program) compatRun(ctx context.Context, in Input, o Options) (Report, error) {
	options := guest.Options{Dir: p.dir, Live: p.dir == "/", Owners: os.Geteuid() == 0}
	con := &console{p.consoles()}
	p.alive(&options, con)
	return p.run(ctx, options, in, o, nil)
}

// userData finds the context the way the original's programs are told of it, else
// what this machine's boot left.
//
// Differs: no network is asked; the boot has done that.
func (p program) userData() (Input, bool) {
	in, err := readInput(p.dir, "")
	if err != nil {
		p.say("amiconfig: %v", err)
	}
	names := []string{p.env("AMICONFIG_LOCAL_USER_DATA")}
	if dir := strings.TrimPrefix(p.env("AMICONFIG_CONTEXT_URL"), "file:"); path.IsAbs(dir) {
		names = append(names, path.Join(dir, "user-data"))
	}
	for _, name := range names {
		if !path.IsAbs(name) {
			continue
		}
		if data, err := readUserFile(name); err == nil {
			in.UserData = data
			return in, true
		}
	}
	if len(in.UserData) > 0 {
		return in, true
	}
	for _, name := range []string{"/var/lib/amiconfig-online/2007-12-15/user-data", userDataCopy} {
		if data, err := readUserFile(filepath.Join(p.dir, name)); err == nil {
			in.UserData = data
			return in, true
		}
	}
	return in, false
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
