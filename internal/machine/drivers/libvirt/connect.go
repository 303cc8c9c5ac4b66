package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"golang.org/x/sync/singleflight"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/run"
)

const (
	dialPatience   = 30 * time.Second // for a daemon to take a connection, and to start where it does so by itself
	quickPatience  = 30 * time.Second // for an answer that takes no work
	longPatience   = 5 * time.Minute  // for a machine to start or end
	hangPatience   = 10 * time.Second // for what is under way when nobody waits any longer
	askPatience    = 2 * time.Second  // the same, for a question
	patientEnd     = time.Minute      // the same, where it had better end by itself
	linger         = time.Second      // an idle connection is kept for the next call
	sessionTimeout = "120"            // seconds after which a session daemon without work ends, as virsh has it
)

// conn is a connection to a daemon, shared by the calls of a moment.
type conn struct {
	*rpc.Libvirt
	endpoint

	pool  *connections
	pipe  net.Conn // to cut it
	flow  *streams
	users int // guarded by pool.mu
	idle  *time.Timer
}

// connections are the open connections of a driver, by URI.
type connections struct {
	mu    sync.Mutex // guards open, and users and idle of each
	open  map[string]*conn
	dials singleflight.Group // those who wait for one connection share its success or failure
}

// close gives the connection back.
func (c *conn) close() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.users--
	c.pool.rest(c)
}

// rest closes a connection that nobody uses, after a while. p.mu is held.
func (p *connections) rest(c *conn) {
	if c.users > 0 {
		return
	}
	c.idle = time.AfterFunc(linger, func() {
		p.mu.Lock()
		unused := c.users == 0
		if unused && p.open[c.uri] == c {
			delete(p.open, c.uri)
		}
		p.mu.Unlock()
		if unused {
			_ = c.Disconnect()
		}
	})
}

// take returns a live connection to the URI, for one more user, or nil.
func (p *connections) take(uri string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.open[uri]
	if c == nil {
		return nil
	}
	if !c.IsConnected() {
		delete(p.open, uri)
		return nil
	}
	if c.users++; c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	return c
}

// connect returns a connection to the daemon of a URI. The caller closes it.
func (d *Driver) connect(ctx context.Context, uri string) (*conn, error) {
	e, err := parseURI(uri, os.Geteuid())
	if err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("connecting to %s: %w", uri, err)
		}
		if c := d.conns.take(uri); c != nil {
			return c, nil
		}
		dialled := d.conns.dials.DoChan(uri, func() (any, error) { return nil, d.newConn(context.WithoutCancel(ctx), e) })
		select {
		case <-ctx.Done():
		case result := <-dialled:
			if result.Err != nil {
				return nil, result.Err
			}
		}
	}
}

// newConn opens a connection for whoever takes it first.
func (d *Driver) newConn(ctx context.Context, e endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	pipe, err := d.dial(ctx, e)
	if err != nil {
		return err
	}
	flow := newStreams(pipe)
	c := &conn{Libvirt: rpc.NewWithDialer(ready{flow}), endpoint: e, pool: &d.conns, pipe: pipe, flow: flow}
	err = c.call(ctx, dialPatience, "connecting to "+e.uri, func() error { return c.ConnectToURI(rpc.ConnectURI(e.open)) })
	if err != nil {
		if s, ok := pipe.(*sshPipe); ok {
			err = s.explain(err)
		}
		_ = pipe.Close()
		if errors.As(err, new(rpc.Error)) && len(fail.Hints(err)) == 0 {
			err = notLetIn(err)
		}
		return err
	}
	d.conns.mu.Lock()
	defer d.conns.mu.Unlock()
	d.conns.open[e.uri] = c
	d.conns.rest(c)
	return nil
}

// ready hands a connection that is there to the library.
type ready struct{ net.Conn }

func (r ready) Dial() (net.Conn, error) { return r.Conn, nil }

// dial opens the byte stream to a daemon.
func (d *Driver) dial(ctx context.Context, e endpoint) (net.Conn, error) {
	switch e.transport {
	case transportSSH:
		return d.dialSSH(e)
	case transportTLS:
		var opts []dialers.TLSOption
		if e.port != "" {
			opts = append(opts, dialers.UseTLSPort(e.port))
		}
		if e.pki != "" {
			opts = append(opts, dialers.UsePKIPath(e.pki))
		}
		c, err := dialers.NewTLS(e.host, opts...).Dial()
		if err != nil {
			return nil, fail.New(fail.Refused, "connecting to %s: %w", e.uri, err).
				Hint("certificates are looked for in ~/.pki/libvirt and /etc/pki; or use qemu+ssh://")
		}
		return c, nil
	}
	c, err := d.dialLocal(ctx, e)
	if err != nil && e.session && e.socket == "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)) {
		if err := d.spawn(ctx); err != nil {
			return nil, err
		}
		c, err = d.dialLocal(ctx, e)
	}
	if err != nil {
		return nil, noDaemon(e, err)
	}
	return c, nil
}

// sockets are the places where a local daemon listens: that of the QEMU driver
// alone, and that of all drivers in one.
func (d *Driver) sockets(e endpoint) []string {
	if e.socket != "" {
		return []string{e.socket}
	}
	dir := "/run/libvirt"
	if e.session {
		dir = d.sessionDir()
	}
	return []string{filepath.Join(dir, "virtqemud-sock"), filepath.Join(dir, "libvirt-sock")}
}

