package machine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/stage"
)

func (w *world) doctor(boot bool) map[string]machine.Finding {
	w.Helper()
	all := map[string]machine.Finding{}
	getenv := func(name string) string { return map[string]string{"MICA_IMAGE": w.iso}[name] }
	if err := w.Doctor(w.Context(), boot, getenv, func(f machine.Finding) { all[f.Part] = f }); err != nil {
		w.Fatal(err)
	}
	return all
}

func TestDoctor(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.off("m")
	// One who was killed while a test machine ran is cleared away.
	forgotten := fleetIn(filepath.Join(string(w.Home), ".doctor-1"), w.program)
	if _, err := forgotten.Create(t.Context(), orderOf("x", w.iso)); err != nil {
		t.Fatal(err)
	}
	all := w.doctor(true)
	for _, part := range []string{"home", "image", "machines", "driver qemu"} {
		if f := all[part]; f.Health == machine.Problem || f.Health == "" {
			t.Errorf("%s: %+v", part, f)
		}
	}
	if f := all["driver qemu"]; f.Seconds == 0 || !strings.Contains(f.Detail, "a test machine ran") || !slices.Contains(f.Features, machine.VNC) {
		t.Errorf("driver qemu: %+v, want its test machine and its features", f)
	}
	entries, err := filepath.Glob(filepath.Join(string(w.Home), ".doctor-*"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %q, %v", entries, err)
	}
	if got := w.machines(); !slices.Equal(got, []string{"m"}) {
		t.Errorf("machines = %q", got)
	}

	if err := os.Chmod(string(w.Home), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(string(w.Home), "machines", "m", "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.program); err != nil {
		t.Fatal(err)
	}
	all = w.doctor(true)
	for part, want := range map[string]machine.Health{"home": machine.Warning, "machines": machine.Warning, "driver qemu": machine.Problem, "drivers": machine.Problem} {
		if f := all[part]; f.Health != want || len(f.Remedy) == 0 {
			t.Errorf("%s: %+v, want %s and a remedy", part, f, want)
		}
	}
}

// TestDoctorImage names images of every kind that MICA_IMAGE may.
func TestDoctorImage(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	for _, tc := range []struct {
		image, detail string
		health        machine.Health
	}{
		{w.iso, w.iso, machine.Fine},
		{diskFile(t, "cloud.img", qcow2Head, 1<<20), "(a disk image, qcow2)", machine.Fine},
		{diskFile(t, "based.qcow2", qcow2Based, 1<<20), "based on another image", machine.Warning},
		{diskFile(t, "page.html", "<html>", 1<<20), "page.html", machine.Warning},
		{"https://images.example/debian.qcow2", "fetched when", machine.Fine},
	} {
		found := machine.Finding{}
		getenv := func(name string) string { return map[string]string{"MICA_IMAGE": tc.image}[name] }
		err := w.Doctor(t.Context(), false, getenv, func(f machine.Finding) {
			if f.Part == "image" {
				found = f
			}
		})
		if err != nil || found.Health != tc.health || !strings.Contains(found.Detail, tc.detail) {
			t.Errorf("image %s: %+v, %v; want %s and %q", tc.image, found, err, tc.health, tc.detail)
		}
	}
}

const secretContext = `[amiconfig]
plugins=cernvm
[cernvm]
users=atlas:atlas:boson,lhcb:lhcb:muonPass
contextualization_key=1234567890abcdef
[condor]
condor_secret=sesame
Content-Type: text/cloud-config

#cloud-config
password: open sesame please
chpasswd: {list: "root:t0psecret"}
ssh_keys:
  rsa_private: |
    -----BEGIN OPENSSH PRIVATE KEY-----
    b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE
    -----END OPENSSH PRIVATE KEY-----
runcmd:
  - curl https://bob:letmein99@example.org/x
  - echo $6$salt$hashedhashed
`

// TestReport sees that nothing secret of a context gets into a bundle, not by
// the console either, and that what helps does.
func TestReport(t *testing.T) {
	secrets := []string{
		"boson", "muonPass", "1234567890abcdef", "sesame", "t0psecret", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE", "letmein99", "$6$salt$hashedhashed",
	}
	w := newWorld(t, drivertest.Guest{Says: "the guest blabs: " + strings.Join(secrets, " ") +
		"\r\n@mica {\"stage\":\"disk\",\"state\":\"failed\",\"detail\":\"bad password boson\"}\r\n"})
	o := orderOf("m", w.iso)
	o.Spec.Context = []byte(secretContext)
	if _, err := w.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	err := w.Follow(t.Context(), "m", func(stage.Event) {})
	if err == nil {
		t.Fatal("Follow = nil, want the failed stage")
	}
	read := func(b machine.Bundle) map[string]string {
		var packed bytes.Buffer
		if err := w.WriteReport(t.Context(), &packed, "m", b, os.Getenv); err != nil {
			t.Fatal(err)
		}
		unzipped, err := gzip.NewReader(&packed)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		for r := tar.NewReader(unzipped); ; {
			head, err := r.Next()
			if errors.Is(err, io.EOF) {
				return files
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files[strings.TrimPrefix(head.Name, "mica-report-m/")] = string(data)
		}
	}
	files := read(machine.Bundle{Version: "1"})
	for _, name := range []string{"about.json", "record.json", "why.json", "stages.json", "platform.json", "console.log", "doctor.json"} {
		if files[name] == "" {
			t.Errorf("the report lacks %s", name)
		}
	}
	for name, text := range files {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
		if strings.Contains(text, "PRIVATE KEY") || name == "context" {
			t.Errorf("%s is in the report", name)
		}
	}
	if !strings.Contains(files["console.log"], "the guest blabs: ********") || !strings.Contains(files["why.json"], "bad password") {
		t.Errorf("console %q, why %q: more is masked than secrets", files["console.log"], files["why.json"])
	}
	if all := read(machine.Bundle{WithContext: true}); all["context"] != secretContext || !strings.Contains(all["console.log"], "boson") {
		t.Error("with the context, the report is not what it was asked to be")
	}
	if _, err := exec.LookPath("ssh"); err == nil && !strings.Contains(files["doctor.json"], `"part": "ssh"`) {
		t.Error("the doctor's findings lack ssh")
	}
}
