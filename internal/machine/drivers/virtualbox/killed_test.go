package virtualbox_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
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
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

// killAt makes this test binary a command of its own: VERB N. It dies before
// the Nth time it runs VBoxManage, and with N negative after it.
const killAt = "MICA_TEST_KILL_AT"

// mortal is a runner that dies.
type mortal struct {
	fakevbox.Runner
	at    int64
	times *atomic.Int64
}

func (m mortal) Run(ctx context.Context, c run.Command) (run.Result, error) {
	n := m.times.Add(1)
	if n == m.at {
		die()
	}
	r, err := m.Runner.Run(ctx, c)
	if n == -m.at {
		die()
	}
	return r, err
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

func fleetIn(home, program string, runner run.Runner) *machine.Fleet {
	env := machine.Env{Run: runner, Getenv: func(name string) string { return map[string]string{"MICA_VBOXMANAGE": program}[name] }}
	return &machine.Fleet{
		Home: machine.Home(home),
		Drivers: machine.NewRegistry(env, machine.Factory{Name: virtualbox.Name, New: func(e machine.Env) machine.Driver {
			d := virtualbox.New(e)
			if filepath.Base(program) == fakevbox.Program { // the real one needs its time
				d = virtualbox.Hasty(d, 30*time.Second, 20*time.Second)
			}
			return d
		}}),
	}
}

// These are disks of the user's, in the shared folder.
const theirs, theirVDI = "theirs.img", "theirs.vdi"

func orderOf(name, iso string, share string) machine.Order {
	var disks []machine.Disk
	if path := filepath.Join(share, theirs); exists(path) {
		disks = []machine.Disk{{MiB: 8}, {Path: path, Format: "raw"}}
	}
	if path := filepath.Join(share, theirVDI); exists(path) {
		disks = append(disks, machine.Disk{Path: path, Format: "vdi"})
	}
	return machine.Order{Off: true, Spec: machine.Spec{
		Name: name, Driver: virtualbox.Name, MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Image: machine.Image{Path: iso},
		Context: []byte("#!/bin/sh\nexit\n"), Forwards: []machine.Forward{{Guest: 22, Auto: true}},
		Shares: []machine.Share{{Name: "s", Path: share}}, Disks: disks,
	}}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// verbs are what is killed.
var verbs = map[string]func(ctx context.Context, f *machine.Fleet, iso, share string) error{
	"create": func(ctx context.Context, f *machine.Fleet, iso, share string) error {
		_, err := f.Create(ctx, orderOf("m", iso, share))
		return err
	},
	"import": func(ctx context.Context, f *machine.Fleet, path, share string) error {
		a, err := ova.Open(ctx, path)
		if err != nil {
			return err
		}
		o := orderOf("m", "", share)
		if err := o.Appliance(a, path); err != nil {
			return err
		}
		_, err = f.Create(ctx, o)
		return err
	},
	"start": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Start(ctx, "m")
		return err
	},
	"wake": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Start(ctx, "m")
		return err
	},
	"save": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Save(ctx, "m")
		return err
	},
	"power off": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.PowerOff(ctx, "m")
		return err
	},
	"rename": func(ctx context.Context, f *machine.Fleet, _, _ string) error { return f.Rename(ctx, "m", "n") },
	"resize": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Resize(ctx, "m", 128, 2, 100)
		return err
	},
	"clone": func(ctx context.Context, f *machine.Fleet, _, _ string) error {
		_, err := f.Clone(ctx, "m", "n", nil)
		return err
	},
	"destroy": func(ctx context.Context, f *machine.Fleet, _, _ string) error { return f.Destroy(ctx, "m", true) },
}

// commandToKill runs in the process that is to die.
func commandToKill(what string) int {
	verb, n, _ := strings.Cut(what, "/")
	at, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		return 2
	}
	f := fleetIn(os.Args[1], os.Args[2], mortal{at: at, times: &atomic.Int64{}})
	if err := verbs[verb](context.Background(), f, os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestKilled kills each command before each time it runs VBoxManage, and after.
// Then gc clears what is half made, everything else still works, and nothing of
// anybody else's was touched.
func TestKilled(t *testing.T) {
	tier.Full(t)
	t.Parallel()
	most := map[string]int{"create": 40, "import": 40, "start": 20, "wake": 20, "save": 20, "power off": 20, "destroy": 30, "rename": 30, "resize": 20, "clone": 40} // bounds; each ends at its last step
	for verb := range verbs {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			image := bootable(t, verb)
			try := func(n int) bool {
				w := newFake(t, fakevbox.Config{Race: 2})
				return killed(t, killing{w.program, image, w.run, w.vbox, func() []string { return fakevbox.Known(w.dir) }}, verb, n)
			}
			for n := 1; n <= most[verb]; n++ {
				if !try(n) {
					if n == 1 {
						t.Errorf("%s did not run VBoxManage", verb)
					}
					t.Logf("%s runs VBoxManage %d times", verb, n-1)
					return
				}
				if n%3 == 0 { // mostly the same as before the next one
					try(-n)
				}
			}
			t.Errorf("%s did not end within %d commands", verb, most[verb])
		})
	}
}

