package qemu_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
)

// TestKVMGivesUp sees that a guest on which KVM gives up runs by emulation,
// unless KVM was asked for.
func TestKVMGivesUp(t *testing.T) {
	t.Parallel()
	d := qemu.KVM(newFaulty(t, fakeqemu.FaultInternal))
	i := fresh(t, d, "auto")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatalf("Start: %v", err)
	}
	facts, err := d.(machine.Describer).Describe(t.Context(), i)
	if err != nil || facts["accel"] != "tcg" || facts["qemu_status"] != "running" {
		t.Errorf("Describe = %v, %v; want running by tcg", facts, err)
	}

	asked := fresh(t, d, "kvm")
	if err := d.Start(t.Context(), asked); !fail.Is(err, fail.HostLacks) || !strings.Contains(strings.Join(fail.Hints(err), " "), "--accel tcg") {
		t.Errorf("Start with kvm = %v, hints %q; want class HostLacks and the way out", err, fail.Hints(err))
	}
	if got := state(t, d, asked); got != machine.Stopped {
		t.Errorf("State = %q, want stopped", got)
	}
}

func TestKVMIsUsed(t *testing.T) {
	t.Parallel()
	d := qemu.KVM(newFake(t))
	r, err := d.Probe(t.Context())
	if err != nil || len(r.Accel) != 2 || r.Accel[0] != "kvm" || len(r.Warnings) != 0 {
		t.Errorf("Probe = %+v, %v; want kvm first and no warning", r, err)
	}
	i := fresh(t, d, "")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if facts, err := d.(machine.Describer).Describe(t.Context(), i); err != nil || facts["accel"] != "kvm" {
		t.Errorf("Describe = %v, %v; want kvm", facts, err)
	}
	// What was saved under KVM goes on under KVM.
	if err := d.(machine.Saver).Save(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if facts, err := d.(machine.Describer).Describe(t.Context(), i); err != nil || facts["accel"] != "kvm" || facts["machine_type"] != "pc-q35-7.2" {
		t.Errorf("Describe = %v, %v; want kvm on pc-q35-7.2", facts, err)
	}
}

func TestKVMWorks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cpuinfo := filepath.Join(dir, "cpuinfo")
	if err := os.WriteFile(cpuinfo, []byte("processor: 0\nflags\t\t: fpu vme svm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{filepath.Join(dir, "none"), os.DevNull} { // absent; there, but something else
		err := qemu.KVMWorks(device, cpuinfo)
		if !fail.Is(err, fail.HostLacks) || !strings.Contains(strings.Join(fail.Hints(err), " "), "--accel tcg") {
			t.Errorf("KVMWorks(%q) = %v, hints %q; want class HostLacks and the way out", device, err, fail.Hints(err))
		}
	}
}
