package machine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

// act does one thing to machine m, by name.
func act(ctx context.Context, f *machine.Fleet, what, iso string) error {
	var err error
	switch what {
	case "create":
		_, err = f.Create(ctx, orderOf("m", iso))
	case "import":
		err = importAppliance(ctx, f, "m", iso)
	case "destroy":
		err = f.Destroy(ctx, "m", true)
	case "start":
		_, err = f.Start(ctx, "m")
	case "save":
		_, err = f.Save(ctx, "m")
	case "power off":
		_, err = f.PowerOff(ctx, "m")
	case "snapshot":
		_, err = f.Snapshot(ctx, "m", "new")
	case "revert":
		_, err = f.Revert(ctx, "m", "old")
	case "drop":
		err = f.DropSnapshot(ctx, "m", "old")
	case "clone":
		_, err = f.Clone(ctx, "m", "twin", nil)
	case "resize":
		_, err = f.Resize(ctx, "m", 128, 2, 128)
	case "rename":
		err = f.Rename(ctx, "m", "renamed")
	case "share":
		_, err = f.AddShares(ctx, "m", []machine.Share{{Name: "newshare", Path: filepath.Dir(iso)}})
	case "unshare":
		_, err = f.RemoveShares(ctx, "m", []string{"oldshare"})
	case "forward":
		_, err = f.AddForwards(ctx, "m", []machine.Forward{{Guest: 80, Auto: true}})
	default:
		err = errors.New("unknown act " + what)
	}
	return err
}

// killer is the driver of a command that dies before or after what it is told to do.
type killer struct {
	*qemu.Driver
	step string
}

func deadly(program, step string) *machine.Registry {
	env := machine.Env{Getenv: func(name string) string { return map[string]string{"MICA_QEMU": program}[name] }}
	return machine.NewRegistry(env, machine.Factory{Name: qemu.Name, New: func(env machine.Env) machine.Driver {
		return &killer{qemu.New(env).(*qemu.Driver), step}
	}})
}

