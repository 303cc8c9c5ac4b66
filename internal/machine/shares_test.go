package machine_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// folder makes a folder to be shared, by the path that the core wants.
func (w *world) folder(name string) machine.Share {
	w.Helper()
	dir, err := filepath.EvalSymlinks(w.TempDir())
	if err != nil {
		w.Fatal(err)
	}
	dir = filepath.Join(dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		w.Fatal(err)
	}
	return machine.Share{Name: name, Path: dir}
}

// medium reads what machine m is handed.
func (w *world) medium(m string) (delivery.Found, []byte) {
	w.Helper()
	path := filepath.Join(string(w.Home), "machines", m, "config.iso")
	found, err := delivery.Inspect(path)
	if err != nil {
		w.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	return found, data
}

func TestShares(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	id := w.off("m").Instance.Spec.ID
	one, two := w.folder("papers"), w.folder("figures")
	two.ReadOnly = true

	now, err := w.AddShares(t.Context(), "m", []machine.Share{one, two})
	if diff := cmp.Diff([]machine.Share{one, two}, now); diff != "" || err != nil {
		t.Fatalf("AddShares: %v, shares (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(now, w.spec("m").Shares); diff != "" {
		t.Errorf("shares in the record (-want +got):\n%s", diff)
	}
	key, err := os.ReadFile(w.spec("m").Path("id_ed25519.pub"))
	if err != nil {
		t.Fatal(err)
	}
	told := func(want ...machine.Share) {
		t.Helper()
		found, data := w.medium("m")
		if string(found.UserData) != "#!/bin/sh\nexit\n" || found.Instance != id {
			t.Errorf("the medium has context %q for %s, want the machine's own", found.UserData, found.Instance)
		}
		for _, line := range []string{strings.TrimSpace(string(key)), "ssh-ed25519 AAAA someone"} {
			if !bytes.Contains(data, []byte(line)) {
				t.Errorf("the medium lacks the key %q", line)
			}
		}
		for _, s := range []machine.Share{one, two} {
			if bytes.Contains(data, []byte(s.Name)) != slices.Contains(want, s) {
				t.Errorf("the medium tells of %v: %v", s, !slices.Contains(want, s))
			}
		}
	}
	told(one, two)
	record, err := os.ReadFile(w.spec("m").Path("record.json"))
	if err != nil || bytes.Contains(record, []byte("AAAA")) {
		t.Errorf("the record holds keys (%v):\n%s", err, record)
	}

	if _, err := w.AddShares(t.Context(), "m", []machine.Share{one}); !fail.Is(err, fail.Conflict) || len(fail.Hints(err)) == 0 {
		t.Errorf("AddShares of one that is there = %v, want class Conflict and a hint", err)
	}
	if _, err := w.RemoveShares(t.Context(), "m", []string{"figures", "nothing"}); !fail.Is(err, fail.NotFound) {
		t.Errorf("RemoveShares of one that is not there = %v, want class NotFound", err)
	}
	told(one, two)

	// One that is gone is in the way of the start, not of its removal.
	if err := os.Remove(one.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(t.Context(), "m"); err == nil {
		t.Error("Start without the shared folder succeeded")
	}
	if now, err := w.RemoveShares(t.Context(), "m", []string{"papers"}); err != nil || !slices.Equal(now, []machine.Share{two}) {
		t.Errorf("RemoveShares = %v, %v; want the other one left", now, err)
	}
	told(two)

	if _, err := w.Start(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	refused := func(state machine.State) {
		t.Helper()
		_, err := w.RemoveShares(t.Context(), "m", []string{"figures"})
		if !fail.Is(err, fail.Conflict) || !strings.Contains(fmt.Sprint(fail.Hints(err)), "mica stop") {
			t.Errorf("RemoveShares of a machine that is %s = %v, hints %q; want class Conflict and the remedy", state, err, fail.Hints(err))
		}
	}
	refused(machine.Running)
	if _, err := w.Save(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	refused(machine.Saved)
	told(two)
	if _, err := w.PowerOff(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if now, err := w.RemoveShares(t.Context(), "m", []string{"figures"}); err != nil || len(now) != 0 {
		t.Errorf("RemoveShares = %v, %v; want none left", now, err)
	}
	told()
}

func TestForbiddenShares(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.off("m")
	for _, path := range []string{"/", string(w.Home), filepath.Join(string(w.Home), "machines", "m")} {
		share := []machine.Share{{Name: "x", Path: path}}
		if _, err := w.AddShares(t.Context(), "m", share); !fail.Is(err, fail.Usage) {
			t.Errorf("AddShares(%q) = %v, want class Usage", path, err)
		}
		o := orderOf("other", w.iso)
		o.Spec.Shares = share
		if _, err := w.Create(t.Context(), o); !fail.Is(err, fail.Usage) {
			t.Errorf("Create with share %q = %v, want class Usage", path, err)
		}
	}
	if shares := w.spec("m").Shares; len(shares) != 0 {
		t.Errorf("shares = %v, want none", shares)
	}
}
