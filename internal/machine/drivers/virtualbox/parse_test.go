package virtualbox_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
)

func transcript(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestParse reads what VirtualBox 7.2 really says, and 5.2 with everything in
// it that is irregular.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		file string
		want map[string]string
	}{
		{"showvminfo-7.2-run.txt", map[string]string{
			"name": "m", "VMState": "running", "SessionName": "headless", "memory": "64", "SATA-0-0": "/home/u/mica/m/disk.vdi",
			"Floppy-0-0": "none", "Forwarding(1)": "mica-23112-80,tcp,127.0.0.1,23112,,80", "uartmode1": "file,/home/u/mica/m/serial.log",
			"VideoMode": "640,480,32", "encryption": "disabled", " rec_screen0": "", "rec_screen_enabled": "on", "GuestAdditionsRunLevel": "0",
		}},
		{"showvminfo-7.2-off.txt", map[string]string{"name": "m", "VMState": "poweroff", "SessionName": "", "boot2": "disk"}},
		{"showvminfo-5.2-run.txt", map[string]string{
			"name": "old", "VMState": "running", "IDE-0-0": "emptydrive", "SATA-0-0": `/home/u/Virtual Box/a "quoted" disk.vdi`,
			"SharedFolderPathMachineMapping1": "/home/u", "GuestAdditionsVersion": "5.2.18 r124319", "graphicscontroller": "",
		}},
	} {
		for _, crlf := range []bool{false, true} {
			text := transcript(t, c.file)
			if crlf {
				text = string(toCRLF(text))
			}
			all := virtualbox.Parse(text)
			got := map[string]string{}
			for key := range c.want {
				got[key] = all[key]
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s, CRLF %v (-want +got):\n%s", c.file, crlf, diff)
			}
		}
	}
}

func toCRLF(text string) []byte {
	var out []byte
	for _, b := range []byte(text) {
		if b == '\n' {
			out = append(out, '\r')
		}
		out = append(out, b)
	}
	return out
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"showvminfo-7.2-run.txt", "showvminfo-7.2-off.txt", "showvminfo-5.2-run.txt"} {
		f.Add(transcript(f, name))
	}
	f.Add("description=\"\nname=\"x\"")
	f.Add("\"=\"=\"\"\"\na=\"\n=\n\"\"=\"\\\"")
	f.Fuzz(func(t *testing.T, text string) {
		in := virtualbox.Parse(text)
		for key, value := range in {
			if key == "" || len(key)+len(value) > len(text) {
				t.Errorf("Parse(%q) has %q = %q", text, key, value)
			}
		}
		_, _, _ = virtualbox.Mode(in)
		_, _ = virtualbox.Snapshots([]byte(text))
	})
}

func TestMode(t *testing.T) {
	for _, c := range []struct {
		in      map[string]string
		want    machine.State
		passing bool
		fails   bool
	}{
		{map[string]string{"VMState": "poweroff"}, machine.Stopped, false, false},
		{map[string]string{"VMState": "aborted"}, machine.Stopped, false, false},
		{map[string]string{"VMState": "saved"}, machine.Saved, false, false},
		{map[string]string{"VMState": "aborted-saved"}, machine.Saved, false, false},
		{map[string]string{"VMState": "running"}, machine.Running, false, false},
		{map[string]string{"VMState": "paused"}, machine.Paused, false, false},
		{map[string]string{"VMState": "gurumeditation"}, machine.Crashed, false, false},
		{map[string]string{"VMState": "starting"}, machine.Stopped, true, false},
		{map[string]string{"VMState": "restoring"}, machine.Saved, true, false},
		{map[string]string{"VMState": "saving"}, machine.Running, true, false},
		{map[string]string{"VMState": "stopping"}, machine.Running, true, false},
		{map[string]string{"VMState": "dreaming"}, "", false, true},
		{map[string]string{"name": "<inaccessible>"}, "", false, true},
		{nil, machine.Absent, false, false},
	} {
		got, passing, err := virtualbox.Mode(c.in)
		if (err != nil) != c.fails || !c.fails && (got != c.want || passing != c.passing) {
			t.Errorf("Mode(%v) = %q, %v, %v; want %q, %v", c.in, got, passing, err, c.want, c.passing)
		}
	}
}

// TestSnapshotsFile reads VirtualBox 7.2's own file.
func TestSnapshotsFile(t *testing.T) {
	all, err := virtualbox.Snapshots([]byte(transcript(t, "snapshots-7.2.vbox")))
	if err != nil || len(all) != 2 || all[0].Name != "one" || all[1].Name != "two" || all[1].StateFile == "" ||
		all[0].UUID != "bb0c79d1-cdc1-43b1-80e6-3f467aa2a897" || all[0].Time != "2026-11-28T20:51:36Z" {
		t.Errorf("snapshots = %+v, %v", all, err)
	}
}
