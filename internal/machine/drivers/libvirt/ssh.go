package libvirt

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/run"
)

// sshPipe is a daemon's socket on another computer, through the user's own ssh:
// its configuration, keys, agent, jump hosts and known hosts hold.
type sshPipe struct {
	net.Conn
	host   string
	cancel context.CancelFunc
	ended  chan struct{} // closed when ssh has ended
	err    error         // why; set before ended is closed
}

// relay is what joins its standard streams to the socket over there. It is run
// by sh whatever the login shell is, and holds no single quotes.
func relay(e endpoint) string {
	paths := "/run/libvirt/virtqemud-sock /run/libvirt/libvirt-sock /var/run/libvirt/libvirt-sock"
	if e.session {
		paths = `"$r/virtqemud-sock" "$r/libvirt-sock"`
	}
	helper := "command -v virt-ssh-helper >/dev/null 2>&1 && exec virt-ssh-helper " + e.open + "; "
	if e.socket != "" {
		helper, paths = "", `"`+e.socket+`"`
	}
	return helper + `r="${XDG_RUNTIME_DIR:-$HOME/.cache}/libvirt"; ` +
		"for s in " + paths + `; do [ -S "$s" ] || continue; ` +
		`command -v socat >/dev/null 2>&1 && exec socat - "UNIX-CONNECT:$s"; exec nc -U "$s"; done; ` +
		"echo libvirt does not listen here >&2; exit 3"
}

// sshArgs is ssh's command line. Nobody is asked anything: a machine takes
// several connections, and host keys are to be known before.
func sshArgs(e endpoint) []string {
	args := []string{"-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15", "-o", "ControlPath=none"}
	if e.port != "" {
		args = append(args, "-p", e.port)
	}
	if e.user != "" {
		args = append(args, "-l", e.user)
	}
	return append(args, "--", e.host, "exec sh -c '"+relay(e)+"'")
}

func (d *Driver) dialSSH(e endpoint) (net.Conn, error) {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background()) // as long as the connection
	host := e.host
	if e.user != "" {
		host = e.user + "@" + host
	}
	p := &sshPipe{Conn: near, host: host, cancel: cancel, ended: make(chan struct{})}
	go func() { // ends with ssh, which Close ends
		_, p.err = d.run.Run(ctx, run.Command{Name: "ssh", Args: sshArgs(e), Stdin: far, Stdout: far})
		_ = far.Close()
		close(p.ended)
	}()
	return p, nil
}

// Close ends ssh, which has a moment to end by itself.
func (p *sshPipe) Close() error {
	err := p.Conn.Close()
	select {
	case <-p.ended:
	case <-time.After(time.Second):
		p.cancel()
		<-p.ended
	}
	p.cancel()
	return err
}

// explain says why there was no answer, in ssh's words where it has some. An
// answer of libvirt's explains itself.
func (p *sshPipe) explain(err error) error {
	if errors.As(err, new(rpc.Error)) {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(time.Second): // it may be about to
		return err
	}
	var bad *run.Error
	if !errors.As(p.err, &bad) {
		if p.err != nil {
			return p.err
		}
		return err
	}
	words := strings.TrimSpace(string(bad.Result.Stderr))
	f := fail.New(fail.Refused, "reaching libvirt on %s by ssh: %s", p.host, words)
	const sshItself = 255
	if bad.Result.Code == sshItself {
		return f.Hint("see that 'ssh -o BatchMode=yes %s true' works: the host's key has to be known, and a key or agent has to let you in", p.host)
	}
	return f.Hint("install libvirt there, and virt-ssh-helper (libvirt-clients), socat or nc")
}
