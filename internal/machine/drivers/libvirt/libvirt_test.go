package libvirt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
	"github.com/micavm/mica/internal/tier"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// plain is a machine as most are.
func plain() machine.Spec {
	return machine.Spec{
		Name: "demo", ID: "5f3c9a52-1111-4222-8333-444455556666", Driver: libvirt.Name, MemoryMiB: 2048, CPUs: 2, DiskMiB: 20480,
		Forwards: []machine.Forward{{Host: 2222, Guest: 22}, {Host: 8080, Guest: 80}}, Dir: "/home/u/a & b/demo",
	}
}

func TestDomainXML(t *testing.T) {
	for name, tc := range map[string]struct {
		accel  string
		change func(*machine.Spec)
	}{
		"plain":   {"tcg", func(*machine.Spec) {}},
		"kvm":     {"kvm", func(*machine.Spec) {}},
		"network": {"tcg", func(s *machine.Spec) { s.Network = "default" }},
		"all": {"tcg", func(s *machine.Spec) {
			s.Display, s.Clipboard, s.ExecutionCap = "vnc", true, 40
			s.Shares = []machine.Share{{Name: "data", Path: "/data"}, {Name: "ro", Path: "/ro", ReadOnly: true}}
			s.Image.Format = "vmdk"
			s.Firmware, s.Options = machine.UEFI, map[string]string{"shares": "virtiofs"}
			s.Disks = []machine.Disk{{MiB: 1024}, {Path: "/data/theirs & ours.vdi", Format: "vdi"}}
		}},
		"disk-image": {"tcg", func(s *machine.Spec) { s.Image.Format = "qcow2" }},
		"aarch64": {"tcg", func(s *machine.Spec) {
			s.Arch, s.Firmware, s.CPUs, s.Display = machine.ARM64, machine.UEFI, 12, machine.DisplayVNC
			s.Disks = []machine.Disk{{MiB: 1024}}
		}},
		"slice": {"tcg", func(s *machine.Spec) {
			s.Disks = []machine.Disk{{Path: "/data/os.slice", Format: "raw", ReadOnly: true}}
		}},
		"9p": {"tcg", func(s *machine.Spec) { s.Shares = []machine.Share{{Name: "data", Path: "/data"}} }},
	} {
		t.Run(name, func(t *testing.T) {
			s := plain()
			tc.change(&s)
			got, err := libvirt.OptionsOf(libvirt.New(machine.Env{}), s, libvirt.AllMedia(s), tc.accel)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".xml")
			if *update {
				if err := os.WriteFile(golden, []byte(got+"\n"), 0o644); err != nil { //nolint:gosec // a golden file
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got+"\n"); diff != "" {
				t.Errorf("domain XML (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSchema asks libvirt's own schema about the golden files.
func TestSchema(t *testing.T) {
	tier.Full(t)
	tier.Tool(t, "xmllint")
	validate := tier.Tool(t, "virt-xml-validate")
	all, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(all) == 0 {
		t.Fatalf("golden files %q, %v", all, err)
	}
	for _, path := range all {
		if out, err := exec.CommandContext(t.Context(), validate, path, "domain").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	for name, change := range map[string]func(*machine.Spec){
		"unknown option": func(s *machine.Spec) { s.Options = map[string]string{"colour": "red"} },
		"shares":         func(s *machine.Spec) { s.Options = map[string]string{"shares": "nfs"} },
		"window":         func(s *machine.Spec) { s.Display = machine.DisplayGUI },
		"clipboard":      func(s *machine.Spec) { s.Clipboard = true },
		"acceleration":   func(s *machine.Spec) { s.Accel = "hvf" },
	} {
		s := plain()
		change(&s)
		_, err := libvirt.New(machine.Env{}).Create(t.Context(), s)
		if !fail.Is(err, fail.Usage) || len(fail.Hints(err)) == 0 {
			t.Errorf("%s: Create = %v, hints %q; want class Usage and a hint", name, err, fail.Hints(err))
		}
	}
}

func TestWithForwards(t *testing.T) {
	s := plain()
	doc, err := libvirt.OptionsOf(libvirt.New(machine.Env{}), s, libvirt.AllMedia(s), "tcg")
	if err != nil {
		t.Fatal(err)
	}
	// libvirt writes it with other quotes and a prefix of its own.
	theirs := strings.NewReplacer(`<arg value="`, `<qemu:arg value='`, `"></arg>`, `'/>`).Replace(doc)
	for _, doc := range []string{doc, theirs} {
		if got := libvirt.WithForwards(doc, s); got != doc {
			t.Errorf("WithForwards changed what was right:\n%s", cmp.Diff(doc, got))
		}
		other := s
		other.Forwards = []machine.Forward{{Host: 3333, Guest: 22}}
		got := libvirt.WithForwards(doc, other)
		if !strings.Contains(got, "user,id=mica0,hostname=demo,hostfwd=tcp:127.0.0.1:3333-:22") || strings.Contains(got, "2222") {
			t.Errorf("WithForwards:\n%s", cmp.Diff(doc, got))
		}
		if back := libvirt.WithForwards(got, s); back != doc {
			t.Errorf("WithForwards there and back:\n%s", cmp.Diff(doc, back))
		}
	}
}

// TestChanged sees that a change keeps what somebody else has changed.
func TestChanged(t *testing.T) {
	s := plain()
	doc, err := libvirt.OptionsOf(libvirt.New(machine.Env{}), s, libvirt.AllMedia(s), "tcg")
	if err != nil {
		t.Fatal(err)
	}
	const theirs = `<input type="tablet" bus="virtio"></input>`
	doc = strings.Replace(doc, "<devices>", "<devices>"+theirs, 1)
	to := s
	to.Name, to.MemoryMiB, to.CPUs, to.Dir = "other", 512, 4, "/moved"
	got, err := libvirt.Changed(libvirt.New(machine.Env{}), doc, s, to, libvirt.AllMedia(to))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<name>mica-other-5f3c9a52</name>`, `<memory unit="MiB">512</memory>`, `<vcpu>4</vcpu>`, `name="other"`,
		`file="/moved/image.iso"`, `file="/moved/config.iso"`, `file="/moved/disk.qcow2"`, `file="/moved/console.log"`, theirs,
		`hostname=other`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the changed XML lacks %s:\n%s", want, got)
		}
	}
	if strings.Contains(got, "/home/u") {
		t.Errorf("the changed XML has old paths:\n%s", got)
	}
	foreign := strings.Replace(doc, "github.com/micavm", "example.org", 1)
	if _, err := libvirt.Changed(libvirt.New(machine.Env{}), foreign, s, to, libvirt.AllMedia(to)); !fail.Is(err, fail.Conflict) {
		t.Errorf("Changed of a domain without the mark = %v, want class Conflict", err)
	}
}

func TestParseURI(t *testing.T) {
	type parts struct {
		Transport, User, Host, Port, Socket, Open string
		Session                                   bool
	}
	for _, tc := range []struct {
		uri  string
		uid  int
		want parts
	}{
		{"qemu:///system", 1000, parts{Transport: "unix", Open: "qemu:///system"}},
		{"qemu:///session", 1000, parts{Transport: "unix", Open: "qemu:///session", Session: true}},
		{"qemu:///session", 0, parts{Transport: "unix", Open: "qemu:///system"}},
		{"qemu+unix:///system?socket=/run/x%20y", 1000, parts{Transport: "unix", Open: "qemu:///system", Socket: "/run/x y"}},
		{"qemu+ssh://me@host:2200/system", 0, parts{Transport: "ssh", User: "me", Host: "host", Port: "2200", Open: "qemu:///system"}},
		{"qemu+ssh://host/session", 0, parts{Transport: "ssh", Host: "host", Open: "qemu:///session", Session: true}},
		{"qemu+tls://host/system", 0, parts{Transport: "tls", Host: "host", Open: "qemu:///system"}},
		{"qemu://[::1]/system", 0, parts{Transport: "tls", Host: "::1", Open: "qemu:///system"}},
	} {
		e, err := libvirt.ParseURI(tc.uri, tc.uid)
		if err != nil {
			t.Errorf("ParseURI(%q): %v", tc.uri, err)
			continue
		}
		var got parts
		got.Transport, got.User, got.Host, got.Port, got.Socket, got.Open, got.Session = libvirt.Parts(e)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("ParseURI(%q, %d) (-want +got):\n%s", tc.uri, tc.uid, diff)
		}
	}
	for _, uri := range []string{
		"", "system", "xen:///system", "qemu:///", "qemu:///embed", "qemu+tcp://host/system", "qemu+ssh:///system", "qemu+unix://host/system",
		"qemu+ssh://-oProxyCommand=x/system", "qemu+ssh://-x@host/system", "qemu:///system?socket=relative", "qemu:///system?no_verify=1",
		"qemu+ssh://host/system?socket=/a'b", "qemu+tls://host/session", "%",
	} {
		if _, err := libvirt.ParseURI(uri, 1000); !fail.Is(err, fail.Usage) || len(fail.Hints(err)) == 0 {
			t.Errorf("ParseURI(%q) = %v, want class Usage and a hint", uri, err)
		}
	}
}

func TestDefaultURI(t *testing.T) {
	want := "qemu:///session"
	if os.Geteuid() == 0 {
		want = "qemu:///system"
	}
	for _, tc := range []struct {
		env  map[string]string
		want string
	}{
		{nil, want},
		{map[string]string{"LIBVIRT_DEFAULT_URI": "qemu+ssh://a/system"}, "qemu+ssh://a/system"},
		{map[string]string{"LIBVIRT_DEFAULT_URI": "qemu+ssh://a/system", "MICA_LIBVIRT_URI": "xen:///b"}, "xen:///b"},
	} {
		d := libvirt.New(machine.Env{Getenv: func(name string) string { return tc.env[name] }})
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it must not reach anything
		if r, _ := d.Probe(ctx); r.Program != tc.want {
			t.Errorf("with %v the daemon is %q, want %q", tc.env, r.Program, tc.want)
		}
	}
}

// TestNoDaemon sees that its absence has a remedy, whatever is asked.
func TestNoDaemon(t *testing.T) {
	d := libvirt.New(machine.Env{Getenv: func(name string) string {
		return map[string]string{"MICA_LIBVIRT_URI": "qemu:///system?socket=" + filepath.Join(t.TempDir(), "none")}[name]
	}})
	s := plain()
	s.Dir = t.TempDir()
	_, probe := d.Probe(t.Context())
	_, create := d.Create(t.Context(), s)
	for what, err := range map[string]error{"Probe": probe, "Create": create} {
		if !fail.Is(err, fail.HostLacks) || len(fail.Hints(err)) == 0 {
			t.Errorf("%s = %v, hints %q; want class HostLacks and a hint", what, err, fail.Hints(err))
		}
	}
	if left, _ := os.ReadDir(s.Dir); len(left) != 0 {
		t.Errorf("Create left %v", left)
	}
	// Where nothing was made nobody is asked.
	i := machine.Instance{Spec: s}
	if state, err := d.State(t.Context(), i); state != machine.Absent || err != nil {
		t.Errorf("State = %q, %v; want absent", state, err)
	}
	if err := d.Destroy(t.Context(), i); err != nil {
		t.Errorf("Destroy = %v, want nil", err)
	}
	for _, note := range []string{"", "{}", `{"schema":2,"id":"x","uri":"y"}`} {
		if err := os.WriteFile(s.Path("libvirt.json"), []byte(note), 0o600); err != nil {
			t.Fatal(err)
		}
		if state, err := d.State(t.Context(), i); err == nil {
			t.Errorf("State with the note %q = %q, want an error", note, state)
		}
		if err := d.Destroy(t.Context(), i); err == nil {
			t.Errorf("Destroy with the note %q = nil, want an error", note)
		}
	}
}

// TestStates goes through every state and reason that libvirt has.
func TestStates(t *testing.T) {
	type answer struct {
		state machine.State
		lasts bool
	}
	paused, soon := answer{machine.Paused, true}, answer{machine.Paused, false}
	reasons := map[rpc.DomainPausedReason]answer{
		rpc.DomainPausedCrashed: {machine.Crashed, true}, rpc.DomainPausedShuttingDown: soon, rpc.DomainPausedStartingUp: soon,
	}
	for reason := range rpc.DomainPausedReason(16) {
		want, special := reasons[reason]
		if !special {
			want = paused
		}
		state, lasts := libvirt.StateOf(rpc.DomainPaused, int32(reason), false)
		if (answer{state, lasts}) != want {
			t.Errorf("paused for reason %d = %q, lasts %t; want %v", reason, state, lasts, want)
		}
	}
	for state, want := range map[rpc.DomainState]answer{
		rpc.DomainNostate: soon, rpc.DomainRunning: {machine.Running, true}, rpc.DomainBlocked: {machine.Running, true},
		rpc.DomainShutdown: {machine.Stopped, false}, rpc.DomainShutoff: {machine.Stopped, true}, rpc.DomainCrashed: {machine.Crashed, true},
		rpc.DomainPmsuspended: paused, 99: soon,
	} {
		got, lasts := libvirt.StateOf(state, 0, false)
		if (answer{got, lasts}) != want {
			t.Errorf("state %d = %q, lasts %t; want %v", state, got, lasts, want)
		}
	}
	if got, _ := libvirt.StateOf(rpc.DomainShutoff, 0, true); got != machine.Saved {
		t.Errorf("shut off with saved memory = %q, want saved", got)
	}
}

func TestStartFailed(t *testing.T) {
	for text, want := range map[string]fail.Class{
		"Cannot access storage file '/home/u/x' (as uid:64055, gid:64055): Permission denied":          fail.HostLacks,
		"Cannot access storage file '/x': No such file or directory":                                   fail.NotFound,
		"internal error: qemu unexpectedly closed the monitor: failed to initialize kvm: No such file": fail.HostLacks,
		"process exited: cannot set up guest memory 'pc.ram': Cannot allocate memory":                  fail.HostLacks,
		"write failed: No space left on device":                                                        fail.Failed,
		"-netdev user,id=mica0: Parameter 'type' expects a netdev backend type":                        fail.HostLacks,
		`qemu-system-x86_64: -blockdev {"node-name":"x"}: Failed to get "write" lock`:                  fail.Conflict,
		"cannot initialize fsdev 'fsdev-fs0': failed to open '/home/u': Permission denied":             fail.HostLacks,
		"Requested operation is not valid: network 'default' is not active":                            fail.HostLacks,
	} {
		err := libvirt.StartFailed(plain(), errors.New(text))
		if fail.ClassOf(err) != want || want != fail.NotFound && len(fail.Hints(err)) == 0 {
			t.Errorf("StartFailed(%q) has class %d and hints %q, want class %d and a hint", text, fail.ClassOf(err), fail.Hints(err), want)
		}
	}
	var taken *machine.PortTaken
	text := "internal error: process exited while connecting to monitor: 2023-01-01T00:00:00.000000Z qemu-system-x86_64: -netdev " +
		"user,id=mica0: Could not set up host forwarding rule 'tcp:127.0.0.1:2222-:22'"
	if err := libvirt.StartFailed(plain(), errors.New(text)); !errors.As(err, &taken) || taken.Port != 2222 {
		t.Errorf("StartFailed = %v, want PortTaken 2222", err)
	}
}

func TestExplain(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want fail.Class
	}{
		{rpc.ErrInterrupted, fail.Failed},
		{io.EOF, fail.Failed},
		{rpc.Error{Code: uint32(rpc.ErrAuthUnavailable), Message: "no polkit agent available"}, fail.HostLacks},
		{rpc.Error{Code: uint32(rpc.ErrAccessDenied), Message: "access denied"}, fail.HostLacks},
		{rpc.ErrUnsupported, fail.HostLacks},
	} {
		err := libvirt.Explain("asking", tc.err)
		if fail.ClassOf(err) != tc.want || !errors.Is(err, tc.err) || tc.err != rpc.ErrUnsupported && len(fail.Hints(err)) == 0 { //nolint:errorlint // which case it is
			t.Errorf("Explain(%v) = %v, hints %q; want class %d and a remedy", tc.err, err, fail.Hints(err), tc.want)
		}
	}
	if libvirt.Explain("asking", nil) != nil {
		t.Error("Explain(nil) is an error")
	}
}

func TestQCOW2(t *testing.T) {
	tier.Full(t)
	qemuImg := tier.Tool(t, "qemu-img")
	for _, mib := range []int64{64, 20480, 511, 512, 1 << 20, 64 << 20} {
		path := filepath.Join(t.TempDir(), "d.qcow2")
		if err := libvirt.MakeDisk(path, mib<<20); err != nil {
			t.Fatal(err)
		}
		look := func(size string) {
			t.Helper()
			for _, args := range [][]string{{"check", "-q", path}, {"info", "--output=json", path}} {
				out, err := exec.Command(qemuImg, args...).CombinedOutput()
				if err != nil || args[0] == "info" && !strings.Contains(string(out), size) {
					t.Errorf("qemu-img %s of %d MiB: %v\n%s, want %s in it", args[0], mib, err, out, size)
				}
			}
		}
		look("")
		if err := libvirt.GrowDisk(path, mib<<20-1); !fail.Is(err, fail.Usage) {
			t.Errorf("GrowDisk to less = %v, want class Usage", err)
		}
		if mib > 1<<21 {
			continue
		}
		for range 2 {
			if err := libvirt.GrowDisk(path, mib<<21); err != nil {
				t.Errorf("GrowDisk of %d MiB: %v", mib, err)
			}
		}
		look("virtual-size")
	}
	path := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(path, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := libvirt.GrowDisk(path, 1<<30); err == nil {
		t.Error("GrowDisk of something else = nil, want an error")
	}
}

func TestPPM(t *testing.T) {
	ppm := []byte("P6\n2 1\n255\n\x01\x02\x03\xff\x00\x7f")
	data, err := libvirt.PNGOfPPM(ppm)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r, g, b, _ := img.At(1, 0).RGBA()
	if img.Bounds().Dx() != 2 || img.Bounds().Dy() != 1 || r>>8 != 0xff || g>>8 != 0 || b>>8 != 0x7f {
		t.Errorf("the second pixel is %x %x %x of %v", r>>8, g>>8, b>>8, img.Bounds())
	}
	for _, bad := range []string{"", "P5\n2 1\n255\n123456", "P6\n2 1\n255\n12345", "P6\n99999 99999\n255\n", "P6\n-1 -1\n255\n123"} {
		if _, err := libvirt.PNGOfPPM([]byte(bad)); err == nil {
			t.Errorf("PNGOfPPM(%q) = nil, want an error", bad)
		}
	}
}

func TestCapabilities(t *testing.T) {
	const doc = `<capabilities><host><secmodel><model>apparmor</model><doi>0</doi></secmodel>
		<secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+64055</baselabel></secmodel></host>
		<guest><os_type>hvm</os_type><arch name='i686'><domain type='kvm'/></arch></guest>
		<guest><os_type>hvm</os_type><arch name='x86_64'><domain type='qemu'/></arch></guest></capabilities>`
	uid, emulates, kvm, err := libvirt.QEMUUser(doc, "x86_64")
	if uid != 64055 || !emulates || kvm || err != nil {
		t.Errorf("capabilities: uid %d, emulates %t, kvm %t, %v; want 64055, true, false", uid, emulates, kvm, err)
	}
	if uid, _, _, err = libvirt.QEMUUser("<capabilities/>", "x86_64"); uid != -1 || err != nil {
		t.Errorf("empty capabilities: uid %d, %v; want -1", uid, err)
	}
	if _, _, _, err = libvirt.QEMUUser("<", "x86_64"); err == nil {
		t.Error("broken capabilities: want an error")
	}
}

func TestKVMWorks(t *testing.T) {
	with, without := filepath.Join(t.TempDir(), "with"), filepath.Join(t.TempDir(), "without")
	for path, flags := range map[string]string{with: "fpu svm", without: "fpu svm_lock hypervisor"} {
		if err := os.WriteFile(path, []byte("processor: 0\nflags\t\t: "+flags+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		offered bool
		cpuinfo string
		works   bool
	}{{true, with, true}, {true, without, false}, {false, with, false}, {true, "/nowhere", false}} {
		err := libvirt.KVM(libvirt.New(machine.Env{}), tc.offered, tc.cpuinfo)
		if (err == nil) != tc.works || err != nil && !fail.Is(err, fail.HostLacks) {
			t.Errorf("KVM offered %t on %s = %v, want it to work: %t", tc.offered, filepath.Base(tc.cpuinfo), err, tc.works)
		}
	}
}

func TestReadSnapshots(t *testing.T) {
	doc := func(name, parent, at, state string) string {
		x := "<domainsnapshot><name>" + name + "</name><state>" + state + "</state><creationTime>" + at + "</creationTime>"
		if parent != "" {
			x += "<parent><name>" + parent + "</name></parent>"
		}
		return x + "</domainsnapshot>"
	}
	list, err := libvirt.ReadSnapshots([]string{
		doc("a", "z", "100", "shutoff"), doc("b", "", "99", "running"), doc("z", "", "100", "paused"), doc("c", "a", "100", "shutoff"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, s.Name)
		if want := s.Name == "b" || s.Name == "z"; s.Memory != want {
			t.Errorf("snapshot %s has memory: %t, want %t", s.Name, s.Memory, want)
		}
	}
	if diff := cmp.Diff([]string{"b", "z", "a", "c"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"<", doc("a", "", "soon", "shutoff")} {
		if _, err := libvirt.ReadSnapshots([]string{bad}); err == nil {
			t.Errorf("ReadSnapshots(%q) = nil, want an error", bad)
		}
	}
	// Two that name each other are an ill daemon's, and no reason to hang.
	if _, err := libvirt.ReadSnapshots([]string{doc("a", "b", "1", ""), doc("b", "a", "1", "")}); err != nil {
		t.Error(err)
	}
}

func TestSSH(t *testing.T) {
	e, err := libvirt.ParseURI("qemu+ssh://me@host:2200/system", 1000)
	if err != nil {
		t.Fatal(err)
	}
	args := libvirt.SSHArgs(e)
	if diff := cmp.Diff([]string{"-p", "2200", "-l", "me", "--", "host"}, args[len(args)-7:len(args)-1]); diff != "" {
		t.Errorf("ssh's arguments (-want +got):\n%s", diff)
	}
	if !strings.Contains(strings.Join(args, " "), "StrictHostKeyChecking=yes") {
		t.Errorf("ssh's arguments %q do not insist on known hosts", args)
	}
	for _, uri := range []string{"qemu+ssh://host/system", "qemu+ssh://host/session", "qemu+ssh://host/system?socket=/run/a%20b"} {
		e, err := libvirt.ParseURI(uri, 1000)
		if err != nil {
			t.Fatal(err)
		}
		relay := libvirt.Relay(e)
		if strings.Contains(relay, "'") {
			t.Errorf("relay of %q has single quotes: %s", uri, relay)
		}
		if out, err := exec.Command("sh", "-n", "-c", relay).CombinedOutput(); err != nil {
			t.Errorf("sh does not read the relay of %q: %v\n%s", uri, err, out)
		}
	}
}

// FuzzReadPacket reads what a daemon may send.
func FuzzReadPacket(f *testing.F) {
	packet := func(size uint32, program uint32, body string) []byte {
		data := make([]byte, 28, 28+len(body))
		binary.BigEndian.PutUint32(data, size)
		binary.BigEndian.PutUint32(data[4:], program)
		return append(data, body...)
	}
	f.Add(packet(32, 0x20008086, "abcd"))
	f.Add(packet(28, 0x6b656570, ""))
	f.Add(packet(1<<31, 0x20008086, ""))
	f.Add(packet(3, 0x20008086, ""))
	stream := func(proc, status uint32, body []byte) []byte { return message(proc, kindStream, 7, status, body) }
	f.Add(append(stream(procDownload, statusMore, nil), stream(procDownload, statusError, remoteError("ended"))...))
	f.Add(stream(procUpload, statusError, remoteError("no space")))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = libvirt.ReadPacket(bytes.NewReader(data))
		client, daemon := net.Pipe()
		defer client.Close()
		go func() { _, _ = daemon.Write(data); daemon.Close() }()
		if n, _ := io.Copy(io.Discard, libvirt.Streams(client)); n > int64(len(data)) {
			t.Errorf("%d bytes of %d are handed on", n, len(data))
		}
	})
}
