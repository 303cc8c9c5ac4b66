package virtualbox_test

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// keeper holds the name spaces in which the real VirtualBox runs, and its
// display. Everything in them ends with it.
//
// A display that is left by its last client starts anew, and drops who comes
// meanwhile: the next machine would not start. Hence -noreset.
const keeper = `
set -eu
mount -t proc proc "$ROOT/proc"
mount -t sysfs sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs shm "$ROOT/dev/shm"
mount -t tmpfs tmp "$ROOT/tmp"
mkdir -p "$ROOT$SHARED" "$ROOT/tmp/xdg"
chmod 700 "$ROOT/tmp/xdg"
mount --bind "$SHARED" "$ROOT$SHARED"
chroot "$ROOT" Xvfb :77 -screen 0 640x480x24 -noreset -nolisten tcp >/dev/null 2>&1 &
echo ready
exec cat >/dev/null
`

// inside enters them and runs VBoxManage. Paths below $SHARED are the same
// inside and outside.
const inside = `#!/bin/sh
exec nsenter -t %[1]d -m -p -- chroot %[2]s env -i PATH=/usr/bin:/bin HOME=%[3]s VBOX_USER_HOME=%[3]s/registry USER=root LOGNAME=root LC_ALL="$LC_ALL" \
	DISPLAY=:77 XDG_RUNTIME_DIR=/tmp/xdg "${VBOX_PROGRAM:-/usr/lib/virtualbox/VBoxManage}" "$@"
`

// real is a VirtualBox in a root directory of its own.
type real struct {
	*testing.T
	program, dir string
}

// enter starts the real VirtualBox that scripts/vbox-root.sh made.
func enter(t *testing.T) *real {
	t.Helper()
	root := os.Getenv("MICA_VBOX_ROOT")
	if root == "" {
		t.Skip("MICA_VBOX_ROOT names no root directory with VirtualBox; 'make test-vbox' makes one")
	}
	if os.Geteuid() != 0 {
		t.Fatal("MICA_VBOX_ROOT is set, but this is not root")
	}
	version, err := os.ReadFile(filepath.Join(root, ".complete"))
	if err != nil {
		t.Fatalf("MICA_VBOX_ROOT is not complete: %v", err)
	}
	t.Logf("VirtualBox %s", version)
	shared, err := os.MkdirTemp("", "vbox") //nolint:usetesting // short, and where TMPDIR is set to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(shared) })
	t.Setenv("TMPDIR", shared) // the machines' folders are seen from both sides
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", keeper)
	cmd.Env = append(os.Environ(), "ROOT="+root, "SHARED="+shared)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if n, err := stdout.Read(make([]byte, 16)); n == 0 {
		t.Fatalf("entering the root directory: %v", err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil || perr != nil {
		t.Fatalf("looking for the keeper: %q, %v, %v", children, err, perr)
	}
	r := &real{T: t, dir: shared, program: filepath.Join(shared, "vboxmanage")}
	if err := os.WriteFile(r.program, fmt.Appendf(nil, inside, pid, root, shared), 0o700); err != nil {
		t.Fatal(err)
	}
	// Without the kernel module, the interpreter is what is left.
	r.vbox("setextradata", "global", "VBoxInternal/HM/FallbackToIEM", "1")
	return r
}

func (r *real) vbox(args ...string) string {
	r.Helper()
	out, err := exec.Command(r.program, args...).CombinedOutput()
	if err != nil {
		r.Fatalf("VBoxManage %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// adapted is a driver whose guests listen to the power button where VirtualBox
// has it: its ACPI registers are at 0x4000 and it switches off with sleep type
// 5, those of the machine that drivertest's guest knows are at 0x600, and 0.
type adapted struct{ *virtualbox.Driver }

func (d adapted) Create(ctx context.Context, s machine.Spec) (machine.Instance, error) {
	image, err := os.ReadFile(s.ImagePath())
	if err != nil {
		return machine.Instance{}, err
	}
	const program, code, obeys = 20 * 2048, 0x100, 0xff
	part := image[program : program+code]
	if part[obeys] == 0 { // VirtualBox notes the button even for a guest that does not ask for it
		return d.Driver.Create(ctx, s)
	}
	for _, register := range []byte{0, 2, 4} {
		copy(part, bytes.ReplaceAll(part, []byte{0xba, register, 0x06}, []byte{0xba, register, 0x40}))
	}
	copy(part, bytes.ReplaceAll(part, []byte{0xb8, 0x00, 0x20}, []byte{0xb8, 0x00, 0x34}))
	if err := os.WriteFile(s.ImagePath(), image, 0o600); err != nil {
		return machine.Instance{}, err
	}
	return d.Driver.Create(ctx, s)
}

func (r *real) driver(env map[string]string) *virtualbox.Driver {
	return virtualbox.New(machine.Env{Getenv: func(name string) string {
		if name == "MICA_VBOXMANAGE" {
			return r.program
		}
		return env[name]
	}}).(*virtualbox.Driver)
}

// TestReal runs against a real VirtualBox: what every run of the tests is to see.
// TestRealMore has the rest.
func TestReal(t *testing.T) {
	r := enter(t)
	t.Run("probe", r.probe)
	t.Run("configuration", r.configuration)
	t.Run("media", r.media)
	t.Run("life", r.life)
	r.nothing(t)
}

// nothing fails unless VirtualBox knows no machine and no medium of these tests.
func (r *real) nothing(t *testing.T) {
	t.Helper()
	if left := r.vbox("list", "vms"); left != "" {
		t.Errorf("machines were left behind:\n%s", left)
	}
	if left := r.vbox("list", "hdds") + r.vbox("list", "dvds"); strings.Contains(left, r.dir) {
		t.Errorf("media were left behind:\n%s", left)
	}
}

// probe sees that the wrapper's warning about the kernel module is understood.
func (r *real) probe(t *testing.T) {
	report, err := r.driver(nil).Probe(t.Context())
	if err != nil || !strings.HasPrefix(report.Version, "7.") {
		t.Errorf("Probe = %+v, %v; want version 7", report, err)
	}
	t.Setenv("VBOX_PROGRAM", "/usr/bin/VBoxManage")
	report, err = r.driver(nil).Probe(t.Context())
	if _, there := os.Stat("/dev/vboxdrv"); there == nil {
		t.Skip("this computer has VirtualBox's kernel module")
	}
	if !fail.Is(err, fail.HostLacks) || !strings.Contains(fmt.Sprint(fail.Hints(err)), "vboxconfig") || report.Version == "" {
		t.Errorf("Probe = %+v, %v, hints %q; want the version, class HostLacks and the way to a module", report, err, fail.Hints(err))
	}
}

// make creates a machine of a tiny guest.
func (r *real) make(t *testing.T, d machine.Driver, change func(*machine.Spec)) machine.Instance {
	t.Helper()
	s := machine.Spec{
		Name: "real", ID: uuid.NewString(), MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Dir: t.TempDir(),
		Context: []byte("#!/bin/sh\nexit\n"),
	}
	if err := os.WriteFile(s.Path("image.iso"), drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&s)
	}
	i, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatalf("Create: %v (hints %q)", err, fail.Hints(err))
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), i); err != nil {
			t.Errorf("Destroy: %v", err)
		}
		for _, left := range []string{"vbox", "disk.vdi", "config.iso", "serial.log"} {
			if _, err := os.Lstat(s.Path(left)); err == nil {
				t.Errorf("left behind: %s", left)
			}
		}
	})
	return i
}

