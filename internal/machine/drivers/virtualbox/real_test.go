package virtualbox_test

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net"
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
	"github.com/micavm/mica/internal/tier"
)

// keeper holds the name spaces in which the real VirtualBox runs, and its
// display. Everything in them ends with it.
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
chroot "$ROOT" Xvfb :77 -screen 0 640x480x24 -nolisten tcp >/dev/null 2>&1 &
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
	r := &real{T: t, dir: shared, program: filepath.Join(shared, "VBoxManage")}
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

// TestReal runs against a real VirtualBox.
func TestReal(t *testing.T) {
	r := enter(t)
	t.Run("probe", r.probe)
	t.Run("configuration", r.configuration)
	t.Run("disk images", r.diskImages)
	t.Run("foreign disk", r.foreignDisk)
	t.Run("inaccessible", r.inaccessible)
	t.Run("powers", r.powers)
	t.Run("conformance", func(t *testing.T) {
		tier.Full(t)
		drivertest.Run(t, drivertest.Case{
			New:      func(*testing.T) machine.Driver { return adapted{r.driver(nil)} },
			Patience: 90 * time.Second, AtOnce: 2,
		})
	})
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

// diskImages boots nothing: it sees that each format becomes the machine's own
// disk, twice from one image.
func (r *real) diskImages(t *testing.T) {
	d := r.driver(nil)
	dir := t.TempDir()
	raw := filepath.Join(dir, "image.raw")
	sector := append(drivertest.DataSector(), make([]byte, 1<<20)...)
	if err := os.WriteFile(raw, sector[:1<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	for format, name := range map[string]string{"vdi": "VDI", "vmdk": "VMDK", "vpc": "VHD", "raw": ""} {
		t.Run(format, func(t *testing.T) {
			image := raw
			if name != "" {
				image = filepath.Join(dir, "image."+format)
				r.vbox("convertfromraw", raw, image, "--format", name)
			}
			data, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				i := r.make(t, d, func(s *machine.Spec) {
					s.Image.Format = format
					if err := os.WriteFile(s.ImagePath(), data, 0o400); err != nil {
						t.Fatal(err)
					}
				})
				in := virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
				if in["SATA-0-0"] != i.Spec.Path("disk.vdi") || in["boot1"] != "disk" || in["IDE-0-0"] != "none" {
					t.Errorf("SATA 0:0 %q, boot1 %q, IDE 0:0 %q; want the copy", in["SATA-0-0"], in["boot1"], in["IDE-0-0"])
				}
				if disk := r.vbox("showmediuminfo", "disk", i.Spec.Path("disk.vdi")); !strings.Contains(disk, "Capacity:       64 MBytes") {
					t.Errorf("the disk did not grow: %s", disk)
				}
				if after, err := os.ReadFile(i.Spec.ImagePath()); err != nil || !bytes.Equal(after, data) {
					t.Errorf("the image was changed (%v)", err)
				}
			}
		})
	}
}

// foreignDisk sees that disks of the user survive the machine they are in,
// snapshots or not.
func (r *real) foreignDisk(t *testing.T) {
	d := r.driver(nil)
	for _, snapshot := range []bool{false, true} {
		foreign := filepath.Join(t.TempDir(), "foreign.vdi")
		r.vbox("createmedium", "disk", "--filename", foreign, "--size", "8", "--format", "VDI")
		i := r.make(t, d, nil)
		r.vbox("storageattach", i.Spec.ID, "--storagectl", "SATA", "--port", "3", "--device", "0", "--type", "hdd", "--medium", foreign)
		if snapshot {
			if err := d.Snapshot(t.Context(), i, "one"); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Destroy(t.Context(), i); err != nil {
			t.Errorf("Destroy: %v", err)
		}
		if _, err := os.Stat(foreign); err != nil {
			t.Errorf("with snapshot %v, the user's disk is gone: %v", snapshot, err)
		}
		r.vbox("closemedium", "disk", foreign)
	}
}

// inaccessible sees that a machine whose settings are gone is named, and can be
// destroyed.
func (r *real) inaccessible(t *testing.T) {
	d := r.driver(nil)
	i := r.make(t, d, nil)
	if err := os.Remove(i.Spec.Path("vbox/real/real.vbox")); err != nil {
		t.Fatal(err)
	}
	// The service reads the file again when it is asked the next time.
	time.Sleep(6 * time.Second)
	state, err := d.State(t.Context(), i)
	t.Logf("State = %q, %v", state, err)
	if err := d.Destroy(t.Context(), i); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if state, err := d.State(t.Context(), i); state != machine.Absent || err != nil {
		t.Errorf("State = %q, %v; want absent", state, err)
	}
}

// powers tries what the suite does not.
func (r *real) powers(t *testing.T) {
	d := r.driver(nil)
	step := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v (hints %q)", name, err, fail.Hints(err))
		}
	}
	took := func(name string, do func() error) {
		t.Helper()
		began := time.Now()
		step(name, do())
		t.Logf("%s took %.1f s", name, time.Since(began).Seconds())
	}
	var i machine.Instance
	took("create", func() error { i = r.make(t, d, func(s *machine.Spec) { s.Display = "vnc" }); return nil })
	took("start", func() error { return d.Start(t.Context(), i) })
	took("describe", func() error {
		facts, err := d.Describe(t.Context(), i)
		if facts["virtualbox_state"] != "running" || facts["session"] == "" {
			t.Errorf("Describe = %v", facts)
		}
		return err
	})
	took("screenshot", func() error {
		var picture bytes.Buffer
		if err := d.Screenshot(t.Context(), i, &picture); err != nil {
			return err
		}
		_, err := png.Decode(&picture)
		return err
	})
	view, err := d.View(t.Context(), i)
	t.Logf("View = %q, %v", view, err)
	if address, ok := strings.CutPrefix(view, "vnc://"); ok {
		conn, err := net.Dial("tcp", address)
		step("connecting to the screen", err)
		greeting := make([]byte, 12)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(greeting); err != nil || !bytes.HasPrefix(greeting, []byte("RFB ")) {
			t.Errorf("the screen's server says %q, %v; want RFB", greeting, err)
		}
		conn.Close()
	}
	port := 22011
	took("forward", func() error { return d.SetForwards(t.Context(), i, []machine.Forward{{Host: port, Guest: 22}}) })
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		t.Errorf("the forwarded port: %v", err)
	} else {
		conn.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	step("listening", err)
	defer l.Close()
	held := l.Addr().(*net.TCPAddr).Port
	if err := d.SetForwards(t.Context(), i, []machine.Forward{{Host: held, Guest: 22}}); err == nil {
		t.Error("SetForwards to a port that is held = nil")
	}
	in := virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
	if want := fmt.Sprintf("guestapi,tcp,127.0.0.1,%d,,22", port); in["Forwarding(0)"] != want || in["Forwarding(1)"] != "" {
		t.Errorf("rules %q, %q; want %q as before", in["Forwarding(0)"], in["Forwarding(1)"], want)
	}
	took("snapshot", func() error { return d.Snapshot(t.Context(), i, "running") })
	took("save", func() error { return d.Save(t.Context(), i) })
	i.Spec.Forwards = []machine.Forward{{Host: port + 1, Guest: 22}}
	took("start from saved", func() error { return d.Start(t.Context(), i) })
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))); err != nil {
		t.Errorf("the forwarded port after a save: %v", err)
	} else {
		conn.Close()
	}
	took("power off", func() error { return d.Stop(t.Context(), i, machine.PowerOff) })
	all, err := d.Snapshots(t.Context(), i)
	if err != nil || len(all) != 1 || all[0].Name != "running" || !all[0].Memory || time.Since(all[0].Time) > time.Hour {
		t.Errorf("Snapshots = %+v, %v", all, err)
	}
	took("revert", func() error { return d.Revert(t.Context(), i, "running") })
	if state, err := d.State(t.Context(), i); state != machine.Saved || err != nil {
		t.Errorf("State = %q, %v; want saved", state, err)
	}
	took("start from the snapshot", func() error { return d.Start(t.Context(), i) })
	took("save", func() error { return d.Save(t.Context(), i) })
	took("drop the saved memory", func() error { return d.Stop(t.Context(), i, machine.PowerOff) })
	to := i.Spec
	to.Name, to.Dir, to.MemoryMiB = "renamed", filepath.Join(filepath.Dir(i.Spec.Dir), "moved & more"), 80
	step("moving the folder", os.Rename(i.Spec.Dir, to.Dir))
	took("move and rename", func() (err error) { i, err = d.Change(t.Context(), i, to); return err })
	in = virtualbox.Parse(r.vbox("showvminfo", i.Spec.ID, "--machinereadable"))
	for key, want := range map[string]string{
		"name": "renamed", "CfgFile": filepath.Join(to.Dir, "vbox/renamed/renamed.vbox"), "IDE-0-0": filepath.Join(to.Dir, "image.iso"),
		"uartmode1": "file," + filepath.Join(to.Dir, "serial.log"), "memory": "80",
	} {
		if in[key] != want {
			t.Errorf("after moving, %s = %q, want %q", key, in[key], want)
		}
	}
	took("start after moving", func() error { return d.Start(t.Context(), i) })
	took("drop the snapshot", func() error { return d.DropSnapshot(t.Context(), i, "running") })
	took("destroy", func() error { return d.Destroy(t.Context(), i) })
}
