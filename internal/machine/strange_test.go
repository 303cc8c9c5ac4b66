package machine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// TestStrangeHome lives a whole life below a folder whose name has all that
// file names may have, and that is too long for a socket.
func TestStrangeHome(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	dir := filepath.Join(t.TempDir(), "Ünïcode 家, with =, [brackets], 'quotes' \"too\" & 100%", strings.Repeat("long", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(dir, "boot image.iso")
	data, err := os.ReadFile(w.iso)
	if err == nil {
		err = os.WriteFile(iso, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := fleetIn(filepath.Join(dir, "home"), w.program)
	t.Cleanup(func() {
		all, _ := f.List(context.Background())
		for _, m := range all {
			if err := f.Destroy(context.Background(), m.Name, true); err != nil {
				t.Errorf("Destroy: %v", err)
			}
		}
	})
	ctx := t.Context()
	kept := filepath.Join(f.Home.Images(), "kept.iso")
	if err := errors.Join(os.MkdirAll(f.Home.Images(), 0o700), os.WriteFile(kept, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	if found, err := machine.FindImage(f.Home, "", func(string) string { return "" }); found != kept || err != nil {
		t.Errorf("FindImage = %q, %v; want %q", found, err, kept)
	}
	if _, err := f.Create(ctx, orderOf("m", iso)); err != nil {
		t.Fatalf("Create: %v (hints %q)", err, fail.Hints(err))
	}
	var packed bytes.Buffer
	steps := []struct {
		name string
		do   func() error
	}{
		{"Snapshot", func() error { _, err := f.Snapshot(ctx, "m", "one"); return err }},
		{"Save", func() error { _, err := f.Save(ctx, "m"); return err }},
		{"Start", func() error { _, err := f.Start(ctx, "m"); return err }},
		{"AddForwards", func() error {
			_, err := f.AddForwards(ctx, "m", []machine.Forward{{Guest: 80, Auto: true}})
			return err
		}},
		{"WriteReport", func() error { return f.WriteReport(ctx, &packed, "m", machine.Bundle{}, os.Getenv) }},
		{"PowerOff", func() error { _, err := f.PowerOff(ctx, "m"); return err }},
		{"Revert", func() error { _, err := f.Revert(ctx, "m", "one"); return err }},
		{"Start from the snapshot", func() error { _, err := f.Start(ctx, "m"); return err }},
		{"PowerOff again", func() error { _, err := f.PowerOff(ctx, "m"); return err }},
		{"Clone", func() error { _, err := f.Clone(ctx, "m", "twin", nil); return err }},
		{"Rename", func() error { return f.Rename(ctx, "twin", "other") }},
		{"Start of the clone", func() error { _, err := f.Start(ctx, "other"); return err }},
		{"Doctor", func() error {
			return f.Doctor(ctx, true, func(string) string { return iso }, func(one machine.Finding) {
				if one.Health == machine.Problem {
					t.Errorf("Doctor: %+v", one)
				}
			})
		}},
		{"Sweep", func() error { _, err := f.Sweep(ctx, false); return err }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v (hints %q)", step.name, err, fail.Hints(err))
		}
	}
	if all, err := f.List(ctx); err != nil || len(all) != 2 {
		t.Errorf("List = %d machines, %v; want 2", len(all), err)
	}
}

// TestCorruptRecords sees that no record, whatever is in it, hurts a command or
// another machine, and that each such machine can be destroyed.
func TestCorruptRecords(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.create("other")
	for _, text := range []string{
		"", "{", "null", "[]", "\x00\xff", `{"schema": 99}`, `{"schema": 1, "instance": {"spec": {"name": "other"}}}`,
		`{"schema": 1, "phase": "created", "instance": {"spec": {"name": "m", "driver": "none"}}}`,
		`{"schema": 1, "phase": "created", "instance": {"spec": {"name": "x"}}, "pending": {"name": "y"}}`,
		strings.Repeat(`{"a":`, 20000),
	} {
		w.off("m")
		path := filepath.Join(string(w.Home), "machines", "m", "record.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		shown := text[:min(len(text), 60)]
		m, err := w.Get(t.Context(), "m")
		if err != nil || m.State != machine.Damaged && m.State != machine.Unknown && m.State != machine.Incomplete || m.State != machine.Incomplete && m.Err == nil {
			t.Errorf("Get with record %q = %q, %v, %v; want damaged or unknown, and why", shown, m.State, m.Err, err)
		}
		for what, err := range map[string]error{
			"Start":  func() error { _, err := w.Start(t.Context(), "m"); return err }(),
			"Clone":  func() error { _, err := w.Clone(t.Context(), "m", "twin", nil); return err }(),
			"Rename": w.Rename(t.Context(), "m", "twin"),
		} {
			if err == nil {
				t.Errorf("%s with record %q = nil, want an error", what, shown)
			}
		}
		if d, err := w.Why(t.Context(), "m"); err != nil || d.Verdict != machine.Broken || len(d.Remedy) == 0 && m.State == machine.Damaged {
			t.Errorf("Why with record %q = %+v, %v; want broken and a remedy", shown, d, err)
		}
		if err := w.Destroy(t.Context(), "m", true); err != nil && !fail.Is(err, fail.Usage) {
			t.Errorf("Destroy with record %q: %v", shown, err)
		} else if err != nil { // it names a driver that is not there: then only by hand
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("record %q is still there", shown)
		}
		w.state("other", machine.Running)
	}
}

// TestForeignFolder sees that a folder with no machine in it, which somebody else
// put among the machines, stays.
func TestForeignFolder(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	file := filepath.Join(string(w.Home), "machines", "mine", "thesis.tex")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("years"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.off("m")
	_, created := w.Create(t.Context(), orderOf("mine", w.iso))
	for what, err := range map[string]error{"Create": created, "Rename": w.Rename(t.Context(), "m", "mine")} {
		if !fail.Is(err, fail.Conflict) || len(fail.Hints(err)) == 0 {
			t.Errorf("%s = %v, want class Conflict and a hint", what, err)
		}
	}
	if _, err := w.Sweep(t.Context(), false); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "years" {
		t.Errorf("the file holds %q, %v", data, err)
	}
}
