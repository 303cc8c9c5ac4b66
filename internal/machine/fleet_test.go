package machine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/stage"
)

const (
	killAt   = "MICA_TEST_KILL_AT"
	killWhat = "MICA_TEST_KILL_WHAT"
)

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == fakeqemu.Program:
		os.Exit(fakeqemu.Main(os.Args[1:]))
	case os.Getenv(killAt) != "":
		os.Exit(dieAt(os.Getenv(killAt), os.Getenv(killWhat)))
	}
	os.Exit(m.Run())
}

// fleetIn opens the machines of a home, with this test binary as their QEMU.
func fleetIn(home, program string) *machine.Fleet {
	env := machine.Env{Getenv: func(name string) string { return map[string]string{"MICA_QEMU": program}[name] }}
	return &machine.Fleet{
		Home:    machine.Home(home),
		Drivers: machine.NewRegistry(env, machine.Factory{Name: qemu.Name, New: qemu.New}),
	}
}

type world struct {
	testing.TB
	*machine.Fleet
	program, iso string
}

func newWorld(t testing.TB, g drivertest.Guest) *world {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, program: filepath.Join(dir, fakeqemu.Program), iso: filepath.Join(dir, "boot.iso")}
	if err := errors.Join(os.Symlink(self, w.program), os.WriteFile(w.iso, drivertest.BootISO(g), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.Fleet = fleetIn(filepath.Join(dir, "home"), w.program)
	t.Cleanup(func() {
		all, err := w.List(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, m := range all {
			if err := w.Destroy(context.Background(), m.Name, true); err != nil {
				t.Errorf("Destroy(%q): %v", m.Name, err)
			}
		}
	})
	return w
}

func orderOf(name, iso string) machine.Order {
	return machine.Order{Spec: machine.Spec{
		Name: name, Driver: qemu.Name, MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Accel: "tcg",
		Image: machine.Image{Path: iso}, Context: []byte("#!/bin/sh\nexit\n"),
		Forwards: []machine.Forward{{Guest: 22, Auto: true}},
	}}
}

func (w *world) create(name string) *machine.Record {
	w.Helper()
	r, err := w.Create(w.Context(), orderOf(name, w.iso))
	if err != nil {
		w.Fatalf("Create(%q): %v (hints %q)", name, err, fail.Hints(err))
	}
	return r
}

func (w *world) state(name string, want machine.State) {
	w.Helper()
	m, err := w.Get(w.Context(), name)
	if err != nil || m.State != want {
		w.Fatalf("state of %q = %q, %v, %v; want %q", name, m.State, m.Err, err, want)
	}
}

// machines lists everything in the folder of machines, hidden things too.
func (w *world) machines() []string {
	w.Helper()
	entries, err := os.ReadDir(filepath.Join(string(w.Home), "machines"))
	if err != nil {
		w.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLife(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	r := w.create("one")
	w.state("one", machine.Running)
	if r.User != "root" || r.Instance.Spec.SSHPort() == 0 {
		t.Errorf("record = %+v, want user root and a port", r)
	}
	info, err := os.Stat(filepath.Join(r.Instance.Spec.Dir, "record.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("record's mode = %v, %v; want 0600", info.Mode(), err)
	}
	if changed, err := w.Save(t.Context(), "one"); !changed || err != nil {
		t.Errorf("Save = %v, %v", changed, err)
	}
	w.state("one", machine.Saved)
	if before, err := w.Start(t.Context(), "one"); before != machine.Saved || err != nil {
		t.Errorf("Start = from %q, %v; want from saved", before, err)
	}
	if changed, err := w.SetPaused(t.Context(), "one", true); !changed || err != nil {
		t.Errorf("SetPaused = %v, %v", changed, err)
	}
	if before, err := w.Start(t.Context(), "one"); before != machine.Paused || err != nil {
		t.Errorf("Start = from %q, %v; want from paused", before, err)
	}
	if err := w.Restart(t.Context(), "one", 100*time.Millisecond); err != nil {
		t.Errorf("Restart: %v", err)
	}
	w.state("one", machine.Running)
	if err := w.Destroy(t.Context(), "one", false); !fail.Is(err, fail.Usage) {
		t.Errorf("Destroy of a running machine = %v, want class Usage", err)
	}
	w.state("one", machine.Running)
	if changed, err := w.PowerOff(t.Context(), "one"); !changed || err != nil {
		t.Errorf("PowerOff = %v, %v", changed, err)
	}
	if changed, err := w.PowerOff(t.Context(), "one"); changed || err != nil {
		t.Errorf("second PowerOff = %v, %v; want nothing to do", changed, err)
	}
	if _, err := w.SetPaused(t.Context(), "one", true); !fail.Is(err, fail.Usage) {
		t.Errorf("SetPaused of a stopped machine = %v, want class Usage", err)
	}
	if err := w.Destroy(t.Context(), "one", false); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if got := w.machines(); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
	if _, err := w.Get(t.Context(), "one"); !fail.Is(err, fail.NotFound) {
		t.Errorf("Get = %v, want class NotFound", err)
	}
}

func TestEveryActionInEveryState(t *testing.T) {
	for _, s := range machine.States {
		for _, a := range machine.Actions {
			do, err := s.Allows("m", a)
			if do && err != nil {
				t.Errorf("%s of a machine that is %s: allowed and refused: %v", a, s, err)
			}
			want := fail.Usage
			if a == machine.DoShare && s != machine.Absent {
				want = fail.Conflict
			}
			if err != nil && (!fail.Is(err, want) || len(fail.Hints(err)) == 0) {
				t.Errorf("%s of a machine that is %s = %v, want class %v and a hint", a, s, err, want)
			}
		}
	}
	for _, s := range []machine.State{machine.Incomplete, machine.Creating, machine.Unknown} {
		if _, err := s.Allows("m", machine.DoStart); !fail.Is(err, fail.Conflict) {
			t.Errorf("start of a machine that is %s = %v, want class Conflict", s, err)
		}
	}
}

func TestNameTakenAndUnknown(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.create("worker-1")
	if _, err := w.Create(t.Context(), orderOf("worker-1", w.iso)); !fail.Is(err, fail.Conflict) {
		t.Errorf("Create of a taken name = %v, want class Conflict", err)
	}
	w.state("worker-1", machine.Running)
	_, err := w.Get(t.Context(), "wroker-1")
	if !fail.Is(err, fail.NotFound) || !strings.Contains(fmt.Sprint(fail.Hints(err)), `"worker-1"`) {
		t.Errorf("Get = %v, hints %q; want NotFound and the nearest name", err, fail.Hints(err))
	}
}

// TestCreateFails sees that a refused machine leaves nothing.
func TestCreateFails(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	broken := filepath.Join(t.TempDir(), "broken.iso")
	whole := drivertest.BootISO(drivertest.Guest{})
	if err := os.WriteFile(broken, whole[:len(whole)-2048], 0o600); err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := busy.Addr().(*net.TCPAddr).Port
	for _, tc := range []struct {
		name   string
		change func(*machine.Order)
		env    string
		want   fail.Class
	}{
		{name: "bad name", change: func(o *machine.Order) { o.Spec.Name = "-x" }, want: fail.Usage},
		{name: "no memory", change: func(o *machine.Order) { o.Spec.MemoryMiB = 1 }, want: fail.Usage},
		{name: "unknown driver", change: func(o *machine.Order) { o.Spec.Driver = "vbox" }, want: fail.Usage},
		{name: "unknown accel", change: func(o *machine.Order) { o.Spec.Accel = "warp" }, want: fail.Usage},
		{name: "large context", change: func(o *machine.Order) { o.Spec.Context = make([]byte, 16385) }, want: fail.Usage},
		{name: "no image", change: func(o *machine.Order) { o.Spec.Image.Path = "/nowhere.iso" }, want: fail.NotFound},
		{name: "image cut short", change: func(o *machine.Order) { o.Spec.Image.Path = broken }, want: fail.Unverified},
		{name: "not an image", change: func(o *machine.Order) { o.Spec.Image.Path = os.Args[0] }, want: fail.Unverified},
		{name: "port taken", change: func(o *machine.Order) { o.Spec.Forwards = []machine.Forward{{Host: port, Guest: 22}} }, want: fail.Conflict},
		{name: "host lacks memory", change: func(*machine.Order) {}, env: fakeqemu.FaultMemory, want: fail.HostLacks},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("MICA_FAKE_QEMU", tc.env)
			o := orderOf("m", w.iso)
			tc.change(&o)
			if _, err := w.Create(t.Context(), o); !fail.Is(err, tc.want) {
				t.Errorf("Create = %v, want class %d", err, tc.want)
			}
			if all, err := w.List(t.Context()); len(all) != 0 || err != nil {
				t.Errorf("List = %v, %v; want nothing", all, err)
			}
		})
	}
	w.create("m") // and the name is free
	if got := w.machines(); len(got) != 1 {
		t.Errorf("in the folder: %q, want the one machine", got)
	}
}

func TestCreateCancelled(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	for _, step := range []string{"reserved", "key pair", "context", "boot image", "instance", "created", "start"} {
		ctx, cancel := context.WithCancel(t.Context())
		w.Reached(func(at string) {
			if at == step {
				cancel()
			}
		})
		if _, err := w.Create(ctx, orderOf("m", w.iso)); !fail.Is(err, fail.Interrupted) {
			t.Errorf("cancelled at %q: Create = %v, want class Interrupted", step, err)
		}
		cancel()
		if got := w.machines(); len(got) != 0 {
			t.Errorf("cancelled at %q: left behind: %q", step, got)
		}
	}
}

// TestLostPort sees that an automatic port that is lost is replaced, at create
// and at a later start.
func TestLostPort(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	var told []string
	w.Say = func(text string) { told = append(told, text) }
	var thief net.Listener
	w.Reached(func(step string) {
		if step != "start" || thief != nil { // between the choice and the use
			return
		}
		data, err := os.ReadFile(filepath.Join(string(w.Home), "machines", "m", "record.json"))
		if err != nil {
			t.Fatal(err)
		}
		var r machine.Record
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		if thief, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Instance.Spec.SSHPort()))); err != nil {
			t.Fatal(err)
		}
	})
	r := w.create("m")
	defer thief.Close()
	stolen := thief.Addr().(*net.TCPAddr).Port
	if got := r.Instance.Spec.SSHPort(); got == stolen || got == 0 {
		t.Errorf("port = %d, want another than the stolen %d", got, stolen)
	}
	if len(told) == 0 || !strings.Contains(told[0], strconv.Itoa(stolen)) { // others of this computer may have taken the next one
		t.Errorf("told %q, want a note that names port %d", told, stolen)
	}
}

