package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Verb is something to do with a service.
type Verb string

// The verbs. Those that start or restart do not wait until the service is up:
// the agent is itself part of the boot, and a service ordered after it would
// wait for it in turn.
const (
	Enable  Verb = "enable" // start it at every boot from now on
	Start   Verb = "start"
	Restart Verb = "restart"
	Reload  Verb = "reload" // read its configuration again, if it is running
)

var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// ErrNoService says that the system has no service of that name.
var ErrNoService = errors.New("no such service")

// Service does the verbs, in order, with the first of the named services that the
// system has (distributions name one service differently). systemd is asked if it
// is the init system, else the tools of SysV init or OpenRC are used.
func (r *Root) Service(ctx context.Context, names []string, verbs ...Verb) error {
	name, err := r.serviceName(names)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range verbs {
		r.Note(Action{Kind: KindService, Target: name, Detail: string(v)})
		if r.options.Pretend {
			continue
		}
		if err := r.service(ctx, name, v); err != nil {
			errs = append(errs, fmt.Errorf("service %q: %s: %w", name, v, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Root) serviceName(names []string) (string, error) {
	for _, name := range names {
		if !validService(name) {
			return "", fmt.Errorf("service %q: not a service name", name)
		}
	}
	if r.options.Pretend && len(names) > 0 {
		return names[0], nil
	}
	for _, name := range names {
		if r.HasService(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("service %q: %w", strings.Join(names, " or "), ErrNoService)
}

func validService(name string) bool {
	return name != "" && len(name) <= 200 && name[0] != '-' && name[0] != '.' && strings.Trim(name,
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@:") == ""
}

// HasService reports whether the system has a service of that name.
func (r *Root) HasService(name string) bool {
	unit := unitName(name)
	for _, dir := range unitDirs {
		if r.Exists(dir + "/" + unit) {
			return true
		}
		if before, _, ok := strings.Cut(unit, "@"); ok && r.Exists(dir+"/"+before+"@.service") {
			return true
		}
	}
	return r.Exists("/etc/init.d/" + name)
}

func unitName(name string) string {
	for _, suffix := range []string{".service", ".socket", ".target", ".timer", ".mount", ".path"} {
		if strings.HasSuffix(name, suffix) {
			return name
		}
	}
	return name + ".service"
}

// Systemd reports whether systemd is the init system.
func (r *Root) Systemd() bool {
	info, err := r.Stat("/run/systemd/system")
	return err == nil && info.IsDir() && r.Has("systemctl")
}

// service hands one verb to the init system there is.
func (r *Root) service(ctx context.Context, name string, v Verb) error {
	var tries [][]string
	switch {
	case r.Systemd():
		switch v {
		case Enable:
			tries = [][]string{{"systemctl", "enable", "--quiet", unitName(name)}}
		case Start, Restart:
			tries = [][]string{{"systemctl", "--no-block", string(v), unitName(name)}}
		case Reload:
			tries = [][]string{{"systemctl", "--no-block", "try-reload-or-restart", unitName(name)}}
		}
	case v == Enable:
		tries = [][]string{{"chkconfig", name, "on"}, {"update-rc.d", name, "defaults"}, {"rc-update", "add", name, "default"}}
	case v == Reload: // a service that is not running is not to be started by this
		tries = [][]string{{"service", name, "reload"}, {"rc-service", "--ifstarted", name, "reload"}}
	default:
		tries = [][]string{{"service", name, string(v)}, {"rc-service", name, string(v)}, {"/etc/init.d/" + name, string(v)}}
	}
	for _, args := range tries {
		if !r.Has(args[0]) {
			continue
		}
		res, err := r.start(ctx, Command{Name: args[0], Args: args[1:]})
		if err != nil {
			return err
		}
		if res.Code == 0 || v == Reload {
			return nil
		}
		lines := Lines(bytes.TrimSpace(res.Output))
		if len(lines) == 0 {
			return fmt.Errorf("%s: exit code %d", args[0], res.Code)
		}
		return fmt.Errorf("%s: exit code %d: %s", args[0], res.Code, lines[len(lines)-1])
	}
	return fmt.Errorf("no program to do it with (systemctl, service): %w", fs.ErrNotExist)
}
