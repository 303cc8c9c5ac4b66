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

	rpc "github.com/digitalocean/go-libvirt"
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
	case "snapshot":
		return d.(machine.Snapshotter).Snapshot(ctx, i, "s")
	case "revert":
		return d.(machine.Snapshotter).Revert(ctx, i, "s")
	case "change":
		_, err := d.(machine.Changer).Change(ctx, i, other(s))
		return err
	}
	f := fleet(os.Args[3], d)
	switch os.Args[1] {
	case "fleet create":
		_, err := f.Create(ctx, fleetOrder(filepath.Join(os.Args[3], "boot.iso")))
		return err
	case "fleet import":
		o, err := applianceOrder(ctx, filepath.Join(os.Args[3], "boot.ova"))
		if err == nil {
			_, err = f.Create(ctx, o)
		}
		return err
	case "fleet destroy":
		return f.Destroy(ctx, "m", true)
	}
	return errors.New("unknown method")
}

// other is a machine that has changed in all ways there are but for its folder.
func other(s machine.Spec) machine.Spec {
	s.Name, s.MemoryMiB, s.CPUs, s.DiskMiB = "changed", 96, 2, 96
	s.Shares = []machine.Share{{Name: "shared-folder", Path: os.TempDir()}}
	s.Context, s.PublicKeys = []byte("#!/bin/sh\nexit\n"), []string{"ssh-ed25519 AAAA test"}
	return s
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
	patterns := []string{"/var/lib/libvirt/images/*", "/var/lib/libvirt/qemu/save/*", "/var/lib/libvirt/qemu/snapshot/*/*", "/var/lib/libvirt/qemu/nvram/*", "/etc/libvirt/qemu/*.xml"}
	for _, pattern := range append(patterns, filepath.Join(dir, "*"), filepath.Join(dir, ".*")) {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// somebody defines a domain of the machines' name that is not Mica's, with a
// disk in the pool, and returns what sees whether it is as it was.
func somebody(t *testing.T, name string) (untouched func(*testing.T)) {
	t.Helper()
	l := dial(t)
	disk := filepath.Join("/var/lib/libvirt/images", name+".img")
	if err := os.WriteFile(disk, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	dom, err := l.DomainDefineXML(`<domain type='qemu'><name>` + name + `</name><memory unit='MiB'>64</memory>
		<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='disk'>
		<source file='` + disk + `'/><target dev='vda' bus='virtio'/></disk></devices></domain>`)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(l.DomainUndefine(dom), os.Remove(disk)) })
	look := func(t *testing.T) string {
		t.Helper()
		doc, err := l.DomainGetXMLDesc(dom, rpc.DomainXMLInactive)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		return doc + string(content)
	}
	was := look(t)
	return func(t *testing.T) {
		t.Helper()
		if diff := cmp.Diff(was, look(t)); diff != "" {
			t.Errorf("somebody's domain %s (-before +after):\n%s", name, diff)
		}
	}
}

// TestBesideKilled kills the process at each step, and sees that Destroy then
// leaves everything as it was, and a neighbour and somebody's domain alone.
func TestBesideKilled(t *testing.T) {
	beside(t, "killed")
	untouched := somebody(t, "g")
	neighbour := made(t, nil)
	neighbour.start()
	for method, steps := range map[string][]string{
		"create":   {"placed", "files", "defined"},
		"start":    {"before start", "200ms", "started"},
		"save":     {"200ms", "saved"},
		"stop":     {"50ms"},
		"destroy":  {"50ms", "off", "undefined", "files removed"},
		"snapshot": {"100ms", "snapshot"},
		"revert":   {"100ms", "reverted"},
		"change":   {"medium", "grown", "renamed"},
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
				switch method {
				case "save", "stop", "destroy", "snapshot", "revert":
					g.start()
				}
				if method == "revert" {
					g.must("Snapshot", g.d.(machine.Snapshotter).Snapshot(t.Context(), g.Instance, "s"))
					g.off()
				}
				g.killed(step, method)
				g.goesOn(method + " at " + step)
				g.must("Destroy", g.d.Destroy(t.Context(), g.Instance))
				g.state(machine.Absent)
				if diff := cmp.Diff(before, traces(t, s.Dir)); diff != "" {
					t.Errorf("traces (-before +after):\n%s", diff)
				}
				neighbour.state(machine.Running)
				untouched(t)
			})
		}
	}
}

// goesOn sees what can be done with a machine after its command was killed.
func (g *guest) goesOn(after string) {
	g.Helper()
	snap := g.d.(machine.Snapshotter)
	switch {
	case after == "start at before start":
		g.state(machine.Stopped)
		g.start()
		g.says("hello")
	case after == "start at started":
		g.state(machine.Running)
	case after == "save at saved", after == "revert at reverted":
		if after == "save at saved" {
			g.state(machine.Saved)
		}
		g.start()
		g.state(machine.Running)
	case after == "create at defined":
		if _, err := g.d.Create(g.Context(), g.Spec); err == nil {
			g.Error("Create again = nil, want a conflict")
		}
	case after == "snapshot at snapshot":
		if all, err := snap.Snapshots(g.Context(), g.Instance); err != nil || len(all) != 1 {
			g.Errorf("Snapshots = %+v, %v; want that one", all, err)
		}
		g.state(machine.Running)
	case strings.HasPrefix(after, "change at "):
		i, err := g.d.(machine.Changer).Change(g.Context(), g.Instance, other(g.Spec))
		g.must("Change again", err)
		g.Instance = i
		facts, err := g.d.(machine.Describer).Describe(g.Context(), g.Instance)
		if err != nil || !strings.HasPrefix(facts["domain"], "mica-changed-") {
			g.Errorf("Describe = %v, %v; want the new name", facts, err)
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

// TestBesideSwept kills whole commands at each step of the driver's, and sees
// that gc, and destroy where it was far enough, leave everything as it was.
func TestBesideSwept(t *testing.T) {
	beside(t, "killed", "pool")
	untouched := somebody(t, "m")
	for command, steps := range map[string][]string{
		"create":  {"placed", "files", "defined", "before start", "started"},
		"import":  {"placed", "converted", "files", "defined"},
		"destroy": {"off", "undefined", "files removed"},
	} {
		for _, step := range steps {
			t.Run(command+" at "+step, func(t *testing.T) {
				home := t.TempDir()
				iso := filepath.Join(home, "boot.iso")
				if err := os.WriteFile(iso, drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600); err != nil {
					t.Fatal(err)
				}
				machines := filepath.Join(home, "machines")
				before := traces(t, machines)
				f := fleet(home, libvirt.Real())
				switch command {
				case "import":
					appliance(t, filepath.Join(home, "boot.ova"))
				case "destroy":
					if _, err := f.Create(t.Context(), fleetOrder(iso)); err != nil {
						t.Fatal(err)
					}
				}
				g := &guest{T: t, Instance: machine.Instance{Spec: machine.Spec{Dir: home}}}
				g.killed(step, "fleet "+command)
				_, err := f.Sweep(t.Context(), false)
				g.must("Sweep", err)
				if err := f.Destroy(t.Context(), "m", true); err != nil && !fail.Is(err, fail.NotFound) {
					t.Errorf("Destroy: %v", err)
				}
				if diff := cmp.Diff(before, traces(t, machines)); diff != "" {
					t.Errorf("traces (-before +after):\n%s", diff)
				}
				untouched(t)
			})
		}
	}
}
