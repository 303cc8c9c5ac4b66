package qemu_test

import (
	"bytes"
	"errors"
	"image/color"
	"os"
	"path/filepath"
	"testing"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
)

// put writes text at the beginning of the machine's disk.
func put(t *testing.T, i machine.Instance, text string) {
	t.Helper()
	f, err := os.OpenFile(i.Spec.Path("disk.raw"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", filepath.Base(path), got, err, want)
	}
}

// TestSnapshotsHoldTheDisk sees that each snapshot has the disk of its time,
// and that going back to one changes none.
func TestSnapshotsHoldTheDisk(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := fresh(t, d, "tcg")
	p := d.(machine.Snapshotter)
	for _, text := range []string{"one", "two"} {
		put(t, i, text)
		if err := p.Snapshot(t.Context(), i, text); err != nil {
			t.Fatal(err)
		}
	}
	put(t, i, "now")
	i.Spec.DiskMiB = 128 // it has grown since
	for _, text := range []string{"one", "two", "one"} {
		if err := p.Revert(t.Context(), i, text); err != nil {
			t.Fatal(err)
		}
		holds(t, i.Spec.Path("disk.raw"), text)
		put(t, i, "xyz")
	}
	holds(t, i.Spec.Path("snapshots/one/disk.raw"), "one")
	holds(t, i.Spec.Path("snapshots/two/disk.raw"), "two")
	if info, err := os.Stat(i.Spec.Path("disk.raw")); err != nil || info.Size() != 128<<20 {
		t.Errorf("the disk has %d bytes, %v; want those of the machine as it is", info.Size(), err)
	}
}

// TestRevertIsFinished cuts a revert short at each of its steps and sees that
// it counts from the moment it is noted, and not before.
func TestRevertIsFinished(t *testing.T) {
	t.Parallel()
	files := func(done int) map[string]string { // what a command killed after so many steps leaves
		parts := map[string]string{"saved.part": `{"layout":1}`, "state.part": "memory", "disk.part": "then"}
		for n, move := range [][2]string{{"disk.part", "disk.raw"}, {"saved.part", "saved.json"}, {"state.part", "state.bin"}} {
			if n < done {
				parts[move[1]] = parts[move[0]]
				delete(parts, move[0])
			}
		}
		if done == 0 {
			parts["state.bin"], parts["saved.json"] = "old memory", "{}"
		}
		return parts
	}
	for done := range 4 {
		d := newFake(t)
		i := fresh(t, d, "tcg")
		put(t, i, "now!")
		left := files(done)
		left["revert.json"] = `{"time":"2026-01-02T03:04:05Z","memory":true}`
		for name, text := range left {
			if err := os.WriteFile(i.Spec.Path(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := state(t, d, i); got != machine.Saved {
			t.Errorf("after %d steps: State = %q, want saved", done, got)
		}
		// Asking changed nothing; the next command that changes it does.
		if _, err := d.(machine.Changer).Change(t.Context(), i, i.Spec); err == nil {
			t.Errorf("after %d steps: Change of a saved machine = nil, want a refusal", done)
		}
		holds(t, i.Spec.Path("disk.raw"), "then")
		holds(t, i.Spec.Path("state.bin"), "memory")
		for _, gone := range []string{"revert.json", "disk.part", "state.part", "saved.part"} {
			if _, err := os.Stat(i.Spec.Path(gone)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after %d steps: %s is still there", done, gone)
			}
		}
	}
	// Not noted: the copies are dropped, the machine is as it was.
	d := newFake(t)
	i := fresh(t, d, "tcg")
	put(t, i, "now!")
	if err := os.WriteFile(i.Spec.Path("disk.part"), []byte("then"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	holds(t, i.Spec.Path("disk.raw"), "now!")
	if _, err := os.Stat(i.Spec.Path("disk.part")); !errors.Is(err, os.ErrNotExist) {
		t.Error("half a copy was kept")
	}
}

// TestKilledSnapshot sees that a machine whose snapshot was cut short after its
// memory was written can go on, and be saved.
func TestKilledSnapshot(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	i := fresh(t, d, "tcg")
	if err := d.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := qemu.Dump(t.Context(), d, i); err != nil {
		t.Fatal(err)
	}
	if got := state(t, d, i); got != machine.Paused {
		t.Errorf("State = %q, want paused", got)
	}
	if err := d.(machine.Saver).Save(t.Context(), i); err != nil {
		t.Errorf("Save: %v", err)
	}
	if err := d.Start(t.Context(), i); err != nil {
		t.Errorf("Start: %v", err)
	}
	if got := state(t, d, i); got != machine.Running {
		t.Errorf("State = %q, want running", got)
	}
}

func TestPicture(t *testing.T) {
	t.Parallel()
	got, err := qemu.ReadPPM(bytes.NewReader([]byte("P6\n2 1\n255\n\xff\x00\x00\x00\x00\xff")))
	if err != nil {
		t.Fatal(err)
	}
	if got.At(0, 0) != (color.NRGBA{255, 0, 0, 255}) || got.At(1, 0) != (color.NRGBA{0, 0, 255, 255}) {
		t.Errorf("the picture is %v %v, want red and blue", got.At(0, 0), got.At(1, 0))
	}
}

func FuzzPicture(f *testing.F) {
	f.Add([]byte("P6\n2 1\n255\n\xff\x00\x00\x00\x00\xff"))
	f.Add([]byte("P6\n16384 16384\n255\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = qemu.ReadPPM(bytes.NewReader(data)) })
}
