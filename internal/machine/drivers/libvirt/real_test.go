package libvirt_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

// inside names the kind of daemon that a test process finds beside it. The
// tests that need one run in a second process, within a world of its own that
// scripts/libvirtd.sh makes.
const inside = "MICA_TEST_LIBVIRT"

// beside skips the test unless the process is beside such a daemon.
func beside(t *testing.T, kinds ...string) string {
	t.Helper()
	here := os.Getenv(inside)
	for _, kind := range kinds {
		if kind == here {
			return here
		}
	}
	t.Skipf("runs beside a daemon (%s), in a process of its own", strings.Join(kinds, ", "))
	return ""
}

// world runs the tests of a pattern in a process beside a daemon, except those
// that another kind has shown already.
func world(t *testing.T, kind, mode, pattern, except string, env ...string) {
	t.Helper()
	t.Parallel() // they see nothing of each other, and wait a lot
	tier.Root(t)
	for _, tool := range []string{"libvirtd", "virtlogd", "tini", "qemu-system-x86_64"} {
		tier.Tool(t, tool)
	}
	script, err := filepath.Abs("../../../../scripts/libvirtd.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "libvirt-test-") //nolint:usetesting // another user runs what is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "libvirt.test")
	if err := os.WriteFile(program, self, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	args := []string{mode, program, "-test.run", pattern, "-test.timeout", "10m"}
	if except != "" {
		args = append(args, "-test.skip", except)
	}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), script, args...)
	cmd.Env = append(append(os.Environ(), inside+"="+kind), env...)
	cmd.Dir = "/"
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%s took %s\n%s", kind, time.Since(began).Round(time.Second), out)
	if err != nil {
		t.Errorf("beside %s: %v", kind, err)
	}
	if !strings.Contains(string(out), "PASS") && !strings.Contains(string(out), "ok") {
		t.Errorf("beside %s: no test has passed", kind)
	}
}

// TestSystem is about the system's daemon whose QEMU runs as the caller.
func TestSystem(t *testing.T) {
	world(t, "system", "run", "^TestConformance$/^(probe|life|clone|more_disks|change_of_shares)$|^TestBeside", "")
}

// TestKilled is about commands that are killed beside such a daemon.
func TestKilled(t *testing.T) {
	world(t, "killed", "run", "^TestBeside(Killed|Swept)$", "")
}

func TestConformance(t *testing.T) {
	beside(t, "system", "pool", "session", "remote")
	drivertest.Run(t, drivertest.Case{
		New:      func(*testing.T) machine.Driver { return libvirt.Real() },
		Patience: 60 * time.Second,
		AtOnce:   2,
	})
}

// TestPool is about the system's daemon as distributions set it up: its QEMU
// runs as another user, so that the files are volumes. That user cannot look into
// the suite's own folders; disks and shares that it can are in TestPoolMore.
func TestPool(t *testing.T) {
	world(t, "pool", "run", "^TestConformance$", "/strange_folders|/more_disks$|/change_of_shares", "LIBVIRTD_QEMU_USER=libvirt-qemu")
}

// TestPoolMore is about what is in no other driver.
func TestPoolMore(t *testing.T) {
	world(t, "pool", "run", "^TestBeside", "", "LIBVIRTD_QEMU_USER=libvirt-qemu")
}

// TestLog is about logs that are cut soon.
func TestLog(t *testing.T) {
	world(t, "log", "run", "^TestBesideLog$", "", "LIBVIRTD_LOG_SIZE=256")
}

// TestSession is about a user's own daemon, which the driver starts.
func TestSession(t *testing.T) {
	world(t, "session", "session", "^TestConformance$|^TestBesideDevices$", "/snapshot|/change|/clone|/live_machine")
}

// TestRemote is about a daemon reached by ssh, whose place a script takes here.
func TestRemote(t *testing.T) {
	bin := t.TempDir()
	const ssh = `#!/bin/sh
while [ $# -gt 1 ]; do
	[ "$1" != refused ] || { echo "me@refused: Permission denied (publickey)." >&2; exit 255; }
	shift
done
exec sh -c "$1"
`
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(ssh), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	world(t, "remote", "run", "^TestConformance$/^(probe|life|console|log|cancelled)$|^TestBesideRemote$", "",
		"LIBVIRTD_QEMU_USER=libvirt-qemu", "PATH="+bin+":"+os.Getenv("PATH"), "MICA_LIBVIRT_URI=qemu+ssh://me@elsewhere/system")
}