func (k *killer) at(step string) {
	if k.step == step {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (k *killer) during(what string, do func() error) error {
	k.at("before " + what)
	err := do()
	k.at("after " + what)
	return err
}

func (k *killer) Start(ctx context.Context, i machine.Instance) error {
	return k.during("Start", func() error { return k.Driver.Start(ctx, i) })
}

func (k *killer) Stop(ctx context.Context, i machine.Instance, how machine.StopMode) error {
	return k.during("Stop", func() error { return k.Driver.Stop(ctx, i, how) })
}

func (k *killer) Save(ctx context.Context, i machine.Instance) error {
	return k.during("Save", func() error { return k.Driver.Save(ctx, i) })
}

func (k *killer) Snapshot(ctx context.Context, i machine.Instance, name string) error {
	return k.during("Snapshot", func() error { return k.Driver.Snapshot(ctx, i, name) })
}

func (k *killer) Revert(ctx context.Context, i machine.Instance, name string) error {
	return k.during("Revert", func() error { return k.Driver.Revert(ctx, i, name) })
}

func (k *killer) DropSnapshot(ctx context.Context, i machine.Instance, name string) error {
	return k.during("DropSnapshot", func() error { return k.Driver.DropSnapshot(ctx, i, name) })
}

func (k *killer) SetForwards(ctx context.Context, i machine.Instance, to []machine.Forward) error {
	return k.during("SetForwards", func() error { return k.Driver.SetForwards(ctx, i, to) })
}

func (k *killer) Change(ctx context.Context, i machine.Instance, to machine.Spec) (changed machine.Instance, err error) {
	err = k.during("Change", func() error { changed, err = k.Driver.Change(ctx, i, to); return err })
	return changed, err
}

func (k *killer) Clone(ctx context.Context, from machine.Instance, s machine.Spec) (made machine.Instance, err error) {
	err = k.during("Clone", func() error { made, err = k.Driver.Clone(ctx, from, s); return err })
	return made, err
}

// acts is what can be cut short on a machine that is there: the state that it
// is in before, and the steps to die at.
var acts = map[string]struct {
	before machine.State
	steps  []string
}{
	"start":     {machine.Stopped, []string{"start", "before Start", "after Start"}},
	"save":      {machine.Running, []string{"before Save", "after Save"}},
	"power off": {machine.Running, []string{"before Stop", "after Stop"}},
	"snapshot":  {machine.Running, []string{"snapshot", "before Snapshot", "after Snapshot"}},
	"revert":    {machine.Stopped, []string{"revert", "before Revert", "after Revert"}},
	"drop":      {machine.Running, []string{"delete snapshot", "before DropSnapshot", "after DropSnapshot"}},
	"clone": {machine.Stopped, []string{
		"folder", "reserved", "key pair", "context", "boot image", "instance", "before Clone", "after Clone", "created", "complete",
	}},
	"resize":  {machine.Stopped, []string{"change", "before Change", "after Change", "instance changed", "changed"}},
	"rename":  {machine.Stopped, []string{"change", "moved", "before Change", "after Change", "instance changed", "changed"}},
	"share":   {machine.Stopped, []string{"change", "before Change", "after Change", "instance changed", "changed"}},
	"unshare": {machine.Stopped, []string{"change", "before Change", "after Change", "instance changed", "changed"}},
	"forward": {machine.Running, []string{"ports", "before SetForwards", "after SetForwards"}},
}

// victim makes machine m with a snapshot and something on its disk, and brings
// it to the state it is in before the act.
func (w *world) victim(before machine.State) {
	w.Helper()
	w.off("m")
	w.mark("m", "then")
	if _, err := w.Snapshot(w.Context(), "m", "old"); err != nil {
		w.Fatal(err)
	}
	w.mark("m", "now!")
	if before == machine.Running {
		if _, err := w.Start(w.Context(), "m"); err != nil {
			w.Fatal(err)
		}
	}
}

// share gives machine m a folder, for the acts on shares.
func (w *world) share(what string) {
	w.Helper()
	if what != "share" && what != "unshare" {
		return
	}
	if _, err := w.AddShares(w.Context(), "m", []machine.Share{{Name: "oldshare", Path: filepath.Dir(w.iso)}}); err != nil {
		w.Fatal(err)
	}
}

// shared sees that an act on shares has been finished if it was noted before it
// was killed, and that the machine is handed what its record says.
func (w *world) shared(what string, noted bool) {
	w.Helper()
	var want []string
	switch what {
	case "share":
		want = []string{"oldshare", "newshare"}
	case "unshare":
	default:
		return
	}
	var names []string
	for _, s := range w.spec("m").Shares {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, want) && (noted || !slices.Equal(names, []string{"oldshare"})) {
		w.Errorf("shares = %q, want %q", names, want)
	}
	_, medium := w.medium("m")
	for _, name := range []string{"oldshare", "newshare"} {
		if got := bytes.Contains(medium, []byte(name)); got != slices.Contains(names, name) {
			w.Errorf("the medium tells of %q: %v, the record of %q", name, got, names)
		}
	}
}

// whole lets gc clear what a killed command left and sees that nothing is lost.
func (w *world) whole(what string, noted bool) {
	w.Helper()
	if _, err := w.Sweep(w.Context(), false); err != nil {
		w.Errorf("Sweep: %v", err)
	}
	all, err := w.List(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	var names []string
	for _, m := range all {
		if !slices.Contains([]machine.State{machine.Running, machine.Paused, machine.Stopped, machine.Saved}, m.State) {
			w.Errorf("%s is %s: %v", m.Name, m.State, m.Err)
		}
		if m.Record != nil && m.Record.Pending != nil {
			w.Errorf("%s is still being changed", m.Name)
		}
		if m.Name != "twin" { // the clone may be whole, or nothing
			names = append(names, m.Name)
		}
	}
	name := "m"
	if what == "rename" && slices.Contains(names, "renamed") {
		name = "renamed"
	}
	want := []string{name, "other"}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		w.Fatalf("machines = %q, want %q", names, want)
	}
	w.shared(what, noted)
	want = []string{"now!"}
	if what == "revert" {
		want = append(want, "then")
	}
	// Going on settles what was cut short; then every byte is where it was.
	if _, err := w.Start(w.Context(), name); err != nil {
		w.Errorf("Start: %v (hints %q)", err, fail.Hints(err))
	}
	// An order to end outlives who gave it: QEMU may carry it out only now,
	// after Start found it running still. There was one; the next start stays.
	if m, err := w.Get(w.Context(), name); err == nil && m.State != machine.Running && (what == "power off" || what == "save") {
		if _, err := w.Start(w.Context(), name); err != nil {
			w.Errorf("Start once more: %v (hints %q)", err, fail.Hints(err))
		}
	}
	w.state(name, machine.Running)
	w.marked(name, want...)
	if what != "drop" {
		if all, err := w.Snapshots(w.Context(), name); err != nil || !slices.ContainsFunc(all, func(s machine.Snapshot) bool { return s.Name == "old" }) {
			w.Errorf("Snapshots = %+v, %v; want old among them", all, err)
		}
	}
	if slices.ContainsFunc(all, func(m machine.Machine) bool { return m.Name == "twin" }) {
		w.marked("twin", "now!")
	}
	w.state("other", machine.Running)
	for _, m := range all {
		if m.Name == "other" {
			continue
		}
		if err := w.Destroy(w.Context(), m.Name, true); err != nil {
			w.Errorf("Destroy(%q): %v", m.Name, err)
		}
	}
	w.age()
	if _, err := w.Sweep(w.Context(), false); err != nil {
		w.Errorf("Sweep: %v", err)
	}
	if got := w.machines(); !slices.Equal(got, []string{"other"}) {
		w.Errorf("left behind: %q", got)
	}
}

// TestKilledActs kills every act on a machine at every step of it.
func TestKilledActs(t *testing.T) {
	turn := 0
	for what, a := range acts {
		for _, step := range a.steps {
			if turn++; testing.Short() && turn%4 != 0 {
				continue
			}
			t.Run(what+" at "+step, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, drivertest.Guest{})
				w.create("other")
				w.victim(a.before)
				w.share(what)
				w.killed(step, what)
				w.whole(what, true)
			})
		}
	}
}

// TestKilledAnywhere kills every act at moments that nobody chose.
func TestKilledAnywhere(t *testing.T) {
	tier.Full(t)
	const tries = 2
	random := rand.New(rand.NewPCG(1, 2))
	for what, a := range acts {
		for n := range tries {
			delay := time.Duration(random.IntN(120)) * time.Millisecond
			t.Run(fmt.Sprintf("%s %d after %s", what, n, delay), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, drivertest.Guest{})
				w.create("other")
				w.victim(a.before)
				w.share(what)
				cmd := exec.Command(os.Args[0], string(w.Home), w.program, w.iso)
				cmd.Env = append(os.Environ(), killAt+"=never", killWhat+"="+what)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(delay)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				w.whole(what, false)
			})
		}
	}
}