func TestPortsOfOthersAreNotTaken(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	a := w.create("a")
	if _, err := w.PowerOff(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	b := w.create("b")
	if a.Instance.Spec.SSHPort() == b.Instance.Spec.SSHPort() {
		t.Errorf("both have port %d", a.Instance.Spec.SSHPort())
	}
	if _, err := w.Start(t.Context(), "a"); err != nil {
		t.Errorf("Start: %v", err)
	}
}

func TestCreateAtTheSameTime(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	const contenders = 6
	var wg sync.WaitGroup
	errs := make([]error, contenders)
	for n := range contenders {
		wg.Go(func() { _, errs[n] = fleetIn(string(w.Home), w.program).Create(t.Context(), orderOf("m", w.iso)) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !fail.Is(err, fail.Conflict):
			t.Errorf("Create = %v, want class Conflict", err)
		}
	}
	if won != 1 {
		t.Errorf("%d created the machine, want 1", won)
	}
	w.state("m", machine.Running)
	if got := w.machines(); len(got) != 1 {
		t.Errorf("in the folder: %q, want the one machine", got)
	}
}

func TestSweepKeepsWhatIsUsed(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.create("m")
	w.age()
	if swept, err := w.Sweep(t.Context(), false); len(swept) != 0 || err != nil {
		t.Errorf("Sweep = %v, %v; want nothing", swept, err)
	}
	if err := w.Destroy(t.Context(), "m", true); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		swept, err := w.Sweep(t.Context(), dry)
		if len(swept) != 1 || swept[0].Kind != "image" || err != nil {
			t.Errorf("Sweep(dry=%v) = %v, %v; want the image", dry, swept, err)
		}
	}
	if swept, _ := w.Sweep(t.Context(), false); len(swept) != 0 {
		t.Errorf("second Sweep = %v, want nothing", swept)
	}
}

func TestDamagedRecord(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	r := w.create("m")
	if err := os.WriteFile(filepath.Join(r.Instance.Spec.Dir, "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.state("m", machine.Damaged)
	if _, err := w.Create(t.Context(), orderOf("m", w.iso)); !fail.Is(err, fail.Conflict) {
		t.Errorf("Create over a damaged record = %v, want class Conflict", err)
	}
	if err := w.Destroy(t.Context(), "m", false); err == nil || len(fail.Hints(err)) == 0 {
		t.Errorf("Destroy without force = %v, want a refusal with a hint", err)
	}
	if err := w.Destroy(t.Context(), "m", true); err != nil {
		t.Errorf("Destroy with force: %v", err)
	}
	if got := w.machines(); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

func boot(events ...stage.Event) drivertest.Guest {
	var b strings.Builder
	b.WriteString("BIOS\r\n")
	for _, e := range events {
		b.WriteString(e.Line())
	}
	return drivertest.Guest{Says: b.String()}
}

func TestFollow(t *testing.T) {
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGuest"
	w := newWorld(t, boot(
		stage.Event{Stage: "network", State: stage.Started},
		stage.Event{Stage: "network", State: stage.Done, Seconds: 0.5},
		stage.Event{Stage: stage.HandOver, State: stage.Done},
		stage.Event{Stage: stage.Plugin, State: stage.Failed, Detail: "no such group", Facts: map[string]string{"plugin": "cernvm"}},
		stage.Event{Stage: stage.Apply, State: stage.Warned, Facts: map[string]string{machine.FactHostKey: key}},
	))
	w.create("m")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	if err := w.Follow(ctx, "m", func(e stage.Event) { got = append(got, e.Stage+" "+string(e.State)) }); err != nil {
		t.Fatalf("Follow: %v", err)
	}
	want := []string{"network started", "network done", "handover done", "plugin failed", "apply warned"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if err := w.WaitSSH(ctx, "m"); err != nil {
		t.Errorf("WaitSSH: %v", err)
	}
	m, err := w.Get(ctx, "m")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{machine.ToHandOver, machine.ToApply, machine.ToSSH} {
		if m.Record.Durations[key] <= 0 {
			t.Errorf("durations = %v, want %q", m.Record.Durations, key)
		}
	}
	login, err := w.Login(ctx, "m", machine.DoSSH)
	if err != nil || !login.Pinned {
		t.Fatalf("Login = %+v, %v; want the host key pinned", login, err)
	}
	hosts, err := os.ReadFile(login.KnownHosts)
	if err != nil || string(hosts) != "mica-m "+key+"\n" {
		t.Errorf("known_hosts = %q, %v", hosts, err)
	}
}

func TestFollowFailedStage(t *testing.T) {
	w := newWorld(t, boot(stage.Event{Stage: "disk", State: stage.Failed, Detail: "no disk", Remedy: "add one"}))
	w.create("m")
	err := w.Follow(t.Context(), "m", func(stage.Event) {})
	if err == nil || !strings.Contains(err.Error(), "disk") || !strings.Contains(err.Error(), "no disk") || fail.Hints(err)[0] != "add one" {
		t.Errorf("Follow = %v, hints %q; want stage, cause and remedy", err, fail.Hints(err))
	}
}

func TestFollowMachineEnds(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.create("m")
	if _, err := w.PowerOff(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := w.Follow(t.Context(), "m", func(stage.Event) {}); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("Follow of a machine that ended = %v", err)
	}
}

// TestHostileHostKey sees that a guest cannot put lines of its own into known_hosts.
func TestHostileHostKey(t *testing.T) {
	w := newWorld(t, boot(stage.Event{Stage: stage.Apply, State: stage.Done, Facts: map[string]string{machine.FactHostKey: "ssh-ed25519 AAAA\n* ssh-rsa BBBB"}}))
	w.create("m")
	if err := w.Follow(t.Context(), "m", func(stage.Event) {}); err != nil {
		t.Fatal(err)
	}
	login, err := w.Login(t.Context(), "m", machine.DoSSH)
	if err != nil || login.Pinned {
		t.Errorf("Login = %+v, %v; want no key pinned", login, err)
	}
}

// thousand makes one machine and the records of 999 like it, that are off.
func (w *world) thousand() {
	w.Helper()
	o := orderOf("m", w.iso)
	o.Off = true
	r, err := w.Create(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(r.Instance.Spec.Dir, "record.json"))
	if err != nil {
		w.Fatal(err)
	}
	for n := range many - 1 {
		name := fmt.Sprintf("m%03d", n)
		dir := filepath.Join(filepath.Dir(r.Instance.Spec.Dir), name)
		record := strings.Replace(string(data), `"name": "m"`, `"name": "`+name+`"`, 1)
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "record.json"), []byte(record), 0o600),
			os.WriteFile(filepath.Join(dir, "disk.raw"), nil, 0o600)); err != nil {
			w.Fatal(err)
		}
	}
	w.Cleanup(func() { // no need to destroy them one by one
		for n := range many - 1 {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(r.Instance.Spec.Dir), fmt.Sprintf("m%03d", n))); err != nil {
				w.Error(err)
			}
		}
	})
}

