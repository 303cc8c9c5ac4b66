package machine_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// off makes a machine that is off.
func (w *world) off(name string) *machine.Record {
	w.Helper()
	o := orderOf(name, w.iso)
	o.Off, o.Spec.PublicKeys = true, []string{"ssh-ed25519 AAAA someone"}
	r, err := w.Create(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) spec(name string) machine.Spec {
	w.Helper()
	m, err := w.Get(w.Context(), name)
	if err != nil || m.Record == nil {
		w.Fatalf("Get(%q) = %v, %v", name, err, m.Err)
	}
	return m.Record.Instance.Spec
}

func (w *world) disk(name string) string {
	return filepath.Join(string(w.Home), "machines", name, "disk.raw")
}

// mark writes text at the beginning of a machine's disk.
func (w *world) mark(name, text string) {
	w.Helper()
	f, err := os.OpenFile(w.disk(name), os.O_WRONLY, 0)
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		w.Fatal(err)
	}
}

func (w *world) marked(name string, want ...string) {
	w.Helper()
	f, err := os.Open(w.disk(name))
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want[0]))
	if _, err := f.ReadAt(got, 0); err != nil || !slices.Contains(want, string(got)) {
		w.Errorf("the disk of %s holds %q, %v; want %q", name, got, err, want)
	}
}