// configuration reads a machine back and compares it, field by field, with the
// commands by which CernVM's launcher makes one: libcernvm's VBoxSession.cpp,
// for flags 1+4+16+32 (64 bit, additions, window, clipboard).
func (r *real) configuration(t *testing.T) {
	share := t.TempDir()
	additions := filepath.Join(t.TempDir(), "additions.iso")
	if err := os.WriteFile(additions, drivertest.BootISO(drivertest.Guest{}), 0o600); err != nil {
		t.Fatal(err)
	}
	d := r.driver(nil)
	i := r.make(t, d, func(s *machine.Spec) {
		s.Name, s.CPUs, s.MemoryMiB, s.ExecutionCap, s.Clipboard, s.Display = "peer", 2, 512, 50, true, "vnc"
		s.Forwards = []machine.Forward{{Host: 22001, Guest: 22}, {Host: 22002, Guest: 80}}
		s.Shares = []machine.Share{{Name: "peer_sf", Path: share}}
		s.Options = map[string]string{"additions": additions}
	})
	s := i.Spec
	want := map[string]string{
		// createvm --name peer --ostype Linux26_64 --basefolder FOLDER --register
		"name": "peer", "UUID": s.ID, "CfgFile": s.Path("vbox/peer/peer.vbox"), "VMState": "poweroff",
		// storagectl --name IDE --add ide; SATA sata --portcount 4; Floppy floppy
		"storagecontrollername0": "IDE", "storagecontrollertype0": "PIIX4",
		"storagecontrollername1": "SATA", "storagecontrollertype1": "IntelAhci", "storagecontrollerportcount1": "4",
		"storagecontrollername2": "Floppy", "storagecontrollertype2": "I82078",
		// modifyvm --cpus --memory --vram --acpi on --ioapic on --graphicscontroller vboxsvga --boot1 dvd
		"cpus": "2", "memory": "512", "vram": "32", "acpi": "on", "ioapic": "on", "graphicscontroller": "vboxsvga",
		"boot1": "dvd", "boot2": "disk", "boot3": "none", "boot4": "none",
		// modifyvm --nic1 nat --nictype1 virtio --natpf1 guestapi,tcp,127.0.0.1,PORT,,22
		"nic1": "nat", "nictype1": "virtio", "nic2": "none",
		"Forwarding(0)": "guestapi,tcp,127.0.0.1,22001,,22", "Forwarding(1)": "mica-22002-80,tcp,127.0.0.1,22002,,80",
		// modifyvm --draganddrop bidirectional --clipboard bidirectional
		"draganddrop": "bidirectional", "clipboard": "bidirectional",
		// modifyvm --vrde on --vrdeaddress 127.0.0.1 --vrdeauthtype null --vrdemulticon on --vrdeport N
		"vrde": "on", "vrdeaddress": "127.0.0.1", "vrdeauthtype": "null", "vrdemulticon": "on", "vrdeports": "5900-5999",
		// sharedfolder add --name NAME_sf --hostpath DIR --automount
		"SharedFolderNameMachineMapping1": "peer_sf", "SharedFolderPathMachineMapping1": share,
		// storageattach IDE 0:0 dvddrive; SATA 0:0 hdd; SATA 1:0 dvddrive; SATA 2:0 dvddrive
		"IDE-0-0": s.Path("image.iso"), "SATA-0-0": s.Path("disk.vdi"), "SATA-1-0": s.Path("config.iso"), "SATA-2-0": additions, "SATA-3-0": "none",
		// what it documents and does not do: executionCap, and the serial log
		"cpuexecutioncap": "50", "uart1": "0x03f8,4", "uartmode1": "file," + s.Path("serial.log"), "rtcuseutc": "on",
	}
	all := virtualbox.Parse(r.vbox("showvminfo", s.ID, "--machinereadable"))
	got := map[string]string{}
	for key := range want {
		got[key] = all[key]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}
	if !strings.Contains(all["ostype"], "Linux 2.6") || !strings.Contains(all["ostype"], "64-bit") {
		t.Errorf("ostype = %q, want that of Linux26_64", all["ostype"])
	}
	// setextradata VBoxInternal2/SharedFoldersEnableSymlinksCreate/NAME_sf 1
	if extra := r.vbox("getextradata", s.ID, "VBoxInternal2/SharedFoldersEnableSymlinksCreate/peer_sf"); strings.TrimSpace(extra) != "Value: 1" {
		t.Errorf("extra data = %q, want Value: 1", extra)
	}
	settings, err := os.ReadFile(all["CfgFile"])
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`autoMount="true"`, `autoMountPoint="/mnt/shared/peer_sf"`, // --automount
		`use-host-resolver="true"`, // --natdnshostresolver1 on
	} {
		if !bytes.Contains(settings, []byte(part)) {
			t.Errorf("the settings lack %s:\n%s", part, settings)
		}
	}
	// createmedium --size N: made once, and of that size.
	if disk := r.vbox("showmediuminfo", "disk", s.Path("disk.vdi")); !strings.Contains(disk, "Capacity:       64 MBytes") || !strings.Contains(disk, "Storage format: VDI") {
		t.Errorf("the disk is %s", disk)
	}
}

