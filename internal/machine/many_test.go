package machine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/run"
)

func TestNumbered(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		count   int
		want    []string
		class   fail.Class
	}{
		{"w-{n}", 3, []string{"w-1", "w-2", "w-3"}, 0},
		{"w{nnn}x", 2, []string{"w001x", "w002x"}, 0},
		{"w-{n}", 1, []string{"w-1"}, 0},
		{"w", 1, []string{"w"}, 0},
		{"w", 2, nil, fail.Usage},
		{"w-{n}", 0, nil, fail.Usage},
		{"w-{n}", 1001, nil, fail.Usage},
		{"-{n}", 2, nil, fail.Usage},
		{"{m}", 1, nil, fail.Usage},
	} {
		got, err := machine.Numbered(tc.pattern, tc.count)
		if tc.class != 0 {
			if !fail.Is(err, tc.class) {
				t.Errorf("Numbered(%q, %d) = %q, %v; want class %d", tc.pattern, tc.count, got, err, tc.class)
			}
			continue
		}
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("Numbered(%q, %d) = %q, %v; want %q", tc.pattern, tc.count, got, err, tc.want)
		}
	}
}

func TestEach(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f"}
	var now, most atomic.Int32
	err := machine.Each(t.Context(), names, 2, func(_ context.Context, name string) error {
		defer now.Add(-1)
		for n := now.Add(1); n > most.Load(); {
			most.Store(n)
		}
		if name == "b" || name == "e" {
			return fail.New(fail.Conflict, "cannot have %s", name)
		}
		return nil
	})
	if !fail.Is(err, fail.Partial) || !strings.HasPrefix(err.Error(), "not done for b, e: cannot have b\n") {
		t.Errorf("Each = %v, want class Partial and both names", err)
	}
	if most.Load() > 2 {
		t.Errorf("%d ran at the same time, want at most 2", most.Load())
	}
	same := errors.New("no platform")
	err = machine.Each(t.Context(), names, 3, func(context.Context, string) error { return fail.New(fail.HostLacks, "%w", same) })
	if !fail.Is(err, fail.HostLacks) || err.Error() != "no platform" {
		t.Errorf("Each, all failed alike = %q, want the cause once, with its class", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var begun atomic.Int32
	err = machine.Each(ctx, names, 1, func(context.Context, string) error {
		begun.Add(1)
		cancel()
		return nil
	})
	if !fail.Is(err, fail.Interrupted) || begun.Load() != 1 {
		t.Errorf("cancelled Each = %v after %d, want class Interrupted after 1", err, begun.Load())
	}
}

// TestFleetAtOnce makes twenty machines at the same time, half of them off,
// beside another command that does the same, and sees that each has its own
// identity and ports.
func TestFleetAtOnce(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	other := fleetIn(string(w.Home), w.program)
	const count = 20
	make := func(f *machine.Fleet, prefix string, off bool) error {
		names, err := machine.Numbered(prefix+"-{n}", count/2)
		if err != nil {
			return err
		}
		return machine.Each(t.Context(), names, 8, func(ctx context.Context, name string) error {
			o := orderOf(name, w.iso)
			o.Off, o.Spec.Labels = off, []string{prefix}
			o.Spec.Forwards = append(o.Spec.Forwards, machine.Forward{Guest: 80, Auto: true})
			_, err := f.Create(ctx, o)
			return err
		})
	}
	var wg sync.WaitGroup
	for prefix, f := range map[string]*machine.Fleet{"on": w.Fleet, "off": other} {
		wg.Go(func() {
			if err := make(f, prefix, prefix == "off"); err != nil {
				t.Errorf("making %s: %v", prefix, err)
			}
		})
	}
	wg.Wait()
	all, err := w.List(t.Context())
	if err != nil || len(all) != count {
		t.Fatalf("List = %d machines, %v; want %d", len(all), err, count)
	}
	ids, ports := map[string]bool{}, map[int]bool{}
	for _, m := range all {
		want := map[bool]machine.State{true: machine.Running, false: machine.Stopped}[strings.HasPrefix(m.Name, "on")]
		if m.State != want {
			t.Errorf("%s is %s, want %s", m.Name, m.State, want)
		}
		ids[m.Record.Instance.Spec.ID] = true
		for _, fwd := range m.Record.Instance.Spec.Forwards {
			ports[fwd.Host] = true
		}
	}
	if len(ids) != count || len(ports) != 2*count {
		t.Errorf("%d identities and %d ports, want %d and %d", len(ids), len(ports), count, 2*count)
	}
	names, err := w.Choose(t.Context(), machine.Choice{Labels: []string{"off"}})
	if err != nil || len(names) != count/2 {
		t.Fatalf("Choose by label = %q, %v; want %d", names, err, count/2)
	}
	if err := machine.Each(t.Context(), names, 8, func(ctx context.Context, name string) error {
		_, err := w.Start(ctx, name)
		return err
	}); err != nil {
		t.Errorf("starting them: %v", err)
	}
	if live, err := w.Choose(t.Context(), machine.Choice{All: true, Live: true}); err != nil || len(live) != count {
		t.Errorf("Choose all that run = %d, %v; want %d", len(live), err, count)
	}
}

// TestPortLost takes an automatic port between its choice and its use.
func TestPortLost(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	var taken net.Listener
	w.Reached(func(step string) {
		if step != "start" || taken != nil {
			return
		}
		m, err := w.Get(context.Background(), "m")
		if err == nil {
			port := m.Record.Instance.Spec.SSHPort()
			taken, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		}
		if err != nil {
			t.Errorf("taking the port: %v", err)
		}
	})
	r := w.create("m")
	if taken == nil {
		t.Fatal("the port was never chosen")
	}
	defer taken.Close()
	lost := taken.Addr().(*net.TCPAddr).Port
	if got := r.Instance.Spec.SSHPort(); got == lost || got == 0 {
		t.Errorf("the machine has port %d, want another than %d", got, lost)
	}
	w.state("m", machine.Running)
}

func TestChoose(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	for name, labels := range map[string][]string{"a": {"x"}, "b": {"x", "y"}, "c": nil} {
		o := orderOf(name, w.iso)
		o.Off, o.Spec.Labels = true, labels
		if _, err := w.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		choice machine.Choice
		want   []string
		class  fail.Class
	}{
		{machine.Choice{Names: []string{"c", "a", "c"}}, []string{"c", "a"}, 0},
		{machine.Choice{Labels: []string{"x"}}, []string{"a", "b"}, 0},
		{machine.Choice{Labels: []string{"x", "y"}}, []string{"b"}, 0},
		{machine.Choice{Labels: []string{"x"}, All: true, Live: true}, []string{"a", "b"}, 0},
		{machine.Choice{All: true}, []string{"a", "b", "c"}, 0},
		{machine.Choice{All: true, Live: true}, nil, 0},
		{machine.Choice{Labels: []string{"z"}}, nil, fail.NotFound},
		{machine.Choice{}, nil, fail.Usage},
		{machine.Choice{All: true, Names: []string{"a"}}, nil, fail.Usage},
	} {
		got, err := w.Choose(t.Context(), tc.choice)
		if tc.class != 0 && !fail.Is(err, tc.class) || tc.class == 0 && err != nil {
			t.Errorf("Choose(%+v) = %v, want class %d", tc.choice, err, tc.class)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("Choose(%+v) (-want +got):\n%s", tc.choice, diff)
		}
	}
}

func TestValidateTheRest(t *testing.T) {
	plain := machine.Spec{Name: "m", MemoryMiB: 64, CPUs: 1, DiskMiB: 64}
	for want, change := range map[string]func(*machine.Spec){
		"execution cap":      func(s *machine.Spec) { s.ExecutionCap = 101 },
		"unknown display":    func(s *machine.Spec) { s.Display = "crt" },
		"no label":           func(s *machine.Spec) { s.Labels = []string{"a b"} },
		"name of an option":  func(s *machine.Spec) { s.Options = map[string]string{"a,b": ""} },
		"shared folder":      func(s *machine.Spec) { s.Shares = []machine.Share{{Name: "../x", Path: "/x"}} },
		"two shared folders": func(s *machine.Spec) { s.Shares = []machine.Share{{Name: "x", Path: "/x"}, {Name: "x", Path: "/y"}} },
		"absolute path":      func(s *machine.Spec) { s.Shares = []machine.Share{{Name: "x", Path: "x"}} },
	} {
		s := plain
		change(&s)
		if err := s.Validate(); !fail.Is(err, fail.Usage) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("Validate = %v, want class Usage and %q", err, want)
		}
	}
	if err := plain.Validate(); err != nil {
		t.Errorf("Validate of a plain machine: %v", err)
	}
}

func TestTooMuch(t *testing.T) {
	const gibi = 1 << 30
	for _, tc := range []struct {
		mib, count int
		want       string
	}{
		{2048, 8, ""},
		{2048, 9, "about 8 of them"},
		{16384, 1, ""},
		{20480, 1, "20.0 GiB of memory are more than the 16.0 GiB"},
		{20480, 2, "about 1 of them"},
	} {
		got := machine.TooMuchOf(machine.Spec{MemoryMiB: tc.mib}, tc.count, 16*gibi)
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%d machines of %d MiB: told %q, want %q", tc.count, tc.mib, got, tc.want)
		}
	}
}

