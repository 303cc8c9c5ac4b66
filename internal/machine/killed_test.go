package machine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// dieAt is a command of its own that is killed at a step.
func dieAt(step, what string) int {
	home, program, iso := os.Args[1], os.Args[2], os.Args[3]
	f := fleetIn(home, program)
	f.Drivers = deadly(program, step)
	f.Reached(func(at string) {
		if at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	})
	err := act(context.Background(), f, what, iso)
	fmt.Fprintln(os.Stderr, "not killed:", err)
	return 1
}

func (w *world) killed(step, what string) {
	w.Helper()
	cmd := exec.Command(os.Args[0], string(w.Home), w.program, w.iso)
	cmd.Env = append(os.Environ(), killAt+"="+step, killWhat+"="+what)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:forcetypeassert // so it is here
		w.Fatalf("%s to be killed at %q: %v\n%s", what, step, err, out)
	}
}

// TestKilled kills create and destroy at each of their steps and sees that the
// next command clears what is left, and nothing else.
func TestKilled(t *testing.T) {
	steps := map[string][]string{
		"create":  {"folder", "reserved", "key pair", "context", "boot image", "instance", "created", "start", "complete"},
		"destroy": {"destroy", "instance gone", "in the trash"},
	}
	clearers := map[string]func(*world) error{
		"destroy": func(w *world) error {
			err := w.Destroy(w.Context(), "m", true)
			if fail.Is(err, fail.NotFound) { // it was not there yet, or no longer
				return nil
			}
			return err
		},
		"create": func(w *world) error {
			_, err := w.Create(w.Context(), orderOf("m", w.iso))
			if fail.Is(err, fail.Conflict) { // it was complete
				err = nil
			}
			return errors.Join(err, w.Destroy(w.Context(), "m", true))
		},
		"gc": func(w *world) error {
			if _, err := w.Sweep(w.Context(), false); err != nil {
				return err
			}
			if m, err := w.Get(w.Context(), "m"); err == nil && m.State == machine.Incomplete {
				return errors.New("gc left it incomplete")
			}
			err := w.Destroy(w.Context(), "m", true)
			if fail.Is(err, fail.NotFound) {
				err = nil
			}
			return err
		},
	}
	turn := 0
	for what, list := range steps {
		for _, step := range list {
			for n, by := range slices.Sorted(maps.Keys(clearers)) {
				if turn++; testing.Short() && turn%len(clearers) != n { // each way to clear takes its turn
					continue
				}
				clearer := clearers[by]
				t.Run(what+" at "+step+" cleared by "+by, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, drivertest.Guest{})
					w.create("other")
					if what == "destroy" {
						w.create("m")
					}
					w.killed(step, what)
					if err := clearer(w); err != nil {
						t.Errorf("clearing: %v", err)
					}
					w.state("other", machine.Running)
					w.age()
					if _, err := w.Sweep(t.Context(), false); err != nil {
						t.Errorf("Sweep: %v", err)
					}
					if diff := cmp.Diff([]string{"other"}, w.machines()); diff != "" {
						t.Errorf("machines (-want +got):\n%s", diff)
					}
					w.state("other", machine.Running)
				})
			}
		}
	}
}

// age makes everything look old enough for gc.
func (w *world) age() {
	w.Helper()
	old := time.Now().Add(-time.Hour)
	for _, sub := range []string{"machines", "cache/boot"} {
		dir := filepath.Join(string(w.Home), sub)
		entries, err := os.ReadDir(dir)
		if err != nil {
			w.Fatal(err)
		}
		for _, e := range entries {
			if err := os.Chtimes(filepath.Join(dir, e.Name()), old, old); err != nil {
				w.Fatal(err)
			}
		}
	}
}
