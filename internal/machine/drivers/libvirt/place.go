package libvirt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

const (
	systemURI   = "qemu:///system"
	sessionURI  = "qemu:///session"
	placeFile   = "libvirt.json"
	placeSchema = 1
	defaultPool = "default"
)

// place says where a machine is. It is written before anything is made there.
type place struct {
	Schema int    `json:"schema"`
	ID     string `json:"id"`
	URI    string `json:"uri"`
	Pool   string `json:"pool,omitempty"` // where its files are volumes; empty: in the folder
}

// placeOf reads the machine's place; false where nothing was ever made.
func placeOf(dir string) (place, bool, error) {
	var p place
	data, err := os.ReadFile(filepath.Join(dir, placeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err == nil && (p.Schema != placeSchema || p.ID == "" || p.URI == "") {
		err = errors.New("it is not complete, or of another version of mica")
	}
	if err != nil {
		return p, false, fmt.Errorf("reading %s: %w", filepath.Join(dir, placeFile), err)
	}
	return p, true, nil
}

func (p place) save(dir string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, placeFile), append(data, '\n'), 0o600)
}

// endpoint is how to reach a daemon, and what to ask of it.
type endpoint struct {
	uri       string // as the user wrote it
	open      string // what the daemon is asked to open
	transport string // unix, ssh or tls
	user      string
	host      string
	port      string
	socket    string // a path the URI names
	pki       string // a folder with certificates the URI names
	session   bool
}

// remote reports whether the daemon is on another computer, or may be.
func (e endpoint) remote() bool { return e.transport != transportUnix }

const (
	transportUnix = "unix"
	transportSSH  = "ssh"
	transportTLS  = "tls"
)

// parseURI reads the URIs of libvirt's own tools, as far as they make sense
// here. uid is the caller's: root has no session.
func parseURI(text string, uid int) (endpoint, error) {
	bad := func(format string, args ...any) (endpoint, error) {
		return endpoint{}, fail.New(fail.Usage, "libvirt URI %q: "+format, append([]any{text}, args...)...).
			Hint("use qemu:///system, qemu:///session, qemu+ssh://USER@HOST/system or qemu+tls://HOST/system")
	}
	u, err := url.Parse(text)
	if err != nil {
		return bad("%w", errors.Unwrap(err))
	}
	kind, transport, named := strings.Cut(u.Scheme, "+")
	if kind != "qemu" {
		return bad("only qemu is supported, not %q", kind)
	}
	if !named {
		transport = transportUnix
		if u.Host != "" {
			transport = transportTLS
		}
	}
	e := endpoint{uri: text, transport: transport, user: u.User.Username(), host: u.Hostname(), port: u.Port()}
	switch transport {
	case transportUnix:
		if e.host != "" {
			return bad("a local socket has no host")
		}
	case transportSSH, transportTLS:
		if e.host == "" {
			return bad("the host is missing")
		}
		if strings.HasPrefix(e.host, "-") || strings.HasPrefix(e.user, "-") {
			return bad("a host or user may not start with '-'")
		}
	default:
		return bad("unknown transport %q", transport)
	}
	switch u.Path {
	case "/system":
	case "/session":
		e.session = e.remote() || uid != 0
		if transport == transportTLS {
			return bad("sessions are not reached by TLS")
		}
	default:
		return bad("the path is neither /system nor /session")
	}
	for key, values := range u.Query() {
		switch {
		case key == "socket" && transport != transportTLS:
			e.socket = values[0]
		case key == "pkipath" && transport == transportTLS:
			e.pki = values[0]
		default:
			return bad("unknown parameter %q", key)
		}
	}
	if e.socket != "" && !filepath.IsAbs(e.socket) || strings.ContainsAny(e.socket, "'\n") {
		return bad("the socket is not an absolute path")
	}
	e.open = systemURI
	if e.session {
		e.open = sessionURI
	}
	return e, nil
}

// options are the machine's own settings for this driver.
type options struct {
	uri    string
	pool   string // empty: the driver chooses
	shares string // 9p or virtiofs
}

const (
	shares9P     = "9p"
	sharesVirtio = "virtiofs"
)

// optionHelp says what each option is for.
func optionHelp() map[string]string {
	return map[string]string{
		"pool":   "the storage pool its files are in; else the machine's folder where QEMU can use it, or " + defaultPool,
		"shares": "how folders are shared: 9p (the default), or virtiofs, which is faster and rules out saved memory",
		"uri":    "the daemon; else MICA_LIBVIRT_URI or LIBVIRT_DEFAULT_URI",
	}
}

func (d *Driver) options(s machine.Spec) (options, error) {
	o := options{uri: d.uri, shares: shares9P}
	oneOf := func(key, value string, known ...string) error {
		for _, k := range known {
			if value == k {
				return nil
			}
		}
		return fail.New(fail.Usage, "option %s=%s", key, value).Hint("use %s", strings.Join(known, " or "))
	}
	for key, value := range s.Options {
		var err error
		switch key {
		case "uri":
			o.uri = value
		case "pool":
			o.pool = value
		case "shares":
			o.shares = value
			err = oneOf(key, value, shares9P, sharesVirtio)
		default:
			err = fail.New(fail.Usage, "driver %s has no option %q", Name, key).
				Hint("its options are %s", strings.Join(slices.Sorted(maps.Keys(optionHelp())), ", "))
		}
		if err != nil {
			return o, err
		}
	}
	switch s.Display {
	case "", "none", machine.DisplayVNC:
	default:
		return o, fail.New(fail.Usage, "driver %s has no display %q", Name, s.Display).
			Hint("use none, or vnc and any VNC viewer")
	}
	if s.Clipboard && s.Display != machine.DisplayVNC {
		return o, fail.New(fail.Usage, "a clipboard is shared through a display").Hint("add --display vnc")
	}
	switch s.Accel {
	case "", accelAuto, accelKVM, accelTCG:
	default:
		return o, fail.New(fail.Usage, "unknown --accel %q", s.Accel).Hint("use auto, kvm or tcg")
	}
	return o, nil
}