// bootable writes what the machine to be killed is made of.
func bootable(t *testing.T, verb string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "boot.iso")
	if verb == "import" {
		return newAppliance(t)
	}
	if err := os.WriteFile(path, drivertest.BootISO(drivertest.Guest{}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const applianceText = `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="f" ovf:href="disk.vmdk"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="73400320" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<VirtualSystem ovf:id="box"><VirtualHardwareSection>
<Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>3</rasd:VirtualQuantity></Item>
<Item><rasd:HostResource>/disk/d</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
`

// newAppliance writes an OVA file with a disk of 70 MiB.
func newAppliance(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	raw, vmdk, path := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "box.ova")
	err := errors.Join(os.WriteFile(raw, drivertest.BootDisk(drivertest.Guest{}), 0o600), os.Truncate(raw, 70<<20))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tier.Tool(t, "qemu-img"), "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, vmdk).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	disk, err := os.ReadFile(vmdk)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range [][2]string{{"a.ovf", applianceText}, {"disk.vmdk", string(disk)}} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: e[0], Mode: 0o644, Size: int64(len(e[1])), Typeflag: tar.TypeReg}))
		_, werr := w.Write([]byte(e[1]))
		err = errors.Join(err, werr)
	}
	if err = errors.Join(err, w.Close(), os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// killing is where a command is killed: a VirtualBox, faked or real.
type killing struct {
	program, image string
	run            run.Runner
	vbox           func(args ...string) string
	known          func() []string // the machines and media that VirtualBox knows
}

// killed reports whether the command came as far as that.
func killed(t *testing.T, w killing, verb string, n int) bool {
	t.Helper()
	dir, share := t.TempDir(), t.TempDir()
	home, iso := filepath.Join(dir, "home"), w.image
	content := bytes.Repeat([]byte("their own "), 1<<20/10+1)[:1<<20]
	if err := os.WriteFile(filepath.Join(share, theirs), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if verb != "clone" { // both machines would have it
		vdi := filepath.Join(share, theirVDI)
		if out, err := exec.CommandContext(t.Context(), tier.Tool(t, "qemu-img"), "create", "-q", "-f", "vdi", vdi, "8M").CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v\n%s", err, out)
		}
	}
	// Somebody else's machine, of the same name, with a disk of its own.
	foreign := filepath.Join(t.TempDir(), "foreign.vdi")
	other := uuid.NewString()
	w.vbox("createvm", "--name", "m", "--ostype", "Linux26_64", "--uuid", other, "--basefolder", t.TempDir(), "--register")
	defer w.vbox("unregistervm", other)
	w.vbox("storagectl", other, "--name", "SATA", "--add", "sata")
	w.vbox("createmedium", "disk", "--filename", foreign, "--size", "8", "--format", "VDI")
	w.vbox("storageattach", other, "--storagectl", "SATA", "--port", "0", "--device", "0", "--type", "hdd", "--medium", foreign)
	before := w.known()

	f := fleetIn(home, w.program, w.run)
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s killed at %d: %s: %v", verb, n, what, err)
		}
	}
	makes := verb == "create" || verb == "import"
	if !makes {
		must("Create", verbs["create"](ctx, f, iso, share))
	}
	if verb == "wake" || verb == "save" || verb == "power off" || verb == "destroy" {
		must("Start", verbs["start"](ctx, f, "", ""))
	}
	if verb == "wake" {
		must("Save", verbs["save"](ctx, f, "", ""))
	}
	cmd := exec.CommandContext(ctx, os.Args[0], home, w.program, iso, share)
	cmd.Env = append(os.Environ(), killAt+"="+verb+"/"+strconv.Itoa(n))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	dead := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err != nil && !dead {
		t.Errorf("%s to be killed at %d: %v\n%s", verb, n, err, out)
	}
	for _, sub := range []string{"machines", "cache/boot"} { // gc leaves alone what is young
		entries, _ := os.ReadDir(filepath.Join(home, sub))
		for _, e := range entries {
			old := time.Now().Add(-time.Hour)
			must("making it look old", os.Chtimes(filepath.Join(home, sub, e.Name()), old, old))
		}
	}
	if _, err := f.Sweep(ctx, false); err != nil {
		must("gc", err)
	}
	found := 0
	for _, name := range []string{"m", "n"} {
		m, err := f.Get(ctx, name)
		if fail.Is(err, fail.NotFound) {
			continue
		}
		must("Get", err)
		found++
		if m.State == machine.Incomplete || m.State == machine.Damaged || m.State == machine.Unknown {
			t.Errorf("%s killed at %d: after gc %q is %s: %v", verb, n, name, m.State, m.Err)
		}
		if n%2 == 0 { // it is whole: it can be used
			_, err = f.Start(ctx, name)
			must("Start", err)
			_, err = f.PowerOff(ctx, name)
			must("PowerOff", err)
		}
		must("Destroy", f.Destroy(ctx, name, true))
	}
	if found == 0 && !makes && verb != "destroy" {
		t.Errorf("%s killed at %d: the machine is gone", verb, n)
	}
	if diff := cmp.Diff(before, w.known()); diff != "" {
		t.Errorf("%s killed at %d: VirtualBox's machines and media (-before +after):\n%s", verb, n, diff)
	}
	if entries, _ := os.ReadDir(filepath.Join(home, "machines")); len(entries) > 0 {
		t.Errorf("%s killed at %d: left behind: %v", verb, n, entries)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("%s killed at %d: %v", verb, n, err)
	}
	if after, err := os.ReadFile(filepath.Join(share, theirs)); err != nil || !bytes.Equal(after, content) {
		t.Errorf("%s killed at %d: the user's disk was changed (%v)", verb, n, err)
	}
	return dead
}
