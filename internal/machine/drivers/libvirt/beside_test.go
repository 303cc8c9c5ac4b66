package libvirt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

const patience = 60 * time.Second

// guest is a machine of a test beside a daemon.
type guest struct {
	*testing.T
	d machine.Driver
	machine.Instance
}

func order(t *testing.T, change func(*machine.Spec)) machine.Spec {
	t.Helper()
	s := machine.Spec{
		Name: "g", ID: uuid.NewString(), MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Dir: t.TempDir(),
		Context: []byte("#!/bin/sh\nexit\n"), PublicKeys: []string{"ssh-ed25519 AAAA test"},
	}
	if change != nil {
		change(&s)
	}
	image := drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"})
	if s.Image.Format != "" {
		image = drivertest.BootDisk(drivertest.Guest{})
	}
	if err := os.WriteFile(s.ImagePath(), image, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func made(t *testing.T, change func(*machine.Spec)) *guest {
	t.Helper()
	d := libvirt.Real()
	i, err := d.Create(t.Context(), order(t, change))
	if err != nil {
		t.Fatalf("Create: %v (hints %q)", err, fail.Hints(err))
	}
	g := &guest{t, d, i}
	t.Cleanup(func() { g.must("Destroy", d.Destroy(context.Background(), g.Instance)) })
	return g
}

func (g *guest) must(what string, err error) {
	g.Helper()
	if err != nil {
		g.Fatalf("%s: %v (hints %q)", what, err, fail.Hints(err))
	}
}

func (g *guest) start() { g.Helper(); g.must("Start", g.d.Start(g.Context(), g.Instance)) }

func (g *guest) off() {
	g.Helper()
	g.must("Stop", g.d.Stop(g.Context(), g.Instance, machine.PowerOff))
}

func (g *guest) state(want machine.State) {
	g.Helper()
	got, err := g.d.State(g.Context(), g.Instance)
	if err != nil || got != want {
		g.Fatalf("State = %q, %v; want %q", got, err, want)
	}
}

// says waits until the guest has written that text.
func (g *guest) says(text string) {
	g.Helper()
	var data []byte
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		var err error
		if data, err = g.d.(machine.Logger).Log(g.Context(), g.Instance, 0); err != nil {
			g.Fatalf("Log: %v", err)
		}
		if bytes.Contains(data, []byte(text)) {
			return
		}
	}
	g.Fatalf("the guest says %q, want %q in it", data, text)
}

// dial connects to the daemon beside the test, past the driver.
func dial(t *testing.T) *rpc.Libvirt {
	t.Helper()
	uri, err := url.Parse("qemu:///system")
	if err != nil {
		t.Fatal(err)
	}
	l, err := rpc.ConnectToURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Disconnect() })
	return l
}

// TestBesideClipboard watches the screen of a machine that shares its clipboard.
func TestBesideClipboard(t *testing.T) {
	beside(t, "system")
	g := made(t, func(s *machine.Spec) { s.Display, s.Clipboard = machine.DisplayVNC, true })
	var picture bytes.Buffer
	if err := g.d.(machine.Screener).Screenshot(t.Context(), g.Instance, &picture); !fail.Is(err, fail.Conflict) {
		t.Errorf("Screenshot of a stopped machine = %v, want class Conflict", err)
	}
	if at, err := g.d.(machine.Viewer).View(t.Context(), g.Instance); !fail.Is(err, fail.Conflict) {
		t.Errorf("View of a stopped machine = %q, %v; want class Conflict", at, err)
	}
	g.start()
	g.says("hello")
	at, err := g.d.(machine.Viewer).View(t.Context(), g.Instance)
	g.must("View", err)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(at, "vnc://"))
	g.must("dialling "+at, err)
	defer conn.Close()
	hello := make([]byte, 12)
	if _, err := io.ReadFull(conn, hello); err != nil || !bytes.HasPrefix(hello, []byte("RFB 003.")) {
		t.Errorf("the viewer's port says %q, %v; want RFB", hello, err)
	}
}

