package launch_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine"
)

// TestStopInOtherWays is what stop does beside saving.
func TestStopInOtherWays(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	id := d.record()["vboxid"]
	for _, tc := range []struct {
		before machine.State
		option string
		code   int
		after  machine.State
		stops  []machine.StopMode
		says   string
	}{
		{machine.Running, "--shutdown", 0, machine.Stopped, []machine.StopMode{machine.Shutdown}, ""},
		{machine.Running, "--poweroff", 0, machine.Stopped, []machine.StopMode{machine.PowerOff}, ""},
		{machine.Paused, "--shutdown", 4, machine.Paused, nil, "cannot be shut down: it is paused"},
		{machine.Paused, "--poweroff", 0, machine.Stopped, []machine.StopMode{machine.PowerOff}, ""},
		{machine.Saved, "--shutdown", 4, machine.Saved, nil, "cannot be shut down: it is saved"},
		{machine.Saved, "--poweroff", 0, machine.Stopped, []machine.StopMode{machine.PowerOff}, ""},
		{machine.Crashed, "--shutdown", 4, machine.Crashed, nil, "has crashed"},
		{machine.Crashed, "--poweroff", 0, machine.Stopped, []machine.StopMode{machine.PowerOff}, ""},
		{machine.Stopped, "--shutdown", 0, machine.Stopped, nil, "is powered off"},
		{machine.Stopped, "--poweroff", 0, machine.Stopped, nil, "is powered off"},
	} {
		t.Run(string(tc.before)+" "+tc.option, func(t *testing.T) {
			m.set(id, tc.before)
			m.stops = nil
			r := d.run("", "stop", tc.option, "x")
			if r.code != tc.code || !strings.Contains(r.err, tc.says) || r.out != "" {
				t.Errorf("stop ended with %d, want %d\nstdout: %s\nstderr: %s", r.code, tc.code, r.out, r.err)
			}
			if got := m.state(id); got != tc.after {
				t.Errorf("the machine is %s, want %s", got, tc.after)
			}
			if diff := cmp.Diff(tc.stops, m.stops); diff != "" {
				t.Errorf("stops (-want +got):\n%s", diff)
			}
		})
	}
	m.set(id, machine.Running)
	m.fail["Stop"] = errors.New("the platform says no")
	d.fails(4, "the platform says no", "stop", "--shutdown", "x")
	for _, args := range [][]string{{"stop", "x", "--shutdown"}, {"stop", "--force", "x"}, {"stop", "--shutdown", "--poweroff", "x"}} {
		d.fails(1, "takes one machine name", args...)
	}
	d.fails(4, "Unable to find the machine: --shutdown", "stop", "--shutdown")
}

