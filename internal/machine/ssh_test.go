package machine_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/tier"
)

// sshServer answers one exec request a connection with the command and the
// user, and exit code 42.
func sshServer(t *testing.T, host ssh.Signer, authorized []byte) int {
	t.Helper()
	want, _, _, _, err := ssh.ParseAuthorizedKey(authorized)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), want.Marshal()) {
			return nil, errors.New("not the machine's key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(conn, config)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func serveSSH(conn net.Conn, config *ssh.ServerConfig) {
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer server.Close()
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			if r.Type != "exec" {
				_ = r.Reply(false, nil)
				continue
			}
			_ = r.Reply(true, nil)
			_, _ = channel.Write([]byte(server.User() + " runs " + string(r.Payload[4:])))
			_, _ = channel.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, 42))
			_ = channel.Close()
		}
	}
}

func hostKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

// TestSSHProgram logs in with OpenSSH's client: to the host whose key the guest
// told, and not to another one on the same port.
func TestSSHProgram(t *testing.T) {
	program := tier.Tool(t, "ssh")
	host, line := hostKey(t)
	w := newWorld(t, boot(stage.Event{Stage: stage.Apply, State: stage.Done, Facts: map[string]string{machine.FactHostKey: line}}))
	o := orderOf("Mixed.Case_1", w.iso)
	o.User = "physicist"
	w.Home = machine.Home(filepath.Join(string(w.Home), `a home, with "spaces", 'quotes' and 100%`))
	if _, err := w.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := w.Follow(t.Context(), o.Spec.Name, func(stage.Event) {}); err != nil {
		t.Fatal(err)
	}
	login, err := w.Login(t.Context(), o.Spec.Name, machine.DoSSH)
	if err != nil || !login.Pinned {
		t.Fatalf("Login = %+v, %v; want a pinned key", login, err)
	}
	public, err := os.ReadFile(login.Key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	try := func(key ssh.Signer) (string, int) {
		login.Port = sshServer(t, key, public)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, login.Args([]string{"echo", "-n", "two words"})...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := try(host); out != "physicist runs echo -n two words" || code != 42 {
		t.Errorf("ssh = %q, exit code %d; want the command run as physicist, exit code 42", out, code)
	}
	other, _ := hostKey(t)
	if out, code := try(other); code != 255 || strings.Contains(out, "runs") {
		t.Errorf("ssh to a host with another key = %q, exit code %d; want a refusal", out, code)
	}
	// The same options must be good for a configuration file.
	config := filepath.Join(t.TempDir(), "config")
	login.Port = sshServer(t, host, public)
	if err := os.WriteFile(config, []byte(login.Config()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "-F", config, "mica-mixed.case_1", "true").CombinedOutput()
	if string(out) != "physicist runs true" {
		t.Errorf("ssh -F = %q, %v", out, err)
	}
}

func TestLoginNeedsARunningMachine(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.create("m")
	if _, err := w.PowerOff(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Login(t.Context(), "m", machine.DoSSH); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("Login to a stopped machine = %v, want a refusal", err)
	}
	if _, err := w.Login(t.Context(), "m", ""); err != nil {
		t.Errorf("Login for a configuration: %v", err)
	}
}