// TestBesideRemote sees what of a machine on another computer comes here.
func TestBesideRemote(t *testing.T) {
	beside(t, "remote")
	g := made(t, func(s *machine.Spec) { s.Display = machine.DisplayVNC })
	g.start()
	g.says("hello")
	var picture bytes.Buffer
	g.must("Screenshot", g.d.(machine.Screener).Screenshot(t.Context(), g.Instance, &picture))
	if _, err := png.DecodeConfig(&picture); err != nil {
		t.Errorf("Screenshot: %v", err)
	}
	at, err := g.d.(machine.Viewer).View(t.Context(), g.Instance)
	if !fail.Is(err, fail.Refused) || !strings.Contains(strings.Join(fail.Hints(err), " "), "ssh -N -L") {
		t.Errorf("View = %q, %v, hints %q; want class Refused and the way", at, err, fail.Hints(err))
	}
	if host, err := g.d.(*libvirt.Driver).Host(g.Instance); host != "me@elsewhere" || err != nil {
		t.Errorf("Host = %q, %v; want me@elsewhere", host, err)
	}
	share := order(t, func(s *machine.Spec) { s.Shares = []machine.Share{{Name: "data", Path: t.TempDir()}} })
	if err := g.d.(machine.Checker).Check(t.Context(), share); !fail.Is(err, fail.Usage) {
		t.Errorf("Check of a shared folder = %v, want class Usage", err)
	}
	// What ssh says, when it cannot get in, is what the user reads.
	_, err = g.d.Create(t.Context(), order(t, func(s *machine.Spec) { s.Options = map[string]string{"uri": "qemu+ssh://refused/system"} }))
	if !fail.Is(err, fail.Refused) || !strings.Contains(err.Error(), "Permission denied (publickey)") || len(fail.Hints(err)) == 0 {
		t.Errorf("Create where ssh is refused = %v, hints %q; want class Refused and ssh's words", err, fail.Hints(err))
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func accepts(port int) bool {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// TestBesideSaved sees that saved memory goes on with other ports, and is not
// left out of a snapshot.
func TestBesideSaved(t *testing.T) {
	beside(t, "system")
	one, two := freePort(t), freePort(t)
	g := made(t, func(s *machine.Spec) { s.Forwards = []machine.Forward{{Host: one, Guest: 22}} })
	g.start()
	g.must("Save", g.d.(machine.Saver).Save(t.Context(), g.Instance))
	snap := g.d.(machine.Snapshotter)
	if err := snap.Snapshot(t.Context(), g.Instance, "saved"); !fail.Is(err, fail.Conflict) {
		t.Errorf("Snapshot of a saved machine = %v, want class Conflict", err)
	}
	g.Spec.Forwards = []machine.Forward{{Host: two, Guest: 80}}
	g.start()
	if accepts(one) || !accepts(two) {
		t.Errorf("after going on ports accept: old %t, new %t; want the new one only", accepts(one), accepts(two))
	}
	g.off()
	g.must("Snapshot", snap.Snapshot(t.Context(), g.Instance, "<a> & \"b\"")) // Destroy takes it along
	if list, err := snap.Snapshots(t.Context(), g.Instance); err != nil || len(list) != 1 || list[0].Name != "<a> & \"b\"" {
		t.Errorf("Snapshots = %+v, %v; want that one", list, err)
	}
}

// TestBesideForeign sees that domains of others are left alone, though they
// have the machine's id or name.
func TestBesideForeign(t *testing.T) {
	beside(t, "system")
	l := dial(t)
	define := func(name, id string) rpc.Domain {
		dom, err := l.DomainDefineXML(`<domain type='qemu'><name>` + name + `</name><uuid>` + id + `</uuid>
			<memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>`)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.DomainUndefine(dom) })
		return dom
	}
	d := libvirt.Real()
	s := order(t, nil)
	sameID := define("somebody's", s.ID)
	if _, err := d.Create(t.Context(), s); !fail.Is(err, fail.Conflict) {
		t.Errorf("Create with the id of another domain = %v, want class Conflict", err)
	}
	// A record of that id, as a user might copy one.
	note := `{"schema":1,"id":"` + s.ID + `","uri":"qemu:///system"}`
	if err := os.WriteFile(s.Path("libvirt.json"), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	i := machine.Instance{Spec: s}
	if state, err := d.State(t.Context(), i); err != nil || state != machine.Absent {
		t.Errorf("State = %q, %v; want absent", state, err)
	}
	if err := d.Start(t.Context(), i); !fail.Is(err, fail.NotFound) {
		t.Errorf("Start = %v, want class NotFound", err)
	}
	if err := d.Destroy(t.Context(), i); err != nil {
		t.Errorf("Destroy = %v, want nil", err)
	}
	other := order(t, nil)
	head, _, _ := strings.Cut(other.ID, "-")
	sameName := define("mica-g-"+head, uuid.NewString())
	if _, err := d.Create(t.Context(), other); !fail.Is(err, fail.Conflict) {
		t.Errorf("Create with the name of another domain = %v, want class Conflict", err)
	}
	if left, _ := os.ReadDir(other.Dir); len(left) != 1 {
		t.Errorf("left after a refused Create: %v, want the image only", left)
	}
	for _, dom := range []rpc.Domain{sameID, sameName} {
		if now, err := l.DomainLookupByUUID(dom.UUID); err != nil || now.Name != dom.Name {
			t.Errorf("domain %s is now %q, %v", dom.Name, now.Name, err)
		}
	}
}

// TestBesideDevices starts what a spec can ask for, and reads some of it back.
func TestBesideDevices(t *testing.T) {
	kind := beside(t, "system", "session")
	share := t.TempDir()
	for name, change := range map[string]func(*machine.Spec){
		"disk image": func(s *machine.Spec) { s.Image.Format = "raw" },
		"9p": func(s *machine.Spec) {
			s.Shares = []machine.Share{{Name: "data", Path: share}, {Name: "ro", Path: share, ReadOnly: true}}
		},
		"execution cap":  func(s *machine.Spec) { s.ExecutionCap = 50 },
		"two processors": func(s *machine.Spec) { s.CPUs = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			if kind == "session" && name == "execution cap" {
				s := order(t, change)
				if err := libvirt.Real().(machine.Checker).Check(t.Context(), s); !fail.Is(err, fail.HostLacks) {
					t.Errorf("Check = %v, want class HostLacks", err)
				}
				return
			}
			g := made(t, change)
			g.start()
			if name == "disk image" {
				g.says("booted from the data disk")
			} else {
				g.says("hello")
			}
		})
	}
}

func TestBesideNetwork(t *testing.T) {
	beside(t, "system")
	named := func(s *machine.Spec) { s.Network = "default" }
	check := libvirt.Real().(machine.Checker).Check
	if err := check(t.Context(), order(t, func(s *machine.Spec) { s.Network = "nowhere" })); !fail.Is(err, fail.NotFound) {
		t.Errorf("Check of an unknown network = %v, want class NotFound", err)
	}
	l := dial(t)
	network, err := l.NetworkLookupByName("default")
	if err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), order(t, named)); !fail.Is(err, fail.HostLacks) {
		t.Errorf("Check of a network that is not active = %v, want class HostLacks", err)
	}
	if err := l.NetworkCreate(network); err != nil {
		t.Fatal(err)
	}
	defer l.NetworkDestroy(network)
	g := made(t, named)
	g.start()
	g.says("hello")
	facts, err := g.d.(machine.Describer).Describe(t.Context(), g.Instance)
	g.must("Describe", err)
	if facts["address"] != "" || facts["accel"] != "tcg" || !strings.HasPrefix(facts["machine_type"], "pc-q35-") {
		t.Errorf("Describe = %v; want no address yet, tcg and a q35", facts)
	}
	// The guest knows no DHCP; something else on its network asks in its name.
	card := libvirt.MAC(g.Spec.ID)
	busybox := tier.Tool(t, "busybox")
	for _, line := range []string{
		"ip link add guest0 address " + card + " type veth peer name guest1", "ip link set guest1 master virbr0 up", "ip link set guest0 up",
		busybox + " udhcpc -i guest0 -n -q -t 10 -T 1 -s /bin/true",
	} {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	defer exec.Command("ip", "link", "del", "guest0").Run()
	var address string
	for until := time.Now().Add(patience); address == "" && time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		address, err = g.d.(*libvirt.Driver).Address(t.Context(), g.Instance)
		g.must("Address", err)
	}
	if !strings.HasPrefix(address, "192.168.122.") {
		t.Errorf("Address = %q, want one of the network's", address)
	}
	if facts, err := g.d.(machine.Describer).Describe(t.Context(), g.Instance); err != nil || facts["address"] != address {
		t.Errorf("Describe = %v, %v; want address %s", facts, err, address)
	}
	if err := g.d.(machine.Forwarder).SetForwards(t.Context(), g.Instance, nil); !fail.Is(err, fail.Usage) {
		t.Errorf("SetForwards on a network = %v, want class Usage", err)
	}
}