func TestSSHCarriesOutACommand(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	t.Setenv("PATH", d.home)
	d.write("ssh", "")
	if err := os.Chmod(d.path("ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.must("create", "--name", "x", d.path("UD"))
	for name, args := range map[string][]string{"plain": {"ls", "-l", "a b"}, "after two hyphens": {"--", "ls", "-l", "a b"}} {
		t.Run(name, func(t *testing.T) {
			d.must(append([]string{"ssh", "al@x"}, args...)...)
			at := slices.Index(d.sshed, "al@127.0.0.1")
			if diff := cmp.Diff([]string{"al@127.0.0.1", "--", "ls", "-l", "a b"}, d.sshed[max(at, 0):]); diff != "" {
				t.Errorf("ssh (-want +got):\n%s", diff)
			}
		})
	}
	d.must("ssh", "al@x", "--")
	if last := d.sshed[len(d.sshed)-1]; last != "al@127.0.0.1" {
		t.Errorf("ssh without a command ends with %q", last)
	}
	d.fails(1, "takes a machine name", "ssh")
}

func TestListTellsStates(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	for _, name := range []string{"a", "b", "c"} {
		d.must("create", "--no-start", "--name", name, d.path("UD"))
	}
	type entry struct {
		Name, UUID, State, Driver, CernvmVersion, SharedFolder, Folder string
		CPUs, Memory, Disk, Port, GuestPort                            int
	}
	list := func(args ...string) []entry {
		t.Helper()
		var got struct {
			Schema   int
			Machines []entry
		}
		out := d.must(append([]string{"list", "--json"}, args...)...).out
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.Schema != 1 || got.Machines == nil {
			t.Fatalf("list --json said %q: %v", out, err)
		}
		if strings.Contains(out, "amiconfig") {
			t.Errorf("list --json tells the context:\n%s", out)
		}
		return got.Machines
	}
	all := list()
	if len(all) != 3 {
		t.Fatalf("list --json has %d machines, want 3", len(all))
	}
	m.set(all[0].UUID, machine.Running)
	m.mu.Lock()
	delete(m.machines, all[1].UUID)
	m.mu.Unlock()
	one := list("a")
	want := []entry{{
		Name: "a", UUID: all[0].UUID, State: "running", Driver: "virtualbox", CernvmVersion: version, SharedFolder: d.home,
		Folder: d.path(".cernvm/run/" + all[0].UUID), CPUs: 1, Memory: 64, Disk: 64, Port: all[0].Port, GuestPort: 22,
	}}
	if diff := cmp.Diff(want, one); diff != "" || all[0].Port == 0 {
		t.Errorf("list --json a (-want +got):\n%s", diff)
	}
	var states []string
	for line := range strings.Lines(d.must("list", "-l").out) {
		name, rest, _ := strings.Cut(line, ":\t")
		_, state, _ := strings.Cut(strings.TrimSpace(rest), "state: ")
		states = append(states, name+" "+state)
	}
	if diff := cmp.Diff([]string{"a running\tdriver: virtualbox", "b absent\tdriver: virtualbox", "c stopped\tdriver: virtualbox"}, states); diff != "" {
		t.Errorf("list -l (-want +got):\n%s", diff)
	}
	d.fails(4, "Unable to find the machine: nosuch", "list", "--json", "nosuch")
	d.fails(1, "takes", "list", "-l", "a")
	m.fail["State"] = errors.New("no answer")
	if r := d.fails(4, "no answer", "list", "-l"); strings.Count(r.out, "state: unknown") != 3 {
		t.Errorf("list -l said %q, want three unknown states", r.out)
	}
}

// greeter is an SSH server that says no more than its name.
func greeter(t *testing.T, address string, lines string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, lines)
			_ = conn.Close()
		}
	}()
}

func TestWait(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	d.must("create", "--name", "x", d.path("UD"))
	id, address := d.record()["vboxid"], d.ownPort()

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if r := d.runCtx(ctx, "", "start", "--wait", "x"); r.code == 0 || !strings.Contains(r.err, "waiting for the SSH server") {
		t.Errorf("start --wait without a server ended with %d: %s", r.code, r.err)
	}
	go func() { // the machine ends under it
		time.Sleep(100 * time.Millisecond)
		m.set(id, machine.Stopped)
	}()
	d.fails(4, "does not run any more: it is stopped", "start", "--wait", "x")

	m.set(id, machine.Running)
	greeter(t, address, "a word before\r\nSSH-2.0-test\r\n")
	d.must("start", "--wait", "x")

	d.write("web.conf", "apiPort=80\n")
	d.fails(4, "waits for an SSH server", "create", "--wait", "--name", "y", d.path("UD"), d.path("web.conf"))
	d.must("create", "--wait", "--no-start", "--name", "y", d.path("UD"), d.path("web.conf")) // there is nothing to wait for
	d.fails(4, "waits for an SSH server", "start", "--wait", "y")
	d.fails(1, "takes one machine name", "start", "--no-wait", "y")
}

// TestWaitAtCreation has the server come up when the machine does.
func TestWaitAtCreation(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	m.at["Start"] = func() { greeter(t, net.JoinHostPort("127.0.0.1", d.record()["local/apiPort"]), "SSH-2.0-test\r\n") }
	r := d.must("create", "--name", "x", "--wait", d.path("UD"))
	if !strings.Contains(r.err, "SSH answers") || !strings.Contains(r.out, "Parameters of the machine:\n\tname: x\n") {
		t.Errorf("create --wait said %q and %q", r.out, r.err)
	}
}

