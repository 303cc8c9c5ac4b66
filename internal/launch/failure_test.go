package launch_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/tier"
)

// TestFailuresAreTold has each method of the driver fail: the command ends with
// 4, says why in one line, and keeps what was there.
func TestFailuresAreTold(t *testing.T) {
	for _, tc := range []struct {
		method string
		before machine.State
		args   []string
	}{
		{"Start", machine.Stopped, []string{"start", "x"}},
		{"Start", machine.Saved, []string{"start", "x"}},
		{"SetPaused", machine.Paused, []string{"start", "x"}},
		{"SetPaused", machine.Running, []string{"pause", "x"}},
		{"Save", machine.Running, []string{"stop", "x"}},
		{"Save", machine.Paused, []string{"stop", "x"}},
		{"State", machine.Running, []string{"stop", "x"}},
		{"State", machine.Running, []string{"list"}},
		{"State", machine.Running, []string{"list", "--running"}},
		{"State", machine.Running, []string{"ssh", "a@x"}},
		{"State", machine.Running, []string{"destroy", "x"}},
		{"Destroy", machine.Stopped, []string{"destroy", "x"}},
	} {
		t.Run(tc.method+" "+strings.Join(tc.args, " "), func(t *testing.T) {
			d := newDesk(t)
			m := d.useMemory()
			d.must("create", "--no-start", "--name", "x", d.path("UD"))
			id := d.record()["vboxid"]
			m.set(id, tc.before)
			m.fail[tc.method] = errors.New("the platform\nsays no")
			for range 4 { // the original deletes the machine the third time
				r := d.fails(4, "says no", tc.args...)
				if n := strings.Count(r.err, "the platform; says no\n"); n != 1 {
					t.Errorf("stderr = %q, want the cause in one line", r.err)
				}
			}
			if got := m.state(id); got != tc.before {
				t.Errorf("the machine is %s, was %s", got, tc.before)
			}
			delete(m.fail, tc.method)
			d.must("destroy", "--force", "x") // also after a destroy that failed half way
		})
	}
}

// TestFailedCreateLeavesNothing fails at each step of create.
func TestFailedCreateLeavesNothing(t *testing.T) {
	for name, spoil := range map[string]func(d *desk, m *memory){
		"no hypervisor": func(_ *desk, m *memory) { m.fail["Probe"] = fail.New(fail.HostLacks, "not here") },
		"no image":      func(d *desk, _ *memory) { d.env["MICA_LAUNCH_IMAGE_SERVER"] = "file:///nosuch" },
		"create fails":  func(_ *desk, m *memory) { m.fail["Create"] = errors.New("no") },
		"start fails":   func(_ *desk, m *memory) { m.fail["Start"] = errors.New("no") },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			m := d.useMemory()
			d.must("create", "--no-start", "--name", "other", d.path("UD"))
			before := d.left()
			spoil(d, m)
			r := d.fails(4, "", "create", "--name", "x", d.path("UD"))
			if r.err == "" {
				t.Error("nothing is said of it")
			}
			if diff := cmp.Diff(before, d.left()); diff != "" {
				t.Errorf("the run folder (-before +after):\n%s", diff)
			}
			if len(m.machines) != 1 {
				t.Errorf("there are %d machines, want the other one only", len(m.machines))
			}
		})
	}
}

// TestInterrupted cancels a create while the machine starts.
func TestInterrupted(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	ctx, cancel := context.WithCancel(t.Context())
	m.at["Start"] = cancel
	if r := d.runCtx(ctx, "", "create", "--name", "x", d.path("UD")); r.code != 130 {
		t.Errorf("create ended with %d, want 130: %s", r.code, r.err)
	}
	if left := d.left(); len(left) != 0 || len(m.machines) != 0 {
		t.Errorf("left behind: %v and %d machines", left, len(m.machines))
	}
}

// TestInterruptedPrompt cancels a command that waits for an answer.
func TestInterruptedPrompt(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := d.runCtx(ctx, "", "create", "--name", "x"); r.code == 0 {
		t.Error("create went on")
	}
}

