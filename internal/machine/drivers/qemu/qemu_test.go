package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

func TestMain(m *testing.M) {
	if fakeqemu.Is(os.Args[0]) {
		os.Exit(fakeqemu.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// newFake returns the driver with this test binary as its QEMU.
func newFake(t *testing.T) machine.Driver {
	t.Helper()
	return newFaulty(t, "")
}

// newFaulty is newFake with something wrong.
func newFaulty(t *testing.T, fault string) machine.Driver {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, program := range []string{fakeqemu.Program, fakeqemu.ProgramARM} {
		if err := os.Symlink(self, filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, program+fakeqemu.FaultSuffix), []byte(fault), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return qemu.New(machine.Env{Getenv: func(name string) string {
		return map[string]string{
			"MICA_QEMU": filepath.Join(dir, fakeqemu.Program), "MICA_QEMU_AARCH64": filepath.Join(dir, fakeqemu.ProgramARM),
		}[name]
	}})
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, drivertest.Case{New: newFake, Parallel: true, Patience: 30 * time.Second})
}

func TestConformanceQEMU(t *testing.T) {
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	drivertest.Run(t, drivertest.Case{
		New:      func(*testing.T) machine.Driver { return qemu.New(machine.Env{}) },
		Parallel: true,
		Patience: 60 * time.Second,
		AtOnce:   2,
	})
}

// fresh makes a machine of the fake.
func fresh(t *testing.T, d machine.Driver, accel string) machine.Instance {
	t.Helper()
	s := machine.Spec{Name: "m", ID: "5f3c9a52-1111-4222-8333-444455556666", MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Accel: accel, Dir: t.TempDir()}
	if err := os.WriteFile(s.ImagePath(), drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), i); err != nil {
			t.Error(err)
		}
	})
	return i
}

func state(t *testing.T, d machine.Driver, i machine.Instance) machine.State {
	t.Helper()
	s, err := d.State(t.Context(), i)
	if err != nil {
		t.Fatalf("State: %v", err)
	}
	return s
}

func TestWithoutSandbox(t *testing.T) {
	t.Parallel()
	d := newFaulty(t, fakeqemu.FaultSandbox)
	i := fresh(t, d, "tcg")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatalf("Start where QEMU has no sandbox: %v", err)
	}
	facts, err := d.(machine.Describer).Describe(t.Context(), i)
	if err != nil || facts["sandbox"] != "false" {
		t.Errorf("Describe = %v, %v; want sandbox false", facts, err)
	}
}

func TestTooLittleMemory(t *testing.T) {
	t.Parallel()
	d := newFaulty(t, fakeqemu.FaultMemory)
	i := fresh(t, d, "tcg")
	err := d.Start(t.Context(), i)
	if !fail.Is(err, fail.HostLacks) || !strings.Contains(fmt.Sprint(fail.Hints(err)), "--memory") {
		t.Errorf("Start = %v, hints %q; want class HostLacks and a hint about --memory", err, fail.Hints(err))
	}
	if got := state(t, d, i); got != machine.Stopped {
		t.Errorf("State = %q, want stopped", got)
	}
}

// TestDeafQEMU sees that one that does not hear quit is killed.
func TestDeafQEMU(t *testing.T) {
	t.Parallel()
	tier.Full(t) // takes as long as quit is waited for
	d := newFaulty(t, fakeqemu.FaultDeaf)
	i := fresh(t, d, "tcg")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(t.Context(), i, machine.PowerOff); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if got := state(t, d, i); got != machine.Stopped {
		t.Errorf("State = %q, want stopped", got)
	}
}

// TestSaveIsAllOrNothing sees that a guest whose memory could not be written
// runs on.
func TestSaveIsAllOrNothing(t *testing.T) {
	t.Parallel()
	d := newFaulty(t, fakeqemu.FaultSave)
	i := fresh(t, d, "tcg")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := d.(machine.Saver).Save(t.Context(), i); err == nil {
		t.Error("Save = nil, want an error")
	}
	if got := state(t, d, i); got != machine.Running {
		t.Errorf("State = %q, want running", got)
	}
	for _, name := range []string{"state.bin", "state.part"} {
		if _, err := os.Stat(i.Spec.Path(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was left behind", name)
		}
	}
}

// TestDamagedState sees that memory that does not load is kept, and the way out.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := fresh(t, d, "tcg")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := d.(machine.Saver).Save(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.Spec.Path("state.bin"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := d.Start(t.Context(), i)
	if err == nil || !strings.Contains(fmt.Sprint(fail.Hints(err)), "--power-off") {
		t.Errorf("Start = %v, hints %q; want the way out", err, fail.Hints(err))
	}
	if got := state(t, d, i); got != machine.Saved {
		t.Errorf("State = %q, want saved", got)
	}
	if err := d.Stop(t.Context(), i, machine.PowerOff); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), i); err != nil {
		t.Errorf("Start after the memory was dropped: %v", err)
	}
}

// TestOtherLayout sees that memory saved with other devices is not loaded.
func TestOtherLayout(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := fresh(t, d, "tcg")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := d.(machine.Saver).Save(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.Spec.Path("saved.json"), []byte(`{"layout": 99, "accel": "tcg", "machine": "q35"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), i); err == nil || !strings.Contains(err.Error(), "another version of mica") {
		t.Errorf("Start = %v, want a refusal", err)
	}
	if got := state(t, d, i); got != machine.Saved {
		t.Errorf("State = %q, want saved", got)
	}
}

// TestStaleState sees that memory the guest has run on from is never loaded
// again, though a command was killed before it could remove it.
func TestStaleState(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := fresh(t, d, "tcg")
	if err := os.WriteFile(i.Spec.Path("state.loaded"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := state(t, d, i); got != machine.Stopped {
		t.Errorf("State = %q, want stopped", got)
	}
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(i.Spec.Path("state.loaded")); !errors.Is(err, os.ErrNotExist) {
		t.Error("old memory was kept")
	}
}
