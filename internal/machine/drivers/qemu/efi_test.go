package qemu_test

import (
	"bytes"
	"context"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/efiguest"
	"github.com/micavm/mica/internal/tier"
)

// patience is what a guest's firmware may take here: ten seconds of processor
// time, on a computer that has other things to do.
const patience = 5 * time.Minute

// efi orders a machine of UEFI, whose image is a CD or a disk.
func efi(t *testing.T, arch, format string) machine.Spec {
	t.Helper()
	s := machine.Spec{
		Name: "m", ID: "5f3c9a52-1111-4222-8333-444455556666", MemoryMiB: 128, CPUs: 1, DiskMiB: 64, Accel: "tcg", Dir: t.TempDir(),
		Firmware: machine.UEFI, Image: machine.Image{Format: format, Path: "the image"},
	}
	kind := efiguest.X86
	if arch == machine.ARM64 {
		s.Arch, kind = arch, efiguest.ARM
	}
	image, err := efiguest.CD(t.Context(), kind, "hello\r\n")
	if format != "" {
		image, err = efiguest.Disk(kind, "hello\r\n")
	}
	if err == nil {
		err = os.WriteFile(s.ImagePath(), image, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func needsFirmware(t *testing.T, d machine.Driver, s machine.Spec) {
	t.Helper()
	program := "qemu-system-x86_64"
	if s.Arch != "" {
		program = "qemu-system-" + s.Arch
	}
	tier.Tool(t, program)
	err := d.(machine.Checker).Check(t.Context(), s)
	if fail.Is(err, fail.HostLacks) {
		tier.Files(t, program, err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, d machine.Driver, s machine.Spec) machine.Instance {
	t.Helper()
	i, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	i.Spec.Dir = s.Dir
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), i); err != nil {
			t.Error(err)
		}
	})
	return i
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v, hints %q", what, err, fail.Hints(err))
	}
}

// says waits until the guest has written all the words, in that order.
func says(t *testing.T, d machine.Driver, i machine.Instance, words ...string) string {
	t.Helper()
	var log []byte
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		var err error
		log, err = d.(machine.Logger).Log(t.Context(), i, 0)
		must(t, "Log", err)
		rest, all := log, true
		for _, word := range words {
			_, after, found := bytes.Cut(rest, []byte(word))
			rest, all = after, all && found
		}
		if all {
			return string(log)
		}
	}
	t.Fatalf("the guest says …%q, want %q", log[max(0, len(log)-500):], words)
	return ""
}

// TestUEFI boots from a CD by UEFI, and sees what becomes of the firmware's
// variables: the guest counts its boots in one.
func TestUEFI(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	for _, arch := range []string{machine.X86_64, machine.ARM64} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			d := qemu.New(machine.Env{})
			s := efi(t, arch, "")
			s.Display = machine.DisplayVNC
			needsFirmware(t, d, s)
			i := create(t, d, s)
			must(t, "Start", d.Start(t.Context(), i))
			says(t, d, i, "hello", "boot 1", "#0002\r\n")
			watched(t, d, i)

			// The guest goes on where it was saved: it does not begin again.
			must(t, "Save", d.(machine.Saver).Save(t.Context(), i))
			if got := state(t, d, i); got != machine.Saved {
				t.Errorf("State = %q, want saved", got)
			}
			before := says(t, d, i)
			must(t, "Start from saved", d.Start(t.Context(), i))
			for until := time.Now().Add(patience); len(says(t, d, i)) < len(before)+len("#0003\r\n#0004\r\n"); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(until) {
					t.Fatal("the guest does not go on")
				}
			}
			if log := says(t, d, i); strings.Count(log, "hello") != 1 {
				t.Errorf("the guest began anew: %q", log)
			}
			must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))

			if arch == machine.X86_64 { // whose firmware takes three times as long, and is one of the same code
				return
			}

			// The variables go back with a snapshot, and along with a clone.
			must(t, "Snapshot", d.(machine.Snapshotter).Snapshot(t.Context(), i, "one"))
			must(t, "Start", d.Start(t.Context(), i))
			says(t, d, i, "boot 2")
			must(t, "Stop", d.Stop(t.Context(), i, machine.PowerOff))
			must(t, "Revert", d.(machine.Snapshotter).Revert(t.Context(), i, "one"))
			twin := efi(t, arch, "")
			twin.Name, twin.ID = "twin", "5f3c9a52-1111-4222-8333-444455556667"
			clone, err := d.(machine.Cloner).Clone(t.Context(), i, twin)
			must(t, "Clone", err)
			clone.Spec.Dir = twin.Dir
			t.Cleanup(func() { _ = d.Destroy(context.Background(), clone) })
			must(t, "Start of the clone", d.Start(t.Context(), clone))
			says(t, d, clone, "boot 2")
			must(t, "Destroy of the clone", d.Destroy(t.Context(), clone))
			left, err := os.ReadDir(twin.Dir)
			if err != nil || len(left) != 1 {
				t.Errorf("left of the clone: %v, %v", left, err)
			}
		})
	}
}

