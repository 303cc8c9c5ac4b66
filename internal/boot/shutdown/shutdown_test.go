package shutdown

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const mountinfo = `20 1 0:2 / / rw - rootfs rootfs rw
40 20 0:20 / /oldroot rw,relatime shared:1 - overlay mica rw,lowerdir=/root.ro
41 40 0:21 / /oldroot/mnt/.ro ro - fuse.mica test.example.org ro
42 40 254:1 / /oldroot/mnt/.rw rw - ext4 /dev/vda1 rw
43 40 254:1 /cvmfs /oldroot/cvmfs rw - ext4 /dev/vda1 rw
44 43 0:30 / /oldroot/cvmfs/a\040b rw - tmpfs none rw
45 20 0:31 / /oldrootish rw - tmpfs none rw
short line
`

func TestBelow(t *testing.T) {
	var points []string
	for _, m := range Below(ParseMountinfo([]byte(mountinfo)), "/oldroot") {
		points = append(points, m.Point)
	}
	want := []string{"/oldroot/cvmfs/a b", "/oldroot/cvmfs", "/oldroot/mnt/.rw", "/oldroot/mnt/.ro", "/oldroot"}
	if diff := cmp.Diff(want, points); diff != "" {
		t.Errorf("Below (-want +got):\n%s", diff)
	}
}

func TestParseVerb(t *testing.T) {
	for text, want := range map[string]Verb{"": Reboot, "reboot": Reboot, "poweroff": PowerOff, "halt": Halt, "kexec": Kexec, "exit": Reboot} {
		if got := ParseVerb(strings.Fields(text + " --log-level=6")); text != "" && got != want {
			t.Errorf("ParseVerb(%q) = %q, want %q", text, got, want)
		}
	}
	if got := ParseVerb(nil); got != Reboot {
		t.Errorf("ParseVerb(nil) = %q, want reboot", got)
	}
}

// machine is a fake of the kernel: mounts with a stack order, processes that
// hold them, and a record of what was done.
type machine struct {
	t      *testing.T
	proc   string
	mounts []string
	procs  map[int]string
	did    []string
	stuck  map[string]bool // mounts that stay busy
	deaf   map[int]bool    // processes that only SIGKILL ends
}

func (m *machine) write() {
	m.t.Helper()
	var b strings.Builder
	for i, p := range m.mounts {
		fmt.Fprintf(&b, "%d 1 0:1 / %s rw - x x rw\n", i+10, p)
	}
	if err := os.MkdirAll(filepath.Join(m.proc, "self"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.proc, "self/mountinfo"), []byte(b.String()), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) start(pid int, name string) {
	m.t.Helper()
	dir := filepath.Join(m.proc, fmt.Sprint(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if name != "" {
		name += "\x00arg"
	}
	if err := os.WriteFile(filepath.Join(dir, "cmdline"), []byte(name), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.procs[pid] = name
}

func (m *machine) sequence() Sequence {
	return Sequence{
		OldRoot: "/oldroot", Proc: m.proc, Print: &bytes.Buffer{},
		TearDown: func(context.Context, string) error { m.did = append(m.did, "tear down"); return nil },
		Unmount: func(point string, flags int) error {
			if flags == 0 && m.stuck[point] {
				return unix.EBUSY
			}
			for _, other := range m.mounts {
				if flags == 0 && strings.HasPrefix(other, point+"/") {
					return unix.EBUSY
				}
			}
			// UROOT is held by the overlay and by the repository's process.
			if point == "/rw" && flags == 0 && (slices.Contains(m.mounts, "/oldroot") || strings.HasPrefix(m.procs[50], "@mica-")) {
				return unix.EBUSY
			}
			i := slices.Index(m.mounts, point)
			if i < 0 {
				return unix.EINVAL
			}
			m.mounts = slices.Delete(m.mounts, i, i+1)
			m.did = append(m.did, "unmount "+point)
			m.write()
			return nil
		},
		Move: func(from, to string) error {
			m.mounts[slices.Index(m.mounts, from)] = to
			m.write()
			return nil
		},
		Kill: func(pid int, sig unix.Signal) error {
			if sig != unix.SIGKILL && m.deaf[pid] {
				return nil
			}
			m.did = append(m.did, fmt.Sprintf("kill %d", pid))
			delete(m.procs, pid)
			return os.RemoveAll(filepath.Join(m.proc, fmt.Sprint(pid)))
		},
		Remount: func(point string) error { m.did = append(m.did, "read-only "+point); return nil },
		Sleep:   func(time.Duration) {},
	}
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, proc: t.TempDir(), procs: map[int]string{}, stuck: map[string]bool{}, deaf: map[int]bool{}}
	m.mounts = []string{"/", "/oldroot", "/oldroot/mnt/.ro", "/oldroot/mnt/.rw", "/oldroot/cvmfs", "/oldroot/cvmfs/x"}
	m.write()
	m.start(2, "") // a kernel thread
	m.start(50, "@mica-repository")
	m.start(60, "/usr/bin/left-over")
	return m
}

func TestOrder(t *testing.T) {
	m := newMachine(t)
	if err := m.sequence().Run(t.Context()); err != nil {
		t.Errorf("Run: %v", err)
	}
	want := []string{"kill 60", "unmount /oldroot/cvmfs/x", "unmount /oldroot/cvmfs", "tear down", "unmount /oldroot", "kill 50", "unmount /ro", "unmount /rw"}
	if diff := cmp.Diff(want, m.did); diff != "" {
		t.Errorf("what was done (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/"}, m.mounts); diff != "" {
		t.Errorf("mounts left (-want +got):\n%s", diff)
	}
	if _, there := m.procs[2]; !there {
		t.Error("a kernel thread was killed")
	}
}

func TestDeafProcesses(t *testing.T) {
	m := newMachine(t)
	m.deaf[50], m.deaf[60] = true, true
	if err := m.sequence().Run(t.Context()); err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(m.procs) != 1 {
		t.Errorf("processes left: %v", m.procs)
	}
}

func TestBusyDiskBecomesReadOnly(t *testing.T) {
	m := newMachine(t)
	m.stuck["/rw"] = true
	err := m.sequence().Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("Run = %v, want an error that says read-only", err)
	}
	if !slices.Contains(m.did, "read-only /rw") {
		t.Errorf("did %v, want read-only /rw", m.did)
	}
}

func TestSystemdHasUnmountedMuch(t *testing.T) {
	m := newMachine(t)
	m.mounts = []string{"/", "/oldroot"}
	m.write()
	if err := m.sequence().Run(t.Context()); err != nil {
		t.Errorf("Run: %v", err)
	}
	if diff := cmp.Diff([]string{"/"}, m.mounts); diff != "" {
		t.Errorf("mounts left (-want +got):\n%s", diff)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add([]byte(mountinfo))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range ParseMountinfo(data) {
			if m.Type == "" {
				t.Errorf("ParseMountinfo(%q) gives a mount without type", data)
			}
		}
	})
}
