package virtualbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

// killAt makes this test binary a command of its own: VERB N. It dies before
// the Nth time it runs VBoxManage, and with N negative after it.
const killAt = "MICA_TEST_KILL_AT"

// mortal is a runner that dies.
type mortal struct {
	run.Host
	at    int64
	times *atomic.Int64
}

func (m mortal) Run(ctx context.Context, c run.Command) (run.Result, error) {
	n := m.times.Add(1)
	if n == m.at {
		die()
	}
	r, err := m.Host.Run(ctx, c)
	if n == -m.at {
		die()
	}
	return r, err
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

func fleetIn(home, program string, runner run.Runner) *machine.Fleet {
	env := machine.Env{Run: runner, Getenv: func(name string) string { return map[string]string{"MICA_VBOXMANAGE": program}[name] }}
	return &machine.Fleet{
		Home:    machine.Home(home),
		Drivers: machine.NewRegistry(env, machine.Factory{Name: virtualbox.Name, New: virtualbox.New}),
	}
}

func orderOf(name, iso string, share string) machine.Order {
	return machine.Order{Off: true, Spec: machine.Spec{
		Name: name, Driver: virtualbox.Name, MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Image: machine.Image{Path: iso},
		Context: []byte("#!/bin/sh\nexit\n"), Forwards: []machine.Forward{{Guest: 22, Auto: true}},
		Shares: []machine.Share{{Name: "s", Path: share}},
	}}
}

// verbs are what is killed.
var verbs = map[string]func(ctx context.Context, f *machine.Fleet, iso, share string) error{
	"create": func(ctx context.Context, f *machine.Fleet, iso, share string) error {
		_, err := f.Create(ctx, orderOf("m", iso, share))
		return err
	},
	"start": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Start(ctx, "m")
		return err
	},
	"wake": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Start(ctx, "m")
		return err
	},
	"save": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Save(ctx, "m")
		return err
	},
	"power off": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.PowerOff(ctx, "m")
		return err
	},
	"rename": func(ctx context.Context, f *machine.Fleet, _, _ string) error { return f.Rename(ctx, "m", "n") },
	"resize": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Resize(ctx, "m", 128, 2, 100)
		return err
	},
	"clone": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Clone(ctx, "m", "n", nil)
		return err
	},
	"destroy": func(ctx context.Context, f *machine.Fleet, _, _ string) error { return f.Destroy(ctx, "m", true) },
}

// commandToKill runs in the process that is to die.
func commandToKill(what string) int {
	verb, n, _ := strings.Cut(what, "/")
	at, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		return 2
	}
	f := fleetIn(os.Args[1], os.Args[2], mortal{at: at, times: &atomic.Int64{}})
	if err := verbs[verb](context.Background(), f, os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestKilled kills each command before each time it runs VBoxManage, and after.
// Then gc clears what is half made, everything else still works, and nothing of
// anybody else's was touched.
func TestKilled(t *testing.T) {
	tier.Full(t)
	most := map[string]int{"create": 40, "start": 20, "wake": 20, "save": 20, "power off": 20, "destroy": 30, "rename": 30, "resize": 20, "clone": 40} // bounds; each ends at its last step
	for verb := range verbs {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			for n := 1; n <= most[verb]; n++ {
				if !killed(t, verb, n) {
					if n == 1 {
						t.Errorf("%s did not run VBoxManage", verb)
					}
					t.Logf("%s runs VBoxManage %d times", verb, n-1)
					return
				}
				if n%3 == 0 { // mostly the same as before the next one
					killed(t, verb, -n)
				}
			}
			t.Errorf("%s did not end within %d commands", verb, most[verb])
		})
	}
}

// killed reports whether the command came as far as that.
func killed(t *testing.T, verb string, n int) bool {
	t.Helper()
	w := newFake(t, fakevbox.Config{Race: 2})
	dir, share := t.TempDir(), t.TempDir()
	home, iso := filepath.Join(dir, "home"), filepath.Join(dir, "boot.iso")
	if err := os.WriteFile(iso, drivertest.BootISO(drivertest.Guest{}), 0o600); err != nil {
		t.Fatal(err)
	}
	// Somebody else's machine, of the same name, with a disk of its own.
	foreign := filepath.Join(t.TempDir(), "foreign.vdi")
	w.vbox("createvm", "--name", "m", "--ostype", "Linux26_64", "--uuid", "11111111-2222-4333-8444-555555555555", "--basefolder", t.TempDir(), "--register")
	w.vbox("storagectl", "m", "--name", "SATA", "--add", "sata")
	w.vbox("createmedium", "disk", "--filename", foreign, "--size", "8", "--format", "VDI")
	w.vbox("storageattach", "m", "--storagectl", "SATA", "--port", "0", "--device", "0", "--type", "hdd", "--medium", foreign)
	others := func() []string { return fakevbox.Known(w.dir) }
	before := others()

	f := fleetIn(home, w.program, nil)
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s killed at %d: %s: %v", verb, n, what, err)
		}
	}
	if verb != "create" {
		must("Create", verbs["create"](ctx, f, iso, share))
	}
	if verb == "wake" || verb == "save" || verb == "power off" || verb == "destroy" {
		must("Start", verbs["start"](ctx, f, "", ""))
	}
	if verb == "wake" {
		must("Save", verbs["save"](ctx, f, "", ""))
	}
	cmd := exec.CommandContext(ctx, os.Args[0], home, w.program, iso, share)
	cmd.Env = append(os.Environ(), killAt+"="+verb+"/"+strconv.Itoa(n))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	dead := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err != nil && !dead {
		t.Errorf("%s to be killed at %d: %v\n%s", verb, n, err, out)
	}
	for _, sub := range []string{"machines", "cache/boot"} { // gc leaves alone what is young
		entries, _ := os.ReadDir(filepath.Join(home, sub))
		for _, e := range entries {
			old := time.Now().Add(-time.Hour)
			must("making it look old", os.Chtimes(filepath.Join(home, sub, e.Name()), old, old))
		}
	}
	if _, err := f.Sweep(ctx, false); err != nil {
		must("gc", err)
	}
	found := 0
	for _, name := range []string{"m", "n"} {
		m, err := f.Get(ctx, name)
		if fail.Is(err, fail.NotFound) {
			continue
		}
		must("Get", err)
		found++
		if m.State == machine.Incomplete || m.State == machine.Damaged || m.State == machine.Unknown {
			t.Errorf("%s killed at %d: after gc %q is %s: %v", verb, n, name, m.State, m.Err)
		}
		if n%2 == 0 { // it is whole: it can be used
			_, err = f.Start(ctx, name)
			must("Start", err)
			_, err = f.PowerOff(ctx, name)
			must("PowerOff", err)
		}
		must("Destroy", f.Destroy(ctx, name, true))
	}
	if found == 0 && verb != "create" && verb != "destroy" {
		t.Errorf("%s killed at %d: the machine is gone", verb, n)
	}
	if diff := cmp.Diff(before, others()); diff != "" {
		t.Errorf("%s killed at %d: VirtualBox's machines and media (-before +after):\n%s", verb, n, diff)
	}
	if entries, _ := os.ReadDir(filepath.Join(home, "machines")); len(entries) > 0 {
		t.Errorf("%s killed at %d: left behind: %v", verb, n, entries)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("%s killed at %d: %v", verb, n, err)
	}
	return dead
}