// watched looks at the screen.
func watched(t *testing.T, d machine.Driver, i machine.Instance) {
	t.Helper()
	var picture bytes.Buffer
	must(t, "Screenshot", d.(machine.Screener).Screenshot(t.Context(), i, &picture))
	if config, err := png.DecodeConfig(&picture); err != nil || config.Width < 640 {
		t.Errorf("Screenshot = %+v, %v; want a picture in PNG", config, err)
	}
	where, err := d.(machine.Viewer).View(t.Context(), i)
	if err != nil || !strings.HasPrefix(where, "vnc://127.0.0.1:") {
		t.Errorf("View = %q, %v", where, err)
	}
}

// TestUEFIDisk boots from disk images, without a screen.
func TestUEFIDisk(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	for _, arch := range []string{machine.X86_64, machine.ARM64} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			if arch == machine.X86_64 {
				tier.VM(t)
			}
			d := qemu.New(machine.Env{})
			s := efi(t, arch, "raw")
			needsFirmware(t, d, s)
			i := create(t, d, s)
			must(t, "Start", d.Start(t.Context(), i))
			says(t, d, i, "hello", "boot 1", "#0001\r\n")
		})
	}
}

// TestSecureBoot sees that firmware with keys refuses an application without a
// signature, which the machine without the option has started.
func TestSecureBoot(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	d := qemu.New(machine.Env{})
	s := efi(t, machine.X86_64, "")
	s.Options = map[string]string{"secure-boot": "on"}
	needsFirmware(t, d, s)
	i := create(t, d, s)
	must(t, "Start", d.Start(t.Context(), i))
	if log := says(t, d, i, "Access Denied"); strings.Contains(log, "hello") {
		t.Errorf("the guest ran: %q", log)
	}
}