// TestBesideCut cancels a create in the middle of an upload, and a save.
func TestBesideCut(t *testing.T) {
	beside(t, "pool")
	big := order(t, nil)
	if err := os.Truncate(big.ImagePath(), 2<<30); err != nil {
		t.Fatal(err)
	}
	before := traces(t, big.Dir)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	d, began := libvirt.Real(), time.Now()
	_, err := d.Create(ctx, big)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Create = %v, want deadline exceeded", err)
	}
	t.Logf("Create ended %s after its deadline", time.Since(began)-500*time.Millisecond)
	// A connection that had to be cut leaves the rest to Destroy.
	if err := d.Destroy(t.Context(), machine.Instance{Spec: big}); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if diff := cmp.Diff(before, traces(t, big.Dir)); diff != "" {
		t.Errorf("traces (-before +after):\n%s", diff)
	}

	g := made(t, nil)
	g.start()
	g.says("hello")
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	switch err := g.d.(machine.Saver).Save(ctx, g.Instance); {
	case err == nil: // it was faster
		g.state(machine.Saved)
	case errors.Is(err, context.DeadlineExceeded):
		g.state(machine.Running)
	default:
		t.Errorf("Save = %v, want deadline exceeded", err)
	}
}

func TestBesideChange(t *testing.T) {
	beside(t, "system", "pool")
	g := made(t, nil)
	change := g.d.(machine.Changer).Change
	to := g.Spec
	to.Name, to.MemoryMiB, to.CPUs, to.DiskMiB, to.Dir = "h", 96, 2, 96, filepath.Join(t.TempDir(), "moved here")
	if err := os.Rename(g.Spec.Dir, to.Dir); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		i, err := change(t.Context(), g.Instance, to)
		g.must("Change", err)
		g.Instance = i
	}
	facts, err := g.d.(machine.Describer).Describe(t.Context(), g.Instance)
	g.must("Describe", err)
	if !strings.HasPrefix(facts["domain"], "mica-h-") {
		t.Errorf("Describe = %v, want the new name", facts)
	}
	g.start()
	g.says("hello")
	if _, err := change(t.Context(), g.Instance, to); !fail.Is(err, fail.Conflict) {
		t.Errorf("Change of a running machine = %v, want class Conflict", err)
	}
	if _, err := g.d.(machine.Cloner).Clone(t.Context(), g.Instance, order(t, nil)); !fail.Is(err, fail.Conflict) {
		t.Errorf("Clone of a running machine = %v, want class Conflict", err)
	}
	g.off()
	less := to
	less.DiskMiB = 64
	if _, err := change(t.Context(), g.Instance, less); err == nil {
		t.Error("Change to a smaller disk = nil, want an error")
	}
	s := order(t, func(s *machine.Spec) { s.DiskMiB = 96 })
	clone, err := g.d.(machine.Cloner).Clone(t.Context(), g.Instance, s)
	g.must("Clone", err)
	c := &guest{t, g.d, clone}
	defer func() { c.must("Destroy of the clone", g.d.Destroy(context.Background(), clone)) }()
	c.start()
	c.says("hello")
	g.state(machine.Stopped)
}

