package virtualbox_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

// order is a machine in a folder of its own, not yet made.
func (f *fake) order(change func(*machine.Spec)) machine.Spec {
	f.Helper()
	s := machine.Spec{Name: "m", ID: uuid.NewString(), MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Dir: f.TempDir(), Context: []byte("#!/bin/sh\n")}
	if err := os.WriteFile(s.Path("image.iso"), drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600); err != nil {
		f.Fatal(err)
	}
	if change != nil {
		change(&s)
	}
	return s
}

func (f *fake) create(change func(*machine.Spec)) machine.Instance {
	f.Helper()
	i, err := f.Create(f.Context(), f.order(change))
	if err != nil {
		f.Fatalf("Create: %v (hints %q)", err, fail.Hints(err))
	}
	f.Cleanup(func() {
		f.configure(fakevbox.Config{})
		if err := f.Destroy(context.Background(), i); err != nil {
			f.Errorf("Destroy: %v", err)
		}
	})
	return i
}

func (f *fake) state(i machine.Instance, want machine.State) {
	f.Helper()
	if got, err := f.State(f.Context(), i); got != want || err != nil {
		f.Fatalf("State = %q, %v; want %q", got, err, want)
	}
}

func (f *fake) must(what string, err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v (hints %q)", what, err, fail.Hints(err))
	}
}

// vbox is the user at the command line.
func (f *fake) vbox(args ...string) string {
	f.Helper()
	r, err := f.run.Run(f.Context(), run.Command{Name: f.program, Args: args})
	if err != nil {
		f.Fatalf("VBoxManage %q: %v\n%s", args, err, r.Stderr)
	}
	return string(r.Stdout)
}

func (f *fake) info(id string) map[string]string {
	return virtualbox.Parse(f.vbox("showvminfo", id, "--machinereadable"))
}

// nothing fails unless a machine that was not to be made has left no trace.
func (f *fake) nothing(s machine.Spec) {
	f.Helper()
	f.state(machine.Instance{Spec: s}, machine.Absent)
	entries, err := os.ReadDir(s.Dir)
	f.must("reading the folder", err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "image.") {
			f.Errorf("left behind: %s", e.Name())
		}
	}
	if media := f.vbox("list", "hdds") + f.vbox("list", "dvds"); strings.Contains(media, s.Dir) {
		f.Errorf("media left behind:\n%s", media)
	}
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool/VBoxManage": 0o755, "text/VBoxManage": 0o644, "installed/VBoxManage": 0o755} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "folder/VBoxManage"), 0o700); err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) string {
		for n := range names {
			names[n] = filepath.Join(dir, names[n])
		}
		return strings.Join(names, ":")
	}
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"MICA_VBOXMANAGE": "/x", "PATH": in("tool")}, "/x"},
		{map[string]string{"PATH": in("text", "folder", "tool")}, in("tool/VBoxManage")},
		{map[string]string{"PATH": in("text"), "VBOX_INSTALL_PATH": in("installed")}, in("installed/VBoxManage")},
		{map[string]string{"VBOX_MSI_INSTALL_PATH": in("installed")}, in("installed/VBoxManage")},
		{nil, "VBoxManage"},
	} {
		if got := virtualbox.Locate(func(name string) string { return c.env[name] }, "darwin"); got != c.want {
			t.Errorf("Locate(%v) = %q, want %q", c.env, got, c.want)
		}
	}
}

// preamble is what VirtualBox's wrapper writes where the module is not loaded.
const preamble = `WARNING: The character device /dev/vboxdrv does not exist.
	 Please install the virtualbox-dkms package and the appropriate
	 headers, most likely linux-headers-amd64.

	 You will not be able to start VMs until this problem is fixed.
`

