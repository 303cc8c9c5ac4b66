package libvirt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// killAt makes this test binary a command of its own that is killed at a step.
const killAt = "MICA_TEST_LIBVIRT_KILL"

func TestMain(m *testing.M) {
	if step := os.Getenv(killAt); step != "" {
		fmt.Fprintln(os.Stderr, "not killed:", die(step))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// die does what its arguments say, a method and a spec, and is killed on the way.
func die(step string) error {
	var s machine.Spec
	if err := json.Unmarshal([]byte(os.Args[2]), &s); err != nil {
		return err
	}
	s.Dir, s.Context = os.Args[3], []byte("context")
	d := libvirt.Real()
	libvirt.Reached(d, func(at string) {
		if at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	})
	if after, err := time.ParseDuration(step); err == nil { // in the middle of whatever it does then
		time.AfterFunc(after, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	}
	ctx, i := context.Background(), machine.Instance{Spec: s}
	switch os.Args[1] {
	case "create":
		_, err := d.Create(ctx, s)
		return err
	case "start":
		return d.Start(ctx, i)
	case "save":
		return d.(machine.Saver).Save(ctx, i)
	case "destroy":
		return d.Destroy(ctx, i)
	case "stop":
		return d.Stop(ctx, i, machine.PowerOff)
	case "fleet":
		f := fleet(os.Args[3], d)
		_, err := f.Create(ctx, fleetOrder(filepath.Join(os.Args[3], "boot.iso")))
		return err
	}
	return errors.New("unknown method")
}

func (g *guest) killed(step, method string) {
	g.Helper()
	spec, err := json.Marshal(g.Spec)
	g.must("encoding", err)
	cmd := exec.Command(os.Args[0], method, string(spec), g.Spec.Dir)
	cmd.Env = append(os.Environ(), killAt+"="+step)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if _, terr := time.ParseDuration(step); terr == nil && strings.Contains(string(out), "not killed: <nil>") {
		return // it was faster
	}
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		g.Fatalf("%s to be killed at %q: %v\n%s", method, step, err, out)
	}
}

// traces are what there is at libvirt, in its folders and in the machine's.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	doms, _, err := dial(t).ConnectListAllDomains(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, dom := range doms {
		all = append(all, "domain "+dom.Name)
	}
	patterns := []string{"/var/lib/libvirt/images/*", "/var/lib/libvirt/qemu/save/*", "/var/lib/libvirt/qemu/snapshot/*/*", "/etc/libvirt/qemu/*.xml"}
	for _, pattern := range append(patterns, filepath.Join(dir, "*"), filepath.Join(dir, ".*")) {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// TestBesideKilled kills the process at each step, and sees that Destroy then
// leaves everything as it was, and a neighbour alone.
func TestBesideKilled(t *testing.T) {
	beside(t, "system", "pool")
	neighbour := made(t, nil)
	neighbour.start()
	for method, steps := range map[string][]string{
		"create":  {"placed", "files", "defined"},
		"start":   {"before start", "200ms", "started"},
		"save":    {"200ms", "saved"},
		"stop":    {"50ms"},
		"destroy": {"50ms", "off", "undefined", "files removed"},
	} {
		for _, step := range steps {
			t.Run(method+" at "+step, func(t *testing.T) {
				s := order(t, nil)
				before := traces(t, s.Dir)
				g := &guest{t, libvirt.Real(), machine.Instance{Spec: s}}
				if method != "create" {
					_, err := g.d.Create(t.Context(), s)
					g.must("Create", err)
				}
				if method != "create" && method != "start" {
					g.start()
				}
				g.killed(step, method)
				switch method + " at " + step {
				case "start at before start":
					g.state(machine.Stopped)
					g.start() // it can go on
					g.says("hello")
				case "start at started":
					g.state(machine.Running)
				case "save at saved":
					g.state(machine.Saved)
				case "create at defined":
					if _, err := g.d.Create(t.Context(), s); err == nil {
						t.Error("Create again = nil, want a conflict")
					}
				}
				g.must("Destroy", g.d.Destroy(t.Context(), g.Instance))
				g.state(machine.Absent)
				if diff := cmp.Diff(before, traces(t, s.Dir)); diff != "" {
					t.Errorf("traces (-before +after):\n%s", diff)
				}
				neighbour.state(machine.Running)
			})
		}
	}
}

// fleet is the machines of a home, all of this driver.
func fleet(home string, d machine.Driver) *machine.Fleet {
	made := machine.Factory{Name: libvirt.Name, New: func(machine.Env) machine.Driver { return d }}
	return &machine.Fleet{Home: machine.Home(home), Drivers: machine.NewRegistry(machine.Env{}, made)}
}

func fleetOrder(iso string) machine.Order {
	return machine.Order{Spec: machine.Spec{
		Name: "m", Driver: libvirt.Name, MemoryMiB: 64, CPUs: 1, DiskMiB: 64,
		Image: machine.Image{Path: iso}, Context: []byte("#!/bin/sh\nexit\n"),
		Forwards: []machine.Forward{{Guest: 22, Auto: true}},
	}}
}

// TestBesideSwept kills a whole create at each step of the driver's, and sees
// that gc, and destroy where it was far enough, leave everything as it was.
func TestBesideSwept(t *testing.T) {
	beside(t, "system", "pool")
	for _, step := range []string{"placed", "files", "defined", "before start", "started"} {
		t.Run(step, func(t *testing.T) {
			home := t.TempDir()
			iso := filepath.Join(home, "boot.iso")
			if err := os.WriteFile(iso, drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600); err != nil {
				t.Fatal(err)
			}
			machines := filepath.Join(home, "machines")
			before := traces(t, machines)
			g := &guest{T: t, Instance: machine.Instance{Spec: machine.Spec{Dir: home}}}
			g.killed(step, "fleet")
			f := fleet(home, libvirt.Real())
			_, err := f.Sweep(t.Context(), false)
			g.must("Sweep", err)
			if err := f.Destroy(t.Context(), "m", true); err != nil && !fail.Is(err, fail.NotFound) {
				t.Errorf("Destroy: %v", err)
			}
			if diff := cmp.Diff(before, traces(t, machines)); diff != "" {
				t.Errorf("traces (-before +after):\n%s", diff)
			}
		})
	}
}