// media sees what a machine is given to boot and to write to: its copy of a disk
// image, and disks beside it, a raw one and a VDI of the user's among them.
func (r *real) media(t *testing.T) {
	d := r.driver(nil)
	dir := t.TempDir()
	raw := filepath.Join(dir, `the user's "raw".img`)
	vdi, image := filepath.Join(dir, "theirs.vdi"), filepath.Join(dir, "image.vmdk")
	sectors := append(drivertest.DataSector(), make([]byte, 1<<20)...)[:1<<20]
	if err := os.WriteFile(raw, sectors, 0o600); err != nil {
		t.Fatal(err)
	}
	r.vbox("convertfromraw", raw, image, "--format", "VMDK", "--variant", "Stream")
	r.vbox("convertfromraw", raw, vdi, "--format", "VDI")
	before, err := os.ReadFile(vdi)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	i := r.make(t, d, func(s *machine.Spec) {
		s.Image.Format, s.Firmware = "vmdk", machine.UEFI
		s.Disks = []machine.Disk{{MiB: 8}, {Path: raw, Format: "raw"}, {Path: vdi, Format: "vdi"}}
		if err := os.WriteFile(s.ImagePath(), data, 0o400); err != nil {
			t.Fatal(err)
		}
	})
	in := virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
	got := map[string]string{}
	want := map[string]string{
		"firmware": "EFI", "boot1": "disk", "IDE-0-0": "none", "SATA-0-0": i.Spec.Path("disk.vdi"), "SATA-1-0": i.Spec.Path("config.iso"),
		"SATA-3-0": "none", "SATA-4-0": i.Spec.Path("more-1.vdi"), "SATA-5-0": i.Spec.Path("more-2.vmdk"), "SATA-6-0": vdi,
		"storagecontrollerportcount1": "7",
	}
	for key := range want {
		got[key] = in[key]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}
	for path, size := range map[string]string{"disk.vdi": "64", "more-1.vdi": "8", "more-2.vmdk": "1"} {
		if disk := r.vbox("showmediuminfo", "disk", i.Spec.Path(path)); !strings.Contains(disk, "Capacity:       "+size+" MBytes") {
			t.Errorf("%s should have %s MiB: %s", path, size, disk)
		}
	}
	if err := d.Destroy(t.Context(), i); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	for path, content := range map[string][]byte{raw: sectors, vdi: before} {
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
			t.Errorf("%s was changed (%v)", path, err)
		}
	}
}