// TestBesideLog reads along while virtlogd cuts the log, which here it does after
// 256 bytes, and drops the oldest part.
func TestBesideLog(t *testing.T) {
	beside(t, "log")
	read := map[string][]byte{}
	// Not in a pool: libvirtd 9.0 has hung on a download of a volume that virtlogd
	// was about to replace, which at 256 bytes it does all the time.
	guests := map[string]*guest{"folder": made(t, nil)}
	for _, g := range guests {
		g.start()
	}
	const want = 4*256 + 200 // more than is ever there
	for until := time.Now().Add(2 * patience); len(read["folder"]) < want; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("after %s there are %d bytes of the log, want %d", 2*patience, len(read["folder"]), want)
		}
		for kind, g := range guests {
			data, err := g.d.(machine.Logger).Log(t.Context(), g.Instance, int64(len(read[kind])))
			g.must("Log", err)
			read[kind] = append(read[kind], data...)
		}
	}
	for kind, g := range guests {
		lines := strings.Split(strings.TrimSpace(string(read[kind])), "\r\n")
		if lines[0] != "hello" {
			t.Errorf("%s: the log begins with %q", kind, lines[0])
		}
		for n, line := range lines[1 : len(lines)-1] { // the last one may be cut short
			if want := fmt.Sprintf("#%04x", 2*n+2); line != want { // it shows every second tick
				t.Fatalf("%s: line %d is %q, want %q; the log so far:\n%s", kind, n+1, line, want, read[kind])
			}
		}
		// Who comes later sees what is left of it, and all of a new run.
		late, err := libvirt.Real().(machine.Logger).Log(t.Context(), g.Instance, 0)
		if g.must("Log", err); len(late) < 2*256 || len(late) > 4*256 || bytes.Contains(late, []byte("hello")) {
			t.Errorf("%s: the log is now %q, want what virtlogd has left of it", kind, late)
		}
		g.off()
		g.start()
		g.says("hello")
	}
}

// TestBesideLostDaemon kills the daemon: machines go on, and are found again.
func TestBesideLostDaemon(t *testing.T) {
	beside(t, "system")
	g := made(t, nil)
	g.start()
	endDaemon(t)
	_, err := g.d.State(t.Context(), g.Instance)
	if err == nil || len(fail.Hints(err)) == 0 {
		t.Errorf("State without a daemon = %v, hints %q; want an error with a remedy", err, fail.Hints(err))
	}
	startDaemon(t)
	g.state(machine.Running)
	g.says("hello")
}

// endDaemon kills the daemon beside the test.
func endDaemon(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("/run/libvirt/libvirtd.pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(20 * time.Millisecond)
	}
}

func startDaemon(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"--daemon", "--pid-file", "/run/libvirt/libvirtd.pid"}, args...)
	if out, err := exec.Command("libvirtd", args...).CombinedOutput(); err != nil {
		t.Fatalf("starting the daemon again: %v\n%s", err, out)
	}
}
