package machine_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

// elsewhere is a driver whose guests have addresses of their own, on this
// computer or another one.
type elsewhere struct {
	*qemu.Driver
	address, host string
}

func (e *elsewhere) Addressed(machine.Instance) bool                           { return true }
func (e *elsewhere) Address(context.Context, machine.Instance) (string, error) { return e.address, nil }

func (e *elsewhere) Host(machine.Instance) (string, error) { return e.host, nil }

// TestReach logs in to a machine that no forwarded port leads to.
func TestReach(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	e := &elsewhere{}
	env := machine.Env{Getenv: func(name string) string { return map[string]string{"MICA_QEMU": w.program}[name] }}
	w.Drivers = machine.NewRegistry(env, machine.Factory{Name: qemu.Name, New: func(env machine.Env) machine.Driver {
		e.Driver = qemu.New(env).(*qemu.Driver)
		return e
	}})
	w.create("far")

	if _, err := w.Login(t.Context(), "far", machine.DoSSH); !fail.Is(err, fail.Conflict) {
		t.Errorf("Login before the guest has an address = %v, want a conflict", err)
	}
	brief, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.WaitSSH(brief, "far"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitSSH before the guest has an address = %v, want it to wait", err)
	}

	e.address = "192.0.2.7"
	login, err := w.Login(t.Context(), "far", machine.DoSSH)
	if err != nil || login.Address != e.address || login.Port != 22 || login.Through != "" {
		t.Errorf("Login = %+v, %v; want port 22 of %s", login, err, e.address)
	}

	e.host = "o'brien@100%far.example:2222"
	if err := w.WaitSSH(t.Context(), "far"); err != nil {
		t.Errorf("WaitSSH for a machine of another computer = %v, want no wait", err)
	}
	login, err = w.Login(t.Context(), "far", machine.DoSSH)
	if err != nil || login.Through != e.host {
		t.Fatalf("Login = %+v, %v; want it through %s", login, err, e.host)
	}
	// OpenSSH reads the options as they are meant.
	out, err := exec.CommandContext(t.Context(), tier.Tool(t, "ssh"), append([]string{"-G"}, login.Args(nil)...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh -G: %v\n%s", err, out)
	}
	for _, want := range []string{"hostname 192.0.2.7\n", "port 22\n", `proxycommand ssh -W '[%h]:%p' 'ssh://o'\''brien@100%%far.example:2222'` + "\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("ssh -G does not say %q:\n%s", want, out)
		}
	}
}

// TestThrough has OpenSSH run what Login says, with a program named ssh that
// stands for the way through another computer.
func TestThrough(t *testing.T) {
	program := tier.Tool(t, "ssh")
	key, _ := hostKey(t)
	w := newWorld(t, drivertest.Guest{})
	w.create("far")
	login, err := w.Login(t.Context(), "far", machine.DoSSH)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(login.Key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	port := sshServer(t, key, public)
	login.Address, login.Port, login.Through = "192.0.2.7", 22, "me@far.example"
	bin := t.TempDir()
	way := `#!/bin/bash
[ "$*" = "-W [192.0.2.7]:22 ssh://me@far.example" ] || { echo "asked for $*" >&2; exit 1; }
exec 3<>/dev/tcp/127.0.0.1/` + strconv.Itoa(port) + `
cat <&3 2>/dev/null &
trap "kill $!" EXIT
cat >&3 2>/dev/null
`
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(way), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, login.Args([]string{"true"})...)
	cmd.Env = append(cmd.Environ(), "PATH="+bin+":/usr/bin:/bin")
	cmd.WaitDelay = 10 * time.Second // what the way leaves running must not keep the test
	out, err := cmd.Output()
	if string(out) != "root runs true" {
		t.Errorf("ssh through another computer = %q, %v", out, err)
	}
}