// life takes a machine through all that is done to one.
func (r *real) life(t *testing.T) {
	d := r.driver(nil)
	step := func(name string, do func() error) {
		t.Helper()
		began := time.Now()
		if err := do(); err != nil {
			t.Fatalf("%s: %v (hints %q)", name, err, fail.Hints(err))
		}
		t.Logf("%s took %.1f s", name, time.Since(began).Seconds())
	}
	var i machine.Instance
	state := func(want machine.State) {
		t.Helper()
		if got, err := d.State(t.Context(), i); got != want || err != nil {
			t.Fatalf("State = %q, %v; want %q", got, err, want)
		}
	}
	// lines counts what the guest has written, of the hello and of its count.
	lines := func() (hello, count int) {
		data, err := d.Log(t.Context(), i, 0)
		if err != nil {
			t.Fatalf("Log: %v", err)
		}
		return strings.Count(string(data), "hello"), strings.Count(string(data), "#")
	}
	counts := func(beyond int) {
		t.Helper()
		for until := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if hello, count := lines(); hello == 1 && count > beyond {
				return
			} else if time.Now().After(until) {
				t.Fatalf("the guest said hello %d times and counted to %d, want once and beyond %d", hello, count, beyond)
			}
		}
	}
	port := ports(t, 1)[0]
	step("create", func() error {
		i = r.make(t, d, func(s *machine.Spec) { s.Forwards = []machine.Forward{{Host: port, Guest: 22}} })
		return nil
	})
	state(machine.Stopped)
	step("start", func() error { return d.Start(t.Context(), i) })
	state(machine.Running)
	counts(0)
	if !answers(port) {
		t.Errorf("nothing listens on port %d", port)
	}
	step("forward", func() error {
		i.Spec.Forwards = []machine.Forward{{Host: ports(t, 1)[0], Guest: 22}}
		return d.SetForwards(t.Context(), i, i.Spec.Forwards)
	})
	if !answers(i.Spec.SSHPort()) || answers(port) {
		t.Errorf("port %d should be forwarded, and %d no longer", i.Spec.SSHPort(), port)
	}
	step("screenshot", func() error {
		var picture bytes.Buffer
		if err := d.Screenshot(t.Context(), i, &picture); err != nil {
			return err
		}
		_, err := png.Decode(&picture)
		return err
	})
	step("pause", func() error { return d.SetPaused(t.Context(), i, true) })
	state(machine.Paused)
	step("resume", func() error { return d.SetPaused(t.Context(), i, false) })
	_, count := lines()
	counts(count)
	step("save", func() error { return d.Save(t.Context(), i) })
	state(machine.Saved)
	_, count = lines()
	step("start from saved", func() error { return d.Start(t.Context(), i) })
	state(machine.Running)
	counts(count)
	if !answers(i.Spec.SSHPort()) {
		t.Errorf("nothing listens on port %d after a save", i.Spec.SSHPort())
	}
	step("power off", func() error { return d.Stop(t.Context(), i, machine.PowerOff) })
	state(machine.Stopped)
	step("change", func() (err error) {
		to := i.Spec
		to.MemoryMiB, to.Firmware, to.Context = 80, "", []byte("#!/bin/sh\n")
		to.Shares = []machine.Share{{Name: "s", Path: t.TempDir(), ReadOnly: true}}
		i, err = d.Change(t.Context(), i, to)
		return err
	})
	in := virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
	if in["memory"] != "80" || in["SharedFolderNameMachineMapping1"] != "s" {
		t.Errorf("after a change: memory %q, share %q", in["memory"], in["SharedFolderNameMachineMapping1"])
	}
	if medium, err := os.ReadFile(i.Spec.Path("config.iso")); err != nil || !bytes.Contains(medium, []byte("vboxsf")) {
		t.Errorf("the guest is not told of its share (%v)", err)
	}
	step("destroy", func() error { return d.Destroy(t.Context(), i) })
	state(machine.Absent)
}
