package delivery_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

const userData = "#!/bin/sh\nexit 0\n[amiconfig]\nplugins=cernvm\n"

var meta = delivery.Meta{InstanceID: "83679162-0000-4288-a2d4-70e13ec132aa", Hostname: "vm1.local", PublicKeys: []string{"ssh-ed25519 AAAA me@here\n", "ssh-rsa BBBB you", "ssh-ed25519 AAAA me@here"}}

func drive(t testing.TB, text string, m delivery.Meta) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := delivery.ConfigDrive(t.Context(), &b, []byte(text), m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestConfigDrive(t *testing.T) {
	image := drive(t, userData, meta)
	img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	if img.Label != "CONFIG-2" {
		t.Errorf("label = %q", img.Label)
	}
	for _, p := range []string{"ec2/latest/user-data", "openstack/latest/user_data"} {
		if got, err := fs.ReadFile(img, p); string(got) != userData || err != nil {
			t.Errorf("%s = %q, %v", p, got, err)
		}
	}
	for p, want := range map[string]any{
		"openstack/latest/meta_data.json": map[string]any{
			"uuid": meta.InstanceID, "hostname": "vm1.local", "name": "vm1.local", "launch_index": 0.0, "availability_zone": "local",
			"public_keys": map[string]any{"default": "ssh-ed25519 AAAA me@here", "key1": "ssh-rsa BBBB you"},
		},
		"ec2/latest/meta-data.json": map[string]any{
			"instance-id": meta.InstanceID, "hostname": "vm1.local", "local-hostname": "vm1.local", "ami-launch-index": "0",
			"public-keys": map[string]any{"0": map[string]any{"openssh-key": "ssh-ed25519 AAAA me@here"}, "1": map[string]any{"openssh-key": "ssh-rsa BBBB you"}},
		},
	} {
		b, err := fs.ReadFile(img, p)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p, diff)
		}
	}
}

func TestConfigDriveAsIsoinfoSeesIt(t *testing.T) {
	tool := tier.Tool(t, "isoinfo")
	iso := filepath.Join(t.TempDir(), "c.iso")
	if err := os.WriteFile(iso, drive(t, userData, meta), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "/ec2\n/openstack\n/readme\n/ec2/latest\n/ec2/latest/meta-data.json\n/ec2/latest/user-data\n" +
		"/openstack/latest\n/openstack/latest/meta_data.json\n/openstack/latest/user_data\n"
	for _, names := range []string{"-R", "-J"} {
		out, err := exec.Command(tool, names, "-f", "-i", iso).Output()
		if err != nil || sortedLines(string(out)) != sortedLines(want) {
			t.Errorf("isoinfo %s -f: %v\n%s", names, err, out)
		}
		out, err = exec.Command(tool, names, "-i", iso, "-x", "/openstack/latest/user_data").Output()
		if err != nil || string(out) != userData {
			t.Errorf("isoinfo %s -x = %q, %v", names, out, err)
		}
	}
	out, err := exec.Command(tool, "-d", "-i", iso).Output()
	if err != nil || !strings.Contains(string(out), "Volume id: CONFIG-2\n") {
		t.Errorf("isoinfo -d: %v\n%s", err, out)
	}
}

func TestIdentityFollowsContent(t *testing.T) {
	m := delivery.Meta{Hostname: "a"}
	one := drive(t, "x", m)
	if !bytes.Equal(one, drive(t, "x", m)) {
		t.Error("equal contexts gave different media")
	}
	m.Hostname = "b"
	if bytes.Equal(one, drive(t, "x", m)) {
		t.Error("another host name gave the same medium")
	}
}

func TestMetaRefused(t *testing.T) {
	for _, m := range []delivery.Meta{{Hostname: "a b"}, {Hostname: "$(reboot)"}, {InstanceID: "i\nx: y"}, {PublicKeys: []string{"ssh-rsa A\nssh-rsa B"}}} {
		if err := delivery.ConfigDrive(t.Context(), &bytes.Buffer{}, nil, m); !fail.Is(err, fail.Usage) {
			t.Errorf("ConfigDrive(%+v) = %v, want a usage error", m, err)
		}
	}
}