const many = 1000

// TestThousand sees that a thousand machines are listed, and one more created,
// without much ado. The processor's time is what counts: others may have it.
func TestThousand(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.thousand()
	before := processorTime(t)
	all, err := w.List(t.Context())
	took := processorTime(t) - before
	if len(all) != many || err != nil {
		t.Fatalf("List = %d machines, %v; want %d", len(all), err, many)
	}
	for _, m := range all {
		if m.State != machine.Stopped {
			t.Fatalf("%s is %s (%v), want stopped", m.Name, m.State, m.Err)
		}
	}
	t.Logf("listed %d machines in %s", many, took)
	if took > 2*time.Second {
		t.Errorf("listing took %s of the processor's time", took)
	}
	before = processorTime(t)
	for n := range 3 {
		o := orderOf(fmt.Sprintf("new-%d", n), w.iso)
		o.Off = true
		if _, err := w.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if took := processorTime(t) - before; took > 2*time.Second {
		t.Errorf("creating three took %s of the processor's time", took)
	}
}

func BenchmarkList(b *testing.B) {
	w := newWorld(b, drivertest.Guest{})
	w.thousand()
	defer used(b)()
	for b.Loop() {
		if all, err := w.List(b.Context()); len(all) != many || err != nil {
			b.Fatalf("List = %d machines, %v; want %d", len(all), err, many)
		}
	}
}

// BenchmarkRecords takes what the choice of a port costs beside a thousand
// machines: the first time in a process, and each time after.
func BenchmarkRecords(b *testing.B) {
	w := newWorld(b, drivertest.Guest{})
	w.thousand()
	for _, fresh := range []bool{true, false} {
		b.Run(map[bool]string{true: "first", false: "again"}[fresh], func(b *testing.B) {
			defer used(b)()
			for b.Loop() {
				if fresh {
					w.Fleet = fleetIn(string(w.Home), w.program)
				}
				if n := w.ReadRecords(); n != many {
					b.Fatalf("read %d records, want %d", n, many)
				}
			}
		})
	}
}