// describe writes a description of firmware, and the files it names.
func describe(t *testing.T, dir, name, text string, files ...string) {
	t.Helper()
	must(t, "making a folder", os.MkdirAll(dir, 0o700))
	must(t, "writing", os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	for _, file := range files {
		must(t, "writing", os.WriteFile(file, []byte(filepath.Base(file)), 0o600))
	}
}

// TestFirmwareIsFound chooses among descriptions as they are in the world.
func TestFirmwareIsFound(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	system, admin := filepath.Join(top, "usr"), filepath.Join(top, "etc")
	text := func(name, arch, machines, features, device, format string) string {
		return `{"interface-types": ["uefi"], "mapping": {"device": "` + device + `", "executable": {"filename": "` + top + "/" + name + `.code", "format": "` + format + `"},
			"nvram-template": {"filename": "` + top + "/" + name + `.vars", "format": "` + format + `"}},
			"targets": [{"architecture": "` + arch + `", "machines": ["` + machines + `"]}], "features": [` + features + `], "tags": []}`
	}
	add := func(dir, file, name, arch, machines, features, device, format string) {
		t.Helper()
		describe(t, dir, file, text(name, arch, machines, features, device, format), filepath.Join(top, name+".code"), filepath.Join(top, name+".vars"))
	}
	check := func(what, arch string, options map[string]string, want string) {
		t.Helper()
		d := qemu.Firmwares(newFake(t), system, admin)
		s := efi(t, arch, "")
		s.Options = options
		err := d.(machine.Checker).Check(t.Context(), s)
		if want == "" {
			if !fail.Is(err, fail.HostLacks) || !strings.Contains(strings.Join(fail.Hints(err), " "), "package") {
				t.Errorf("%s: Check = %v, hints %q; want class HostLacks and the package to install", what, err, fail.Hints(err))
			}
			if _, err := d.Create(t.Context(), s); !fail.Is(err, fail.HostLacks) {
				t.Errorf("%s: Create = %v, want class HostLacks", what, err)
			}
			if left, _ := os.ReadDir(s.Dir); len(left) != 1 {
				t.Errorf("%s: left: %v", what, left)
			}
			return
		}
		must(t, what+": Check", err)
		i := create(t, d, s)
		if got, err := os.ReadFile(i.Spec.Path("vars.fd")); err != nil || string(got) != want+".vars" {
			t.Errorf("%s: the variables are %q, %v; want those of %q", what, got, err, want)
		}
		must(t, what+": Start", d.Start(t.Context(), i))
	}
	secure := map[string]string{"secure-boot": "on"}
	const q35, smm = "pc-q35-*", `"requires-smm", "secure-boot", "enrolled-keys"`

	check("nothing", machine.X86_64, nil, "")
	add(system, "10-other.json", "other", "x86_64", "microvm", "", "flash", "raw")
	add(system, "11-memory.json", "memory", "x86_64", q35, "", "memory", "raw")
	add(system, "12-arm.json", "arm", "aarch64", "virt-*", `"secure-boot"`, "flash", "raw")
	add(system, "13-odd.json", "odd", "x86_64", q35, "", "flash", "vmdk")
	add(system, "20-keys.json", "keys", "x86_64", q35, smm, "flash", "raw")
	describe(t, system, "00-broken.json", "{")
	describe(t, system, "notes.txt", "not one")
	check("none that boots anything", machine.X86_64, nil, "")
	check("with keys", machine.X86_64, secure, "keys")
	check("without keys", machine.ARM64, nil, "arm")
	check("arm with keys", machine.ARM64, secure, "")
	add(system, "30-able.json", "able", "x86_64", q35, `"secure-boot"`, "flash", "raw")
	check("able", machine.X86_64, nil, "able")
	add(system, "40-plain.json", "plain", "x86_64", q35, "", "flash", "raw")
	check("plain", machine.X86_64, nil, "plain")
	add(admin, "50-local.json", "local", "x86_64", q35, "", "flash", "raw")
	check("later", machine.X86_64, nil, "plain")
	add(admin, "40-plain.json", "mine", "x86_64", q35, "", "flash", "raw")
	check("of the administrator", machine.X86_64, nil, "mine")
	describe(t, admin, "40-plain.json", "")
	check("hidden", machine.X86_64, nil, "local")
	must(t, "removing", os.Remove(filepath.Join(top, "local.vars")))
	check("without variables", machine.X86_64, nil, "able")
}

func TestSecureBootOption(t *testing.T) {
	t.Parallel()
	d := newFake(t)
	s := efi(t, machine.X86_64, "")
	s.Options = map[string]string{"secure-boot": "maybe"}
	if err := d.(machine.Checker).Check(t.Context(), s); !fail.Is(err, fail.Usage) {
		t.Errorf("Check with secure-boot=maybe = %v, want class Usage", err)
	}
	s.Firmware, s.Options = "", map[string]string{"secure-boot": "on"}
	if err := d.(machine.Checker).Check(t.Context(), s); !fail.Is(err, fail.Usage) {
		t.Errorf("Check of secure boot without UEFI = %v, want class Usage", err)
	}
}

// TestFirmwareGone sees that a machine whose firmware was removed says so, and
// starts when it is back.
func TestFirmwareGone(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	code := filepath.Join(top, "code")
	describe(t, top, "1.json", `{"interface-types": ["uefi"], "mapping": {"device": "flash", "executable": {"filename": "`+code+`", "format": "raw"},
		"nvram-template": {"filename": "`+top+`/vars", "format": "raw"}}, "targets": [{"architecture": "x86_64", "machines": ["*"]}]}`,
		code, filepath.Join(top, "vars"))
	d := qemu.Firmwares(newFake(t), top)
	i := create(t, d, efi(t, machine.X86_64, ""))
	must(t, "renaming", os.Rename(code, code+".aside"))
	if err := d.Start(t.Context(), i); !fail.Is(err, fail.HostLacks) || !strings.Contains(strings.Join(fail.Hints(err), " "), "ovmf") {
		t.Errorf("Start = %v, hints %q; want class HostLacks and the package", err, fail.Hints(err))
	}
	must(t, "renaming", os.Rename(code+".aside", code))
	must(t, "Start", d.Start(t.Context(), i))
}

// TestForeignArch sees that KVM is not used for the code of another processor.
func TestForeignArch(t *testing.T) {
	t.Parallel()
	d := qemu.KVM(newFake(t))
	s := efi(t, machine.ARM64, "")
	s.Accel = "kvm"
	if err := d.(machine.Checker).Check(t.Context(), s); !fail.Is(err, fail.HostLacks) {
		t.Errorf("Check with KVM = %v, want class HostLacks", err)
	}
	s.Accel, s.MemoryMiB = "", 64
	if err := d.(machine.Checker).Check(t.Context(), s); !fail.Is(err, fail.Usage) {
		t.Errorf("Check with 64 MiB = %v, want class Usage", err)
	}
	lacks := qemu.New(machine.Env{Getenv: func(name string) string { return map[string]string{"MICA_QEMU_AARCH64": "no-such-qemu"}[name] }})
	s.MemoryMiB = 128
	if err := lacks.(machine.Checker).Check(t.Context(), s); !fail.Is(err, fail.HostLacks) || !strings.Contains(strings.Join(fail.Hints(err), " "), "qemu-system-arm") {
		t.Errorf("Check without the program = %v, hints %q; want class HostLacks and the package", err, fail.Hints(err))
	}
	for goarch, want := range map[string]string{
		"amd64": "-cpu max,pauth-impdef=on -machine virt,gic-version=3 -accel tcg,thread=multi",
		"arm64": "-cpu host -machine virt,gic-version=host -accel kvm",
	} {
		args := strings.Join(qemu.AutoArgs(qemu.On(d, goarch), s), " ")
		for _, part := range strings.SplitAfter(want, " -") {
			if part = strings.TrimSuffix(strings.TrimPrefix(part, "-"), " -"); !strings.Contains(args, part) {
				t.Errorf("on %s the arguments lack %q: %s", goarch, part, args)
			}
		}
	}

	// d is on a computer of aarch64, or not: KVM is for its own kind.
	other := machine.Spec{Name: "m", MemoryMiB: 64, CPUs: 1, Accel: "kvm"}
	if err := qemu.On(d, "arm64").(machine.Checker).Check(t.Context(), other); !fail.Is(err, fail.HostLacks) {
		t.Errorf("Check of x86_64 with KVM on aarch64 = %v, want class HostLacks", err)
	}
	report, err := d.Probe(t.Context())
	if err != nil || len(report.Accel) != 2 || !strings.Contains(strings.Join(report.Warnings, " "), "x86_64 run by emulation") {
		t.Errorf("Probe on aarch64 = %+v, %v; want both accelerations and a warning", report, err)
	}
	if args := strings.Join(qemu.AutoArgs(d, other), " "); !strings.Contains(args, "-accel tcg") {
		t.Errorf("x86_64 on aarch64: %s", args)
	}
}
