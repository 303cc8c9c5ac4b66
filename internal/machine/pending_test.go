package machine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// stubborn is a driver that refuses changes to what refuses names.
type stubborn struct {
	*qemu.Driver
	refuses func(machine.Spec) bool
}

func (s stubborn) Change(ctx context.Context, i machine.Instance, to machine.Spec) (machine.Instance, error) {
	if s.refuses(to) {
		return i, fail.New(fail.HostLacks, "changed to %d MiB", to.MemoryMiB).Hint("mend it")
	}
	return s.Driver.Change(ctx, i, to)
}

// refuse gives the world's fleet a stubborn driver, and returns what it says.
func (w *world) refuse(refuses func(machine.Spec) bool) *[]string {
	env := machine.Env{Getenv: func(name string) string { return map[string]string{"MICA_QEMU": w.program}[name] }}
	w.Drivers = machine.NewRegistry(env, machine.Factory{Name: qemu.Name, New: func(env machine.Env) machine.Driver {
		return stubborn{qemu.New(env).(*qemu.Driver), refuses} //nolint:forcetypeassert // it is
	}})
	said := &[]string{}
	w.Say = func(message string) { *said = append(*said, message) }
	return said
}

func TestPendingChangeTakenBack(t *testing.T) {
	for _, what := range []string{"resize", "share", "unshare"} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, drivertest.Guest{})
			w.off("m")
			w.share(what)
			before := w.spec("m")
			w.killed("after Change", what)
			after := func(s machine.Spec) bool {
				return s.MemoryMiB != before.MemoryMiB || !slices.Equal(s.Shares, before.Shares)
			}
			said := w.refuse(after)
			if _, err := w.Start(t.Context(), "m"); err != nil {
				t.Fatalf("Start where the change is refused: %v (hints %q)", err, fail.Hints(err))
			}
			if len(*said) != 2 || !strings.Contains((*said)[1], "is taken back: changing") {
				t.Errorf("said %q, want that the change is taken back and why", *said)
			}
			m, err := w.Get(t.Context(), "m")
			if err != nil || m.Record.Pending != nil || after(m.Record.Instance.Spec) {
				t.Errorf("the machine is %+v, pending %v, %v; want it as before", m.Record.Instance.Spec, m.Record.Pending, err)
			}
			if what != "resize" {
				_, medium := w.medium("m")
				if has := strings.Contains(string(medium), "newshare"); has {
					t.Error("the medium tells of the folder that was taken back")
				}
				if has := strings.Contains(string(medium), "oldshare"); !has {
					t.Error("the medium lacks the folder of before")
				}
			}
		})
	}
}

func TestPendingChangeThatFails(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.off("m")
	w.killed("before Change", "resize")
	w.refuse(func(machine.Spec) bool { return true })
	for what, do := range map[string]func() error{
		"start":    func() error { _, err := w.Start(t.Context(), "m"); return err },
		"restart":  func() error { return w.Restart(t.Context(), "m", 0) },
		"resize":   func() error { _, err := w.Resize(t.Context(), "m", 256, 0, 0); return err },
		"snapshot": func() error { _, err := w.Snapshot(t.Context(), "m", "s"); return err },
		"gc":       func() error { _, err := w.Sweep(t.Context(), false); return err },
	} {
		err := do()
		hints := fmt.Sprint(fail.Hints(err))
		if !fail.Is(err, fail.HostLacks) && what != "gc" || !strings.Contains(hints, "mend it") || !strings.Contains(hints, "mica destroy m") {
			t.Errorf("%s = %v, hints %q; want the class and hint of the cause, and what can be done", what, err, hints)
		}
	}
	all, err := w.List(t.Context())
	if err != nil || len(all) != 1 || all[0].State != machine.Stopped || !strings.Contains(all[0].Problem(), "mica gc") {
		t.Errorf("List = %+v, %v; want it stopped, and that a change is not finished", all, err)
	}
	if d, err := w.Why(t.Context(), "m"); err != nil || !strings.Contains(fmt.Sprint(d.Remedy), "mica gc") {
		t.Errorf("Why = %+v, %v; want that a change is not finished", d, err)
	}
	if _, err := w.Snapshots(t.Context(), "m"); err != nil {
		t.Errorf("Snapshots: %v", err)
	}

	// Somebody else has started it: it can be used, and stopped.
	d, err := w.Drivers.Get(qemu.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), all[0].Record.Instance); err != nil {
		t.Fatal(err)
	}
	_, perr := w.SetPaused(t.Context(), "m", true)
	_, rerr := w.Start(t.Context(), "m")
	_, serr := w.Save(t.Context(), "m")
	_, oerr := w.PowerOff(t.Context(), "m")
	if err := errors.Join(perr, rerr, serr, oerr); err != nil {
		t.Errorf("pause, start, stop, power off: %v", err)
	}
	w.state("m", machine.Stopped)
	if err := w.Destroy(t.Context(), "m", false); err != nil {
		t.Errorf("Destroy: %v", err)
	}
}