func TestLogs(t *testing.T) {
	d := newDesk(t)
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	if r := d.must("logs", "x"); r.out != "" {
		t.Errorf("the log of a machine that never ran is %q", r.out)
	}
	d.must("start", "x")
	r := d.must("logs", "x")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(r.out, "hello") && time.Now().Before(end); r = d.must("logs", "x") {
		time.Sleep(50 * time.Millisecond) // the guest has its own pace
	}
	d.must("stop", "--poweroff", "x")
	if off := d.must("logs", "x"); !strings.Contains(r.out, "hello") || !strings.HasPrefix(off.out, r.out) {
		t.Errorf("logs = %q, and %q when the machine is off, want what the guest says", r.out, off.out)
	}
	d.fails(4, "Unable to find", "logs", "nosuch")
	d.fails(1, "takes one machine name", "logs")
	d.useMemory()
	d.fails(4, "keeps no log", "logs", "x")
}

// TestPrune has one machine of each kind: fine, gone, gone with its disk left,
// and half made.
func TestPrune(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	ids := map[string]string{}
	for _, name := range []string{"fine", "gone", "disk", "half"} {
		before := d.records()
		d.must("create", "--no-start", "--name", name, d.path("UD"))
		for _, path := range d.records() {
			if !slices.Contains(before, path) {
				ids[name] = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "vbsess-"), ".conf")
			}
		}
	}
	m.mu.Lock()
	delete(m.machines, ids["gone"])
	delete(m.machines, ids["disk"])
	m.mu.Unlock()
	disk := d.write(filepath.Join(".cernvm/run", ids["disk"], "disk", "Snapshots", "{1}.VDI"), "precious")
	half := filepath.Join(".cernvm/run", "vbsess-"+ids["half"]+".conf")
	d.write(half, d.read(d.path(half))+"mica/phase=creating\n")

	want := "gone: gone from virtualbox\nhalf: half made or half destroyed\n"
	for _, answer := range []string{"", "\n", "n\n"} {
		r := d.run(answer, "prune")
		if r.code != 0 || !strings.HasPrefix(r.out, want) || !strings.HasSuffix(r.out, "[y/N]: ") || !strings.Contains(r.err, disk) {
			t.Errorf("prune, answered %q, ended with %d\nstdout: %s\nstderr: %s", answer, r.code, r.out, r.err)
		}
	}
	if n := len(d.records()); n != 4 {
		t.Fatalf("%d records after prunes that were declined, want 4", n)
	}
	if r := d.run("", "prune", "--force"); r.code != 0 || r.out != want {
		t.Errorf("prune --force ended with %d\nstdout: %s\nstderr: %s", r.code, r.out, r.err)
	}
	names := d.names()
	slices.Sort(names)
	if diff := cmp.Diff([]string{"disk", "fine"}, names); diff != "" {
		t.Errorf("machines that are left (-want +got):\n%s", diff)
	}
	if got := d.read(disk); got != "precious" {
		t.Errorf("the disk holds %q", got)
	}
	for _, name := range []string{"gone", "half"} {
		if _, err := os.Stat(d.path(filepath.Join(".cernvm/run", ids[name]))); !os.IsNotExist(err) {
			t.Errorf("the folder of %s is still there: %v", name, err)
		}
	}
	if m.state(ids["half"]) != machine.Absent || m.state(ids["fine"]) != machine.Stopped {
		t.Errorf("half is %s and fine is %s", m.state(ids["half"]), m.state(ids["fine"]))
	}
	if r := d.must("prune"); r.out != "" {
		t.Errorf("a prune with nothing to do said %q", r.out)
	}
	d.fails(1, "takes --force or nothing", "prune", "gone")
	m.fail["State"] = errors.New("no answer") // who does not answer does not say that a machine is gone
	if r := d.run("", "prune", "--force"); r.code != 0 || !strings.Contains(r.err, "no answer") || len(d.records()) != 2 {
		t.Errorf("prune without an answer ended with %d, %d records: %s", r.code, len(d.records()), r.err)
	}
}
