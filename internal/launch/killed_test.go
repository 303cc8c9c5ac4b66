package launch_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micavm/mica/internal/launch"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/tier"
)

const programName = "cernvm-launch"

// asProgram is the test binary under the program's own name.
func asProgram() {
	p := &launch.Program{
		Version: "9.9", In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, SSH: launch.Exec,
		Drivers: machine.NewRegistry(machine.Env{Getenv: os.Getenv}, machine.Factory{Name: virtualbox.Name, New: virtualbox.New}),
	}
	os.Exit(p.Main(context.Background(), os.Args[1:]))
}

// TestKilled kills create, with a machine of the user's own beside it, at one
// command of VBoxManage after another. Whatever is left, destroy clears it, and
// so does another create.
func TestKilled(t *testing.T) {
	tier.Full(t)
	d := newDesk(t)
	own := t.TempDir()
	d.vboxManage("createvm", "--name", "x", "--ostype", "Linux26_64", "--basefolder", own, "--register")
	d.vboxManage("createmedium", "disk", "--filename", filepath.Join(own, "own.vdi"), "--size", "64", "--format", "VDI")
	platform := func() string {
		return strings.Join([]string{d.vboxManage("list", "vms"), d.vboxManage("list", "hdds"), d.vboxManage("list", "dvds")}, "--\n")
	}
	before := platform()
	for n, at := range []string{"createvm", "storagectl", "modifyvm", "sharedfolder", "createmedium", "storageattach", "startvm"} {
		t.Run(at, func(t *testing.T) {
			d.T = t
			d.configure(fakevbox.Config{Hang: []string{at}})
			_ = d.commands()
			d.killAt(at)
			d.configure(fakevbox.Config{})
			if len(d.records()) != 1 {
				t.Fatalf("there are %d records, want that of the killed command", len(d.records()))
			}
			if r := d.must("list"); r.out != "" {
				t.Errorf("list said %q", r.out)
			}
			if n%2 == 1 {
				d.must("create", "--no-start", "--name", "x", d.path("UD"))
			}
			d.must("destroy", "x")
			if left := d.left(); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if after := platform(); after != before {
				t.Errorf("VirtualBox had\n%s\nhas\n%s", before, after)
			}
		})
	}
	d.T = t
}

// killAt runs create and kills it when VBoxManage hangs at a command.
func (d *desk) killAt(command string) {
	d.Helper()
	self, err := os.Executable()
	if err != nil {
		d.Fatal(err)
	}
	cmd := exec.CommandContext(d.Context(), self, "create", "--name", "x", d.path("UD"))
	cmd.Args[0] = programName
	for name, value := range d.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		d.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for !slices.ContainsFunc(fakevbox.Commands(d.vbox), func(line string) bool { return strings.HasPrefix(line, command) }) {
		if time.Now().After(deadline) {
			d.Errorf("it never came to %s", command)
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with the VBoxManage it waits for
	_ = cmd.Wait()
}
