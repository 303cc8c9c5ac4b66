package vmware

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/image/cpio"
	"github.com/micavm/mica/internal/tier"
)

// TestQEMU asks at a real port: QEMU imitates the part of the hypervisor that tells
// its version, and no messages. Without that part nothing answers.
func TestQEMU(t *testing.T) {
	tier.VM(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the backdoor is of x86")
	}
	qemu := tier.Tool(t, "qemu-system-x86_64")
	image, err := filepath.Abs("../../../../build/demo/mica.iso")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kernel := filepath.Join(dir, "vmlinuz")
	text, err := exec.CommandContext(t.Context(), tier.Tool(t, "isoinfo"), "-R", "-i", image, "-x", "/cernvm/vmlinuz.xz").Output()
	if err != nil || len(text) == 0 {
		t.Skipf("no kernel, make demo puts one in %s: %v", image, err)
	}
	if err := os.WriteFile(kernel, text, 0o600); err != nil {
		t.Fatal(err)
	}
	probe := filepath.Join(dir, "probe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", probe, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the probe: %v\n%s", err, out)
	}
	data, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := cpio.Write(&archive, []cpio.Entry{{Path: "init", Mode: 0o755, Data: data}}, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string][]string{
		"on":  {"PROBE version 6, <nil>", `PROBE value "", false, reading guestinfo.userdata: opening a channel: the hypervisor refuses`},
		"off": {"PROBE version 0, no VMware hypervisor answers", `PROBE value "", false, reading guestinfo.userdata: no VMware hypervisor answers`},
	} {
		cmd := exec.CommandContext(t.Context(), qemu, "-machine", "pc,vmport="+option, "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none",
			"-no-reboot", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1")
		cmd.WaitDelay = 5 * time.Second
		timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		timer.Stop()
		for _, line := range want {
			if !strings.Contains(string(out), line) {
				t.Errorf("vmport=%s: %v, no line %q in\n%s", option, err, line, out)
			}
		}
	}
}