// TestKilledCreate finds the record of a command that was killed.
func TestKilledCreate(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	var killed []byte
	var path string
	m.at["Create"] = func() {
		if path == "" {
			path = d.records()[0]
			killed = []byte(d.read(path))
		}
	}
	m.fail["Create"] = errors.New("no")
	d.fails(4, "no", "create", "--name", "x", d.path("UD"))
	delete(m.fail, "Create")
	for _, args := range [][]string{{"create", "--no-start", "--name", "x", d.path("UD")}, {"destroy", "x"}} {
		if err := errors.Join(os.WriteFile(path, killed, 0o600), os.MkdirAll(strings.Replace(strings.TrimSuffix(path, ".conf"), "vbsess-", "", 1), 0o700)); err != nil {
			t.Fatal(err)
		}
		if r := d.must("list"); r.out != "" || !strings.Contains(r.err, "half made") {
			t.Errorf("list said %q and %q", r.out, r.err)
		}
		d.fails(4, "half made", "start", "x")
		d.must(args...)
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%q left the killed command's record", args)
		}
		if args[0] == "create" {
			d.must("destroy", "x")
		}
	}
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestNeverBoots asks for pause and stop where the original boots the machine.
func TestNeverBoots(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	if r := d.must("stop", "x"); !strings.Contains(r.err, "is powered off") {
		t.Errorf("stop said %q", r.err)
	}
	d.fails(4, "cannot be paused", "pause", "x")
	id := d.record()["vboxid"]
	m.set(id, machine.Crashed)
	for _, op := range []string{"start", "stop", "pause"} {
		d.fails(4, "crashed", op, "x")
	}
	if r := d.run("", "destroy", "x"); r.code != 0 || !strings.Contains(r.out, "[y/N]") {
		t.Errorf("destroy of a crashed machine ended with %d and said %q", r.code, r.out)
	}
	m.mu.Lock()
	delete(m.machines, id)
	m.mu.Unlock()
	for _, op := range []string{"start", "stop", "pause"} {
		d.fails(4, "is gone", op, "x")
	}
	if m.started != 0 {
		t.Errorf("the machine was started %d times", m.started)
	}
}

// TestStaleRecordsAreKept has the platform forget a machine, and find it again.
func TestStaleRecordsAreKept(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	id := d.record()["vboxid"]
	m.mu.Lock()
	delete(m.machines, id)
	m.mu.Unlock()
	for range 3 {
		if r := d.must("list"); r.out != "" || !strings.Contains(r.err, "does not know the machine x") {
			t.Errorf("list said %q and %q", r.out, r.err)
		}
	}
	if d.record()["mica/stale"] != "1" {
		t.Error("the record is not marked")
	}
	d.fails(4, "already exists", "create", "--name", "x", d.path("UD"))
	m.set(id, machine.Stopped)
	if r := d.must("list"); !strings.HasPrefix(r.out, "x:\t") {
		t.Errorf("list said %q", r.out)
	}
	if _, marked := d.record()["mica/stale"]; marked {
		t.Error("the record is still marked")
	}
}

// TestPorts has other programs take a machine's port.
func TestPorts(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	d.must("create", "--no-start", "--name", "y", d.path("UD"))
	ports := func() map[string]string {
		have := map[string]string{}
		for line := range strings.Lines(d.must("list").out) {
			name, rest, _ := strings.Cut(line, ":")
			have[name] = strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):])
		}
		return have
	}
	before := ports()
	l, err := net.Listen("tcp", "127.0.0.1:"+before["x"])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The driver finds one more taken between our look and its start.
	second := ""
	m.at["Start"] = func() {
		if second == "" {
			second = ports()["x"]
			port, _ := strconv.Atoi(second)
			m.mu.Lock()
			m.fail["Start"] = &machine.PortTaken{Port: port, Err: errors.New("taken")}
			m.mu.Unlock()
			return
		}
		m.mu.Lock()
		delete(m.fail, "Start")
		m.mu.Unlock()
	}
	d.must("start", "x")
	after := ports()
	if after["y"] != before["y"] || after["x"] == before["x"] || after["x"] == before["y"] || after["x"] == second {
		t.Errorf("ports were %v, are %v; %s was taken at the last moment", before, after, second)
	}
	for _, s := range m.specs {
		if s.Name == "x" && strconv.Itoa(s.Forwards[0].Host) != after["x"] {
			t.Errorf("the driver was told port %d, the record has %s", s.Forwards[0].Host, after["x"])
		}
	}
}