func TestProbe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		config  fakevbox.Config
		version string
		want    string // in the error and its hints
		warns   bool
	}{
		{"fine", fakevbox.Config{}, "7.2.22_Debianr175245", "", false},
		{"old and fine", fakevbox.Config{Style: fakevbox.Style52}, "5.2.44r139111", "", false},
		{"no module", fakevbox.Config{Preamble: preamble}, "7.2.22_Debianr175245", "vboxconfig", false},
		{"older words", fakevbox.Config{Preamble: "WARNING: The vboxdrv kernel module is not loaded. Either there is no module\n"}, "7.2.22_Debianr175245", "mokutil", false},
		{"other warning", fakevbox.Config{Preamble: "WARNING: The sky is falling.\n"}, "7.2.22_Debianr175245", "", true},
		{"too old", fakevbox.Config{Version: "4.3.40r110317"}, "4.3.40r110317", "5.2 or newer", false},
		{"newer than known", fakevbox.Config{Version: "9.0.0r1"}, "9.0.0r1", "", false},
		{"another program", fakevbox.Config{Version: "bash, version five"}, "", "is not VirtualBox", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeProgram(t, c.config)
			r, err := f.Probe(t.Context())
			says := fmt.Sprint(err, fail.Hints(err))
			if r.Version != c.version || (err == nil) != (c.want == "") || !strings.Contains(says, c.want) || (len(r.Warnings) > 0) != c.warns {
				t.Errorf("Probe = %+v, %s; want version %q and %q", r, says, c.version, c.want)
			}
			if err != nil && !fail.Is(err, fail.HostLacks) {
				t.Errorf("Probe's error has class %v, want HostLacks", fail.ClassOf(err))
			}
		})
	}
}