// TestPortHeld sees that a port which was named and is lost has a remedy that
// works: one for a machine that is there, another for one that was to be made.
func TestPortHeld(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := orderOf("m", w.iso)
	o.Off, o.Spec.Forwards = true, []machine.Forward{{Host: port, Guest: 80}}
	if _, err := w.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = w.Start(t.Context(), "m")
	want := fmt.Sprintf("'mica forward remove m %d', then 'mica forward add m auto:80'", port)
	if !fail.Is(err, fail.Conflict) || !strings.Contains(fmt.Sprint(fail.Hints(err)), want) {
		t.Errorf("Start = %v, hints %q; want class Conflict and %s", err, fail.Hints(err), want)
	}
	if _, err := w.RemoveForwards(t.Context(), "m", []int{port}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddForwards(t.Context(), "m", []machine.Forward{{Guest: 80, Auto: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(t.Context(), "m"); err != nil {
		t.Errorf("Start after what was said: %v", err)
	}
}

// counted counts the programs that a driver runs.
type counted struct {
	run.Host
	runs *atomic.Int32
}

func (c counted) Run(ctx context.Context, cmd run.Command) (run.Result, error) {
	c.runs.Add(1)
	return c.Host.Run(ctx, cmd)
}

func TestProbeOnceForMany(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	var runs atomic.Int32
	env := machine.Env{Run: counted{runs: &runs}, Getenv: func(name string) string { return map[string]string{"MICA_QEMU": w.program}[name] }}
	w.Drivers = machine.NewRegistry(env, machine.Factory{Name: qemu.Name, New: qemu.New})
	order := orderOf("m-{n}", w.iso)
	order.Off = true
	if _, err := w.Probe(t.Context(), &order); err != nil {
		t.Fatal(err)
	}
	before := runs.Load()
	for _, name := range []string{"m-1", "m-2", "m-3"} {
		one := order
		one.Spec.Name, one.Spec.Forwards = name, slices.Clone(order.Spec.Forwards)
		if _, err := w.Create(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	if before == 0 || runs.Load() != before {
		t.Errorf("Probe ran %d programs, making three machines %d more; want some, and none", before, runs.Load()-before)
	}
}