// TestAtOnce makes machines in parallel, two of them under one name.
func TestAtOnce(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for n := range 8 {
		wg.Go(func() {
			r := d.run("", "create", "--no-start", "--name", "m"+strconv.Itoa(n/2), d.path("UD"))
			mu.Lock()
			codes[r.code]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if diff := cmp.Diff(map[int]int{0: 4, 4: 4}, codes); diff != "" {
		t.Errorf("exit codes (-want +got):\n%s", diff)
	}
	ports := map[string]bool{}
	for line := range strings.Lines(d.must("list").out) {
		ports[line[strings.LastIndexByte(line, ' '):]] = true
	}
	if len(ports) != 4 {
		t.Errorf("4 machines have %d ports", len(ports))
	}
}

// TestForeignMachines sees that a machine of the user's own, with the very name,
// stays as it is whatever fails.
func TestForeignMachines(t *testing.T) {
	tier.Full(t)
	d := newDesk(t)
	own := t.TempDir()
	d.vboxManage("createvm", "--name", "x", "--ostype", "Linux26_64", "--basefolder", own, "--register")
	before := d.vboxManage("list", "vms")
	d.configure(fakevbox.Config{Fail: []fakevbox.Failure{{Match: "createmedium", Stderr: "VBoxManage: error: no\n", Code: 1}}})
	r := d.fails(4, "VBoxManage createmedium: no", "create", "--name", "x", d.path("UD"))
	if strings.Count(r.err, "VBoxManage createmedium: no") != 1 {
		t.Errorf("stderr = %q, want the cause once", r.err)
	}
	d.configure(fakevbox.Config{})
	if r := d.run("", "create", "--no-start", "--name", "x", d.path("UD")); r.code == 0 {
		d.must("destroy", "x")
	}
	if after := d.vboxManage("list", "vms"); after != before {
		t.Errorf("VirtualBox had %q, has %q", before, after)
	}
	if _, err := os.Stat(filepath.Join(own, "x", "x.vbox")); err != nil {
		t.Error(err)
	}
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestFailingStartsDeleteNothing is the first of the original's faults: three
// starts that fail within a minute, over a machine with a disk.
func TestFailingStartsDeleteNothing(t *testing.T) {
	tier.Full(t)
	d := newDesk(t)
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	before := d.vboxManage("list", "hdds")
	d.configure(fakevbox.Config{Fail: []fakevbox.Failure{{Match: "startvm", Stderr: "VBoxManage: error: VERR_VMX_NO_VMX\n", Code: 1}}})
	for range 4 {
		d.fails(4, "VERR_VMX_NO_VMX", "start", "x")
	}
	d.configure(fakevbox.Config{})
	if after := d.vboxManage("list", "hdds"); after != before {
		t.Errorf("VirtualBox had disks %q, has %q", before, after)
	}
	for range 2 { // one disk, however often it is started
		d.must("start", "x")
		d.vboxManage("controlvm", d.record()["vboxid"], "poweroff")
	}
	if after := d.vboxManage("list", "hdds"); after != before {
		t.Errorf("VirtualBox had disks %q, has %q", before, after)
	}
}

func TestDriverKey(t *testing.T) {
	d := newDesk(t)
	d.write("c.conf", "driver=nosuch\nuuid=1\nvboxid=2\nlocal/baseFolder=/\n")
	r := d.fails(4, `no driver named "nosuch"`, "create", "--name", "x", d.path("UD"), d.path("c.conf"))
	for _, key := range []string{"uuid", "vboxid", "local/baseFolder"} {
		if !strings.Contains(r.err, `key "`+key+`" is not for configurations`) {
			t.Errorf("stderr = %q, want a note on %s", r.err, key)
		}
	}
}

// TestWhatADriverCannot is refused before anything is made.
func TestWhatADriverCannot(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	for config, want := range map[string]string{
		"executionCap=50": "cannot do --execution-cap", "flags=69": "cannot do --network hostonly", "vram=64": `no option "vram"`,
	} {
		d.write("c.conf", config+"\n")
		d.fails(4, want, "create", "--name", "x", d.path("UD"), d.path("c.conf"))
	}
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