// TestMissing sees that without VBoxManage everything says so, and that a
// machine that was never made can still be destroyed.
func TestMissing(t *testing.T) {
	t.Parallel()
	f := newFakeProgram(t, fakevbox.Config{})
	if err := os.Remove(f.program); err != nil {
		t.Fatal(err)
	}
	s := f.order(nil)
	_, perr := f.Probe(t.Context())
	_, cerr := f.Create(t.Context(), s)
	_, serr := f.State(t.Context(), machine.Instance{Spec: s})
	for _, err := range []error{perr, cerr, serr} {
		if !fail.Is(err, fail.HostLacks) || !strings.Contains(fmt.Sprint(fail.Hints(err)), "MICA_VBOXMANAGE") {
			t.Errorf("without VBoxManage: %v, hints %q", err, fail.Hints(err))
		}
	}
	f.must("Destroy", f.Destroy(t.Context(), machine.Instance{Spec: s}))
	f.must("Destroy of a damaged record", f.Destroy(t.Context(), machine.Instance{Spec: machine.Spec{Name: "m", Dir: s.Dir}}))
	if err := os.Mkdir(s.Path("vbox"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Destroy(t.Context(), machine.Instance{Spec: s}); !fail.Is(err, fail.HostLacks) {
		t.Errorf("Destroy of a machine that VirtualBox may know = %v, want HostLacks", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	for _, change := range []func(*machine.Spec){
		func(s *machine.Spec) { s.Options = map[string]string{"bogus": "1"} },
		func(s *machine.Spec) { s.Options = map[string]string{"vram": "lots"} },
		func(s *machine.Spec) { s.Options = map[string]string{"vram": "257"} },
		func(s *machine.Spec) { s.Options = map[string]string{"graphics": "cga"} },
		func(s *machine.Spec) { s.Options = map[string]string{"natdns": "maybe"} },
		func(s *machine.Spec) { s.Options = map[string]string{"additions": "maybe"} },
		func(s *machine.Spec) { s.Accel = "kvm" },
		func(s *machine.Spec) { s.Network = "bridged" },
		func(s *machine.Spec) { s.Display = "hologram" },
		func(s *machine.Spec) { s.ExecutionCap = 101 },
		func(s *machine.Spec) { s.Image.Format = "qcow2" },
	} {
		s := f.order(change)
		if _, err := f.Create(t.Context(), s); !fail.Is(err, fail.Usage) || len(fail.Hints(err)) == 0 {
			t.Errorf("Create(%+v) = %v, hints %q; want class Usage and a hint", s, err, fail.Hints(err))
		}
	}
	if got := fakevbox.Commands(f.dir); len(got) > 1 || got[0] != "" {
		t.Errorf("VBoxManage was run: %q", got)
	}
}

// TestSpellings makes the same machine with releases that call things differently.
func TestSpellings(t *testing.T) {
	t.Parallel()
	for style, graphics := range map[string]string{fakevbox.Style52: "", fakevbox.Style61: "vmsvga", fakevbox.Style72: "vmsvga"} {
		f := newFake(t, fakevbox.Config{Style: style, Additions: "/nowhere.iso", Extension: "VNC"})
		share := t.TempDir()
		i := f.create(func(s *machine.Spec) {
			s.Clipboard, s.Display, s.ExecutionCap, s.CPUs = true, "vnc", 40, 3
			s.Options = map[string]string{"graphics": "vmsvga", "vram": "64", "additions": "auto"}
			s.Shares = []machine.Share{{Name: "m_sf", Path: share, ReadOnly: true}}
		})
		all := f.info(i.Spec.ID)
		want := map[string]string{
			"clipboard": "bidirectional", "draganddrop": "bidirectional", "graphicscontroller": graphics, "vram": "64", "cpus": "3",
			"cpuexecutioncap": "40", "vrde": "on", "SharedFolderPathMachineMapping1": share, "boot1": "dvd", "SATA-2-0": "none",
		}
		got := map[string]string{}
		for key := range want {
			got[key] = all[key]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", style, diff)
		}
		if !fakevbox.Links(f.dir, i.Spec.ID, "m_sf") {
			t.Errorf("%s: the guest cannot make symbolic links in its share", style)
		}
		f.must("Start", f.Start(t.Context(), i))
		if view, err := f.View(t.Context(), i); view != "vnc://127.0.0.1:5900" || err != nil {
			t.Errorf("%s: View = %q, %v", style, view, err)
		}
	}
}

// TestOtherLocale sees that the user's language does not reach VBoxManage.
func TestOtherLocale(t *testing.T) {
	tier.Full(t)
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		t.Setenv(name, "de_DE.UTF-8")
	}
	f := newFakeProgram(t, fakevbox.Config{Race: 3})
	i := f.create(nil)
	f.must("Start", f.Start(t.Context(), i))
	f.must("Stop", f.Stop(t.Context(), i, machine.PowerOff))
	f.must("Start", f.Start(t.Context(), i))
}

// TestHung lets one command after the other never end.
func TestHung(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	for _, command := range []string{"showvminfo", "createvm", "storageattach", "modifyvm"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			f := newFakeProgram(t, fakevbox.Config{Hang: []string{command}})
			virtualbox.Limit(f.Driver, 3*time.Second)
			s := f.order(nil)
			_, err := f.Create(t.Context(), s)
			if !fail.Is(err, fail.TimedOut) || !strings.Contains(fmt.Sprint(fail.Hints(err)), "VBoxSVC") {
				t.Errorf("Create = %v, hints %q; want class TimedOut and where to look", err, fail.Hints(err))
			}
			f.configure(fakevbox.Config{})
			virtualbox.Limit(f.Driver, 0)
			f.nothing(s)

			f.configure(fakevbox.Config{Hang: []string{command}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := f.Create(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Create in a second = %v, want deadline exceeded", err)
			}
		})
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{Fail: []fakevbox.Failure{{
		Match: "createmedium", Code: 1,
		Stderr: "0%...\nProgress state: VBOX_E_FILE_ERROR\nVBoxManage: error: Failed to create medium\nVBoxManage: error: Could not create the medium storage unit '/x/disk.vdi'.\nVBoxManage: error: VDI: setting image size failed for '/x/disk.vdi' (VERR_DISK_FULL)\nVBoxManage: error: Details: code VBOX_E_FILE_ERROR (0x80bb0004), component MediumWrap, interface IMedium\n",
	}}})
	s := f.order(nil)
	if _, err := f.Create(t.Context(), s); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "VBOX_E_FILE_ERROR") {
		t.Errorf("Create = %v, want no space left", err)
	}
	f.nothing(s)
}

// TestEachStepFails lets each command of a creation fail in turn, having done
// its work or not, and sees that nothing is left.
func TestEachStepFails(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	good := newFake(t, fakevbox.Config{})
	share := t.TempDir()
	change := func(s *machine.Spec) { s.Shares = []machine.Share{{Name: "s", Path: share}} }
	before := len(fakevbox.Commands(good.dir))
	i := good.create(change)
	commands := fakevbox.Commands(good.dir)[before-1:]
	for n, command := range commands {
		verb := strings.ReplaceAll(command, i.Spec.ID, "")
		match := strings.Fields(verb)
		if match[0] == "showvminfo" {
			continue
		}
		for _, after := range []bool{false, true} {
			what := match[len(match)-1]
			if match[0] != "storagectl" && match[0] != "createmedium" {
				what = match[0]
			}
			t.Run(fmt.Sprintf("%d %s after %v", n, match[0], after), func(t *testing.T) {
				t.Parallel()
				f := newFake(t, fakevbox.Config{Fail: []fakevbox.Failure{{Match: what, Code: 1, Stderr: "VBoxManage: error: No luck\n", After: after}}})
				s := f.order(change)
				if _, err := f.Create(t.Context(), s); err == nil || !strings.Contains(err.Error(), "No luck") {
					t.Errorf("Create = %v, want No luck", err)
				}
				f.configure(fakevbox.Config{})
				f.nothing(s)
			})
		}
	}
}

// TestPassingErrors sees that what passes is tried again, and nothing else.
func TestPassingErrors(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	for _, text := range []string{
		"VBoxManage: error: The machine 'm' is already locked by a session (or being locked or unlocked)\nVBoxManage: error: Details: code VBOX_E_INVALID_OBJECT_STATE (0x80bb0007), component MachineWrap\n",
		"VBoxManage: error: The object is not ready\nVBoxManage: error: Details: code E_ACCESSDENIED (0x80070005), component SessionMachine\n",
		"VBoxManage: error: Failed to create the VirtualBox object!\nVBoxManage: error: Code NS_ERROR_ABORT (0x80004004)\n",
		"VBoxManage: error: Failed to get a console object from the direct session (VBOX_E_INVALID_OBJECT_STATE)\nVBoxManage: error: Details: code VBOX_E_VM_ERROR (0x80bb0003), component MachineWrap\n",
	} {
		f := newFake(t, fakevbox.Config{Fail: []fakevbox.Failure{
			{Match: "modifyvm", Code: 1, Stderr: text, Times: 3}, {Match: "showvminfo", Code: 1, Stderr: text, Times: 2},
		}})
		f.state(f.create(nil), machine.Stopped)
	}
	for _, text := range []string{
		"VBoxManage: error: Something else\nVBoxManage: error: Details: code E_ACCESSDENIED (0x80070005), component MachineWrap\n",
		"Usage:\n\nVBoxManage storagectl --x\n\nSyntax error: Invalid parameter 'y'\n",
	} {
		f := newFake(t, fakevbox.Config{Fail: []fakevbox.Failure{{Match: "storagectl", Code: 1, Stderr: text}}})
		if _, err := f.Create(t.Context(), f.order(nil)); err == nil {
			t.Errorf("Create = nil where storagectl says %q", text)
		}
		n := 0
		for _, line := range fakevbox.Commands(f.dir) {
			if strings.HasPrefix(line, "storagectl") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("storagectl was run %d times, want once", n)
		}
	}
	f := newFake(t, fakevbox.Config{Fail: []fakevbox.Failure{{Match: "--add ide", Code: 0, Stderr: "VBoxManage: error: It does not say so\n"}}})
	if _, err := f.Create(t.Context(), f.order(nil)); err == nil || !strings.Contains(err.Error(), "It does not say so") {
		t.Errorf("Create = %v, want the error of a command that ends with code 0", err)
	}
}

// TestNamesake makes a machine beside one of somebody else with the same name.
func TestNamesake(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	folder := t.TempDir()
	foreign := uuid.NewString()
	f.vbox("createvm", "--name", "m", "--ostype", "Linux26_64", "--uuid", foreign, "--basefolder", folder, "--register")
	before := f.info(foreign)
	i := f.create(nil)
	f.must("Start", f.Start(t.Context(), i))
	f.must("Destroy", f.Destroy(t.Context(), i))
	if diff := cmp.Diff(before, f.info(foreign)); diff != "" {
		t.Errorf("the other machine (-before +after):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(folder, "m", "m.vbox")); err != nil {
		t.Error(err)
	}
	if _, err := f.Create(t.Context(), f.order(func(s *machine.Spec) { s.ID = foreign })); !fail.Is(err, fail.Conflict) {
		t.Errorf("Create with the id of another machine = %v, want class Conflict", err)
	}
	if diff := cmp.Diff(before, f.info(foreign)); diff != "" {
		t.Errorf("the other machine (-before +after):\n%s", diff)
	}
}

// TestStartLies meets a startvm that succeeds without a machine.
func TestStartLies(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	i := f.create(nil)
	f.configure(fakevbox.Config{Lie: true})
	if err := f.Start(t.Context(), i); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("Start = %v, want that it is stopped", err)
	}
	f.state(i, machine.Stopped)
	f.configure(fakevbox.Config{Fail: []fakevbox.Failure{{Match: "startvm", Code: 1, After: true, Stderr: "VBoxManage: error: It does run\n"}}})
	f.must("Start that says it failed", f.Start(t.Context(), i))
	f.state(i, machine.Running)
}

// TestDialog meets a machine that waits in a window that nobody sees.
func TestDialog(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	i := f.create(nil)
	hasty := func() { virtualbox.Hasty(f.Driver, 2*time.Second, 2*time.Second) }
	calm := func() { virtualbox.Hasty(f.Driver, 30*time.Second, 20*time.Second) }
	dialog := fakevbox.Config{Dialog: true}
	hasty()
	f.configure(dialog)
	if err := f.Start(t.Context(), i); !fail.Is(err, fail.TimedOut) {
		t.Errorf("Start = %v, want class TimedOut", err)
	}
	calm()
	f.configure(fakevbox.Config{})
	f.state(i, machine.Stopped)
	f.must("Start", f.Start(t.Context(), i))
	f.must("Save", f.Save(t.Context(), i))
	hasty()
	f.configure(dialog)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := f.Start(ctx, i); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start within a second = %v, want deadline exceeded", err)
	}
	calm()
	f.configure(fakevbox.Config{})
	f.state(i, machine.Saved)
	f.must("Start", f.Start(t.Context(), i))
	f.state(i, machine.Running)
}

// TestCancelledStart takes back a start that goes on by itself.
func TestCancelledStart(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	f := newFakeProgram(t, fakevbox.Config{})
	i := f.create(nil)
	for _, before := range []machine.State{machine.Stopped, machine.Saved} {
		f.configure(fakevbox.Config{Slow: map[string]int{"start": 1500}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := f.Start(ctx, i); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start = %v, want deadline exceeded", err)
		}
		cancel()
		f.state(i, before)
		f.configure(fakevbox.Config{})
		f.must("Start", f.Start(t.Context(), i))
		f.must("Save", f.Save(t.Context(), i))
	}
}

// TestDeaf ends a machine that does not hear poweroff.
func TestDeaf(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	f := newFakeProgram(t, fakevbox.Config{Deaf: true})
	i := f.create(nil)
	f.must("Start", f.Start(t.Context(), i))
	virtualbox.Limit(f.Driver, 3*time.Second)
	f.must("Stop", f.Stop(t.Context(), i, machine.PowerOff))
	f.state(i, machine.Stopped)
}

// TestAborted meets a machine whose process was killed.
func TestAborted(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{})
	i := f.create(nil)
	f.must("Start", f.Start(t.Context(), i))
	f.must("killing its process", fakevbox.KillProcess(f.dir, i.Spec.ID))
	f.state(i, machine.Stopped)
	f.must("Start", f.Start(t.Context(), i))
	f.state(i, machine.Running)
}

// TestLostPort meets a VirtualBox that cannot listen where another can, and
// tells only its log.
func TestLostPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	f := newFake(t, fakevbox.Config{LosePorts: []int{port}})
	i := f.create(func(s *machine.Spec) { s.Forwards = []machine.Forward{{Host: port, Guest: 22}} })
	var taken *machine.PortTaken
	if err := f.Start(t.Context(), i); !errors.As(err, &taken) || taken.Port != port {
		t.Errorf("Start = %v, want PortTaken %d", err, port)
	}
	f.state(i, machine.Stopped)
}

// TestKernelModule gives a start that fails for want of it the way out.
func TestKernelModule(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakevbox.Config{Fail: []fakevbox.Failure{{
		Match: "startvm", Code: 1, Stderr: "VBoxManage: error: The virtual machine 'm' has terminated unexpectedly during startup with exit code 1 (0x1)\nVBoxManage: error: Error -1908 in suplibOsInit! Kernel driver not installed\n",
	}}})
	i := f.create(nil)
	if err := f.Start(t.Context(), i); !fail.Is(err, fail.HostLacks) || !strings.Contains(fmt.Sprint(fail.Hints(err)), "vboxconfig") {
		t.Errorf("Start = %v, hints %q; want class HostLacks and the way to a module", err, fail.Hints(err))
	}
	f.state(i, machine.Stopped)
}