func TestResize(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.off("m")
	w.mark("m", "content")
	if changed, err := w.Resize(t.Context(), "m", 128, 2, 96); !changed || err != nil {
		t.Fatalf("Resize = %v, %v", changed, err)
	}
	if s := w.spec("m"); s.MemoryMiB != 128 || s.CPUs != 2 || s.DiskMiB != 96 {
		t.Errorf("spec = %+v, want the new sizes", s)
	}
	if info, err := os.Stat(w.disk("m")); err != nil || info.Size() != 96<<20 {
		t.Errorf("the disk has %d bytes, %v; want 96 MiB", info.Size(), err)
	}
	if changed, err := w.Resize(t.Context(), "m", 128, 0, 0); changed || err != nil {
		t.Errorf("Resize to what it is = %v, %v; want nothing to do", changed, err)
	}
	if _, err := w.Resize(t.Context(), "m", 0, 0, 64); !fail.Is(err, fail.Usage) {
		t.Errorf("Resize to a smaller disk = %v, want class Usage", err)
	}
	if _, err := w.Resize(t.Context(), "m", 0, 1000, 0); !fail.Is(err, fail.Usage) {
		t.Errorf("Resize to 1000 processors = %v, want class Usage", err)
	}
	w.marked("m", "content")
	if _, err := w.Start(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Resize(t.Context(), "m", 256, 0, 0); !fail.Is(err, fail.Usage) || len(fail.Hints(err)) == 0 {
		t.Errorf("Resize of a machine that runs = %v, want class Usage and a hint", err)
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	id := w.off("old").Instance.Spec.ID
	w.off("taken")
	w.mark("old", "content")
	if err := w.Rename(t.Context(), "old", "taken"); !fail.Is(err, fail.Conflict) {
		t.Errorf("Rename to a taken name = %v, want class Conflict", err)
	}
	if err := w.Rename(t.Context(), "old", "../x"); !fail.Is(err, fail.Usage) {
		t.Errorf("Rename to no name = %v, want class Usage", err)
	}
	if err := w.Rename(t.Context(), "old", "new"); err != nil {
		t.Fatal(err)
	}
	if got := w.machines(); !slices.Equal(got, []string{"new", "taken"}) {
		t.Errorf("machines = %q", got)
	}
	if s := w.spec("new"); s.ID != id || s.Name != "new" {
		t.Errorf("spec = %+v, want the same machine", s)
	}
	w.marked("new", "content")
	if _, err := w.Start(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	login, err := w.Login(t.Context(), "new", machine.DoSSH)
	if err != nil || !strings.Contains(login.Key, "/new/") {
		t.Errorf("Login = %+v, %v; want the key where it is now", login, err)
	}
	if err := w.Rename(t.Context(), "new", "newer"); !fail.Is(err, fail.Usage) {
		t.Errorf("Rename of a machine that runs = %v, want class Usage", err)
	}
}

func TestClone(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	before := w.off("m")
	w.mark("m", "content")
	clone, err := w.Clone(t.Context(), "m", "twin", []string{"copy"})
	if err != nil {
		t.Fatal(err)
	}
	w.state("twin", machine.Stopped)
	w.marked("twin", "content")
	a, b := before.Instance.Spec, clone.Instance.Spec
	if a.ID == b.ID || a.SSHPort() == b.SSHPort() || b.MemoryMiB != a.MemoryMiB || b.Image.SHA256 != a.Image.SHA256 || b.Image.Path != a.Image.Path {
		t.Errorf("clone of %+v is %+v", a, b)
	}
	read := func(name, file string) string {
		data, err := os.ReadFile(filepath.Join(string(w.Home), "machines", name, file))
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	if read("m", "id_ed25519") == read("twin", "id_ed25519") {
		t.Error("the clone has the key of the other one")
	}
	for _, same := range []string{"context", "authorized_keys"} {
		if read("m", same) != read("twin", same) {
			t.Errorf("the clone has another %s", same)
		}
	}
	w.mark("twin", "changed")
	w.marked("m", "content")
	for _, name := range []string{"m", "twin"} {
		if _, err := w.Start(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Clone(t.Context(), "m", "third", nil); !fail.Is(err, fail.Usage) {
		t.Errorf("Clone of a machine that runs = %v, want class Usage", err)
	}
	if _, err := w.PowerOff(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Clone(t.Context(), "m", "twin", nil); !fail.Is(err, fail.Conflict) {
		t.Errorf("Clone to a taken name = %v, want class Conflict", err)
	}
	if err := w.Destroy(t.Context(), "m", false); err != nil {
		t.Fatal(err)
	}
	w.state("twin", machine.Running)
}

func TestSnapshots(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.off("m")
	w.mark("m", "one")
	name, err := w.Snapshot(t.Context(), "m", "")
	if err != nil || len(name) != len("20060102-150405") {
		t.Fatalf("Snapshot = %q, %v; want a name from the time", name, err)
	}
	w.mark("m", "two")
	if _, err := w.Snapshot(t.Context(), "m", "../x"); !fail.Is(err, fail.Usage) {
		t.Errorf("Snapshot with no name = %v, want class Usage", err)
	}
	if state, err := w.Revert(t.Context(), "m", name); state != machine.Stopped || err != nil {
		t.Errorf("Revert = %q, %v", state, err)
	}
	w.marked("m", "one")
	if _, err := w.Start(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Snapshot(t.Context(), "m", "live"); err != nil {
		t.Fatal(err)
	}
	w.state("m", machine.Running)
	if _, err := w.Revert(t.Context(), "m", "live"); !fail.Is(err, fail.Usage) || len(fail.Hints(err)) == 0 {
		t.Errorf("Revert of a machine that runs = %v, want class Usage and a hint", err)
	}
	if _, err := w.PowerOff(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Resize(t.Context(), "m", 128, 0, 0); !fail.Is(err, fail.Conflict) {
		t.Errorf("Resize where a snapshot has memory = %v, want class Conflict", err)
	}
	w.state("m", machine.Stopped)
	if s := w.spec("m"); s.MemoryMiB != 64 {
		t.Errorf("a refused Resize left %d MiB", s.MemoryMiB)
	}
	if state, err := w.Revert(t.Context(), "m", "live"); state != machine.Saved || err != nil {
		t.Errorf("Revert = %q, %v; want saved", state, err)
	}
	if err := w.DropSnapshot(t.Context(), "m", "nope"); !fail.Is(err, fail.NotFound) || len(fail.Hints(err)) == 0 {
		t.Errorf("DropSnapshot of none = %v, hints %q; want class NotFound and a hint", err, fail.Hints(err))
	}
	if err := w.DropSnapshot(t.Context(), "m", name); err != nil {
		t.Error(err)
	}
	all, err := w.Snapshots(t.Context(), "m")
	if err != nil || len(all) != 1 || all[0].Name != "live" || !all[0].Memory {
		t.Errorf("Snapshots = %+v, %v", all, err)
	}
}

func TestForwards(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.create("m")
	now, err := w.AddForwards(t.Context(), "m", []machine.Forward{{Guest: 80, Auto: true}, {Guest: 443, Auto: true}})
	if err != nil || len(now) != 3 || now[1].Host == 0 || now[1].Host == now[2].Host {
		t.Fatalf("AddForwards = %v, %v; want two more ports", now, err)
	}
	if got := w.spec("m").Forwards; !slices.Equal(got, now) {
		t.Errorf("the record has %v, want %v", got, now)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, one := range []machine.Forward{{Host: port, Guest: 81}, {Host: now[1].Host, Guest: 82}} {
		if _, err := w.AddForwards(t.Context(), "m", []machine.Forward{one}); !fail.Is(err, fail.Conflict) {
			t.Errorf("AddForwards of a taken port = %v, want class Conflict", err)
		}
	}
	if _, err := w.AddForwards(t.Context(), "m", []machine.Forward{{Host: 8080, Guest: 70000}}); !fail.Is(err, fail.Usage) {
		t.Errorf("AddForwards of no port = %v, want class Usage", err)
	}
	if got := w.spec("m").Forwards; !slices.Equal(got, now) {
		t.Errorf("after refusals the record has %v, want %v", got, now)
	}
	if _, err := w.RemoveForwards(t.Context(), "m", []int{port}); !fail.Is(err, fail.NotFound) {
		t.Errorf("RemoveForwards of another port = %v, want class NotFound", err)
	}
	left, err := w.RemoveForwards(t.Context(), "m", []int{now[1].Host})
	if err != nil || len(left) != 2 {
		t.Errorf("RemoveForwards = %v, %v", left, err)
	}
	again, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(now[1].Host)))
	if err != nil {
		t.Errorf("the removed port is still held: %v", err)
	} else {
		_ = again.Close()
	}
	if _, err := w.PowerOff(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddForwards(t.Context(), "m", []machine.Forward{{Guest: 80, Auto: true}}); err != nil {
		t.Errorf("AddForwards of a machine that is off: %v", err)
	}
	if _, err := w.Start(t.Context(), "m"); err != nil {
		t.Errorf("Start: %v", err)
	}
}
