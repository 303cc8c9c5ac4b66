package params_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/params"
)

const whole = `
# every key
name: worker
context: worker.context
image: images/mica.iso
image-format: iso
checksum: sha256:00
memory: 4G
cpus: 2
disk: 40G
add-disk: [8G, data.qcow2]
firmware: uefi
arch: aarch64
port: 2200
forward: [8080:80, auto:443]
network: bridge0
share:
  - data:ro
  - home=.
display: vnc
clipboard: true
execution-cap: 50
label: batch
driver: virtualbox
accel: tcg
medium: nocloud
option: {vram: 64, firmware: uefi}
`

func parse(t *testing.T, dir, text string) *params.File {
	t.Helper()
	f, err := params.Parse("m.yaml", dir, []byte(text))
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return f
}

func TestEveryKey(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data.qcow2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range params.All() {
		if !strings.Contains(whole, "\n"+p.Name+":") {
			t.Errorf("the file lacks %q: this test is no longer whole", p.Name)
		}
	}
	got, err := params.Sources{File: parse(t, dir, whole)}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	got.Origin = nil
	want := params.Choice{
		Name: "worker", Context: filepath.Join(dir, "worker.context"), Port: "2200", ImageFormat: "iso", Checksum: "sha256:00",
		Spec: machine.Spec{
			Driver: "virtualbox", MemoryMiB: 4096, CPUs: 2, DiskMiB: 40 << 10, Accel: "tcg", Medium: "nocloud",
			Firmware: machine.UEFI, Arch: machine.ARM64, Disks: []machine.Disk{{MiB: 8 << 10}, {Path: filepath.Join(dir, "data.qcow2")}},
			Image:    machine.Image{Path: filepath.Join(dir, "images/mica.iso")},
			Forwards: []machine.Forward{{Host: 2200, Guest: 22}, {Host: 8080, Guest: 80}, {Guest: 443, Auto: true}},
			Network:  "bridge0", Display: "vnc", Clipboard: true, ExecutionCap: 50, Labels: []string{"batch"},
			Shares:  []machine.Share{{Name: "data", Path: filepath.Join(dir, "data"), ReadOnly: true}, {Name: "home", Path: dir}},
			Options: map[string]string{"vram": "64", "firmware": "uefi"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	env := map[string]string{"MICA_CREATE_CPUS": "3", "MICA_CREATE_MEMORY": "3G", "MICA_CREATE_FORWARD": "81:81,82:82"}
	s := params.Sources{
		Flags:  map[string][]string{"cpus": {"4"}},
		Getenv: func(name string) string { return env[name] },
		File:   parse(t, "/", "cpus: 2\nmemory: 2G\ndisk: 2G\nforward: [80:80]"),
	}
	c, err := s.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Spec; got.CPUs != 4 || got.MemoryMiB != 3072 || got.DiskMiB != 2048 || c.Port != "auto" {
		t.Errorf("Resolve = %+v, want 4 processors by flag, 3 GiB by environment, 2 GiB of disk by file, port by default", got)
	}
	if len(c.Spec.Forwards) != 3 || c.Spec.Forwards[1].Host != 81 {
		t.Errorf("forwards = %v, want those of the environment only", c.Spec.Forwards)
	}
	want := map[string]string{"cpus": "--cpus", "memory": "MICA_CREATE_MEMORY", "disk": "m.yaml:3: disk", "port": "default"}
	for name, origin := range want {
		if c.Origin[name] != origin {
			t.Errorf("origin of %s = %q, want %q", name, c.Origin[name], origin)
		}
	}
}

// TestPlainHardware sees that what every machine has leaves the Spec empty, so
// that drivers which know nothing else take it.
func TestPlainHardware(t *testing.T) {
	for _, tc := range []struct{ arch, firmware, wantArch, wantFirmware string }{
		{"x86_64", "bios", "", ""},
		{"x86_64", "uefi", "", "uefi"},
		{"aarch64", "", "aarch64", "uefi"},
		{"aarch64", "bios", "aarch64", ""}, // refused by Validate
		{"", "", "", ""},
	} {
		flags := map[string][]string{}
		if tc.arch != "" {
			flags["arch"] = []string{tc.arch}
		}
		if tc.firmware != "" {
			flags["firmware"] = []string{tc.firmware}
		}
		c, err := params.Sources{Flags: flags}.Resolve()
		if err != nil || c.Spec.Arch != tc.wantArch || c.Spec.Firmware != tc.wantFirmware {
			t.Errorf("--arch %q --firmware %q = arch %q, firmware %q, %v; want %q, %q",
				tc.arch, tc.firmware, c.Spec.Arch, c.Spec.Firmware, err, tc.wantArch, tc.wantFirmware)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ text, want, hint string }{
		{"memroy: 1G", `m.yaml:1: unknown key "memroy"`, `did you mean "memory"?`},
		{"\n\nqqqqqqqq: 1", `m.yaml:3: unknown key "qqqqqqqq"`, "long options"},
		{"cpus: 1\ncpus: 2", "m.yaml:2", ""},
		{"cpus: [1]", "m.yaml:1: cpus takes one value", ""},
		{"forward: {a: b}", "m.yaml:1: forward takes one value or a list", ""},
		{"cpus:", "m.yaml:1: cpus has no value", "default"},
		{"cpus: many", `m.yaml:1: cpus: "many" is no number`, ""},
		{"memory: 1.5G", `m.yaml:1: memory: cannot read size`, ""},
		{"forward: 80", `m.yaml:1: forward: cannot read forward "80"`, ""},
		{"port: x", `m.yaml:1: port: cannot read port "x"`, ""},
		{"clipboard: perhaps", "neither true nor false", ""},
		{"execution-cap: 0", "no percentage", ""},
		{"option: x", `cannot read option "x"`, ""},
		{"option: [a=1, a=2]", `option "a" is given twice`, ""},
		{"share: /nowhere/at/all", "sharing", ""},
		{"add-disk: /nowhere/at/all", "neither a size nor a file", "20G or ./data.qcow2"},
		{"share: /dev/null", "no folder", ""},
		{"- a", "m.yaml:1: it does not hold keys", ""},
		{"a: 1\n---\nb: 2", "one document", ""},
		{"a: [", "m.yaml: yaml: line 1", ""},
	} {
		f, err := params.Parse("m.yaml", "/", []byte(tc.text))
		if err == nil {
			_, err = params.Sources{File: f}.Resolve()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) || !fail.Is(err, fail.Usage) {
			t.Errorf("reading %q = %v, want class Usage and %q", tc.text, err, tc.want)
		}
		if hints := strings.Join(fail.Hints(err), "\n"); !strings.Contains(hints, tc.hint) {
			t.Errorf("reading %q: hints %q, want %q", tc.text, hints, tc.hint)
		}
	}
	for _, empty := range []string{"", "# nothing\n", "~", "label: []"} {
		parse(t, "/", empty)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("a: &x [*x]"))
	f.Add([]byte("option: {? [a] : b}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := params.Parse("m.yaml", "/nowhere", data)
		if err == nil {
			_, _ = params.Sources{File: file}.Resolve()
		}
	})
}