// sessionDir is where a session daemon keeps its sockets.
func (d *Driver) sessionDir() string {
	if dir := d.getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "libvirt")
	}
	if dir := d.getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "libvirt")
	}
	return filepath.Join(d.getenv("HOME"), ".cache", "libvirt")
}

func (d *Driver) dialLocal(ctx context.Context, e endpoint) (net.Conn, error) {
	var first error
	for _, path := range d.sockets(e) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	return nil, first
}

// daemonPrograms are the session's daemons, in the order in which libvirt's own
// tools choose.
var daemonPrograms = []string{"virtqemud", "libvirtd"}

// inPath finds a program; daemons are in a system folder that is not in every
// user's PATH.
func (d *Driver) inPath(name string) string {
	for dir := range strings.SplitSeq(d.getenv("PATH")+":/usr/sbin:/usr/local/sbin:/sbin", ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); dir != "" && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// daemonProgram finds a daemon.
func (d *Driver) daemonProgram() (string, error) {
	for _, name := range daemonPrograms {
		if path := d.inPath(name); path != "" {
			return path, nil
		}
	}
	return "", fail.New(fail.HostLacks, "libvirt is not installed here: neither %s", strings.Join(daemonPrograms, " nor ")).
		Hint("install it: package libvirt-daemon-system on Debian and Ubuntu, libvirt-daemon-kvm on Fedora and RHEL").
		Hint("or name another computer's in MICA_LIBVIRT_URI, as qemu+ssh://USER@HOST/system")
}

// spawn starts the user's own daemon, which ends by itself when it is idle.
func (d *Driver) spawn(ctx context.Context) error {
	program, err := d.daemonProgram()
	if err != nil {
		return err
	}
	_, err = d.run.Run(ctx, run.Command{Name: program, Args: []string{"--daemon", "--timeout", sessionTimeout}, Timeout: dialPatience})
	if err != nil {
		return fail.New(fail.HostLacks, "starting this user's libvirt: %w", err).Hint("%s --verbose shows more", program)
	}
	return nil
}

func noDaemon(e endpoint, err error) error {
	f := fail.New(fail.HostLacks, "connecting to %s: %w", e.uri, err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return f.Hint("add yourself to the group libvirt ('sudo usermod -aG libvirt $USER'), then log in again").
			Hint("or use your own daemon: MICA_LIBVIRT_URI=%s", sessionURI)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return f.Hint("start it: 'systemctl start libvirtd' (or virtqemud.socket)").
			Hint("or install it: package libvirt-daemon-system on Debian and Ubuntu, libvirt-daemon-kvm on Fedora and RHEL")
	}
	return f
}

// goneError says that the connection ended before the answer came.
type goneError struct{ err error }

func (g *goneError) Error() string { return "libvirt's daemon went away" }
func (g *goneError) Unwrap() error { return g.err }

// call runs calls of the library, which know no context. After ctx has ended,
// what is under way has some seconds to end by itself; then, or when it has taken
// longer than limit, the connection is cut.
func (c *conn) call(ctx context.Context, limit time.Duration, what string, do func() error) error {
	return c.callUntil(ctx, limit, hangPatience, what, do)
}

// callUntil is call with another grace after ctx has ended.
func (c *conn) callUntil(ctx context.Context, limit, grace time.Duration, what string, do func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	done := make(chan error, 1)
	go func() { done <- do() }() // ends when the call does, at the latest when the connection is cut
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case err := <-done:
		return explain(what, err)
	case <-within.Done():
	}
	if ctx.Err() == nil { // it had its time
		grace = 0
	}
	select {
	case err := <-done:
		return explain(what, err)
	case <-time.After(grace):
		_ = c.pipe.Close()
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fail.New(fail.Failed, "%s: libvirt's daemon at %s does not answer within %s", what, c.uri, limit).
		Hint("see whether it works: 'virsh -c %s list'", c.uri)
}

// ask is call for what takes no work.
func (c *conn) ask(ctx context.Context, what string, do func() error) error {
	return c.callUntil(ctx, quickPatience, askPatience, what, do)
}

// is reports whether libvirt answered with an error of that number.
func is(err error, number rpc.ErrorNumber) bool {
	var e rpc.Error
	return errors.As(err, &e) && e.Code == uint32(number)
}

// explain gives the daemon's answers what a person can do about them.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpc.ErrInterrupted), errors.Is(err, syscall.EINVAL), errors.Is(err, io.EOF),
		errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return fail.New(fail.Failed, "%s: %w", what, &goneError{err}).
			Hint("see whether it runs ('systemctl status libvirtd'), and why it ended ('journalctl -u libvirtd'), then try again")
	case is(err, rpc.ErrAuthFailed), is(err, rpc.ErrAuthUnavailable), is(err, rpc.ErrAuthCancelled), is(err, rpc.ErrAccessDenied):
		return notLetIn(fmt.Errorf("%s: %w", what, err))
	case errors.Is(err, rpc.ErrUnsupported), is(err, rpc.ErrNoSupport):
		return fail.New(fail.HostLacks, "%s: this libvirt is too old for it: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// notLetIn is the error of a daemon that answers and says no: it has asked
// polkit, which may be missing.
func notLetIn(err error) error {
	return fail.New(fail.HostLacks, "libvirt does not let this user in: %w", err).
		Hint("add yourself to the group libvirt ('sudo usermod -aG libvirt $USER'), then log in again").
		Hint("where there is no polkit, set auth_unix_rw = \"none\" in libvirtd.conf: the group is then enough").
		Hint("or use your own daemon: MICA_LIBVIRT_URI=%s", sessionURI)
}
