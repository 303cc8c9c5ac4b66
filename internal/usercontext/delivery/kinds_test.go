package delivery_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// files of each kind, as TestEveryKind expects them.
var expected = map[string]string{
	"config-2":   "ec2/latest/meta-data.json\nec2/latest/user-data\nopenstack/latest/meta_data.json\nopenstack/latest/user_data\nreadme",
	"opennebula": "context.sh\nprolog.sh\nroot.pub",
	"vsphere":    "user-data.txt",
	"azure":      "CustomData.bin\nE6DA6616-8EC4-48E0-BE93-58CE6ACE3CFB.tag\novf-env.xml",
	"nocloud":    "meta-data\nuser-data",
}

// write makes a medium of kind k in the given file system and returns its path.
func write(t *testing.T, k delivery.Kind, system string, text []byte, m delivery.Meta) string {
	t.Helper()
	var b bytes.Buffer
	var err error
	if system == "fat" {
		err = delivery.WriteFAT(&b, k, text, m)
	} else {
		err = delivery.WriteISO(t.Context(), &b, k, text, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "medium")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestEveryKind writes each kind in each file system, twice, and inspects it.
func TestEveryKind(t *testing.T) {
	large := []byte(strings.Repeat("it's a line of \"context\" with $odd characters\n\x00\xff", 5000))
	for _, k := range delivery.Kinds() {
		for _, system := range []string{"iso9660", "fat"} {
			for _, text := range [][]byte{[]byte(userData), nil, large} {
				name := write(t, k, system, text, meta)
				found, err := delivery.Inspect(name)
				if err != nil {
					t.Errorf("%s on %s: %v", k.Name, system, err)
					continue
				}
				if found.Kind != k.Name || found.System != system || found.Label != k.Label || !bytes.Equal(found.UserData, text) {
					t.Errorf("%s on %s: kind %q, system %q, label %q, %d bytes of user data, want %d", k.Name, system, found.Kind, found.System, found.Label, len(found.UserData), len(text))
				}
				if k.Name != "vsphere" && found.Hostname != meta.Hostname {
					t.Errorf("%s on %s: host name %q", k.Name, system, found.Hostname)
				}
				if (k.Name == "config-2" || k.Name == "nocloud") && found.Instance != meta.InstanceID {
					t.Errorf("%s on %s: instance %q", k.Name, system, found.Instance)
				}
				var paths []string
				for _, f := range found.Files {
					paths = append(paths, f.Path)
				}
				if diff := cmp.Diff(expected[k.Name], strings.Join(paths, "\n")); diff != "" {
					t.Errorf("%s on %s: files (-want +got):\n%s", k.Name, system, diff)
				}
				first, _ := os.ReadFile(name)
				second, _ := os.ReadFile(write(t, k, system, text, meta))
				if !bytes.Equal(first, second) {
					t.Errorf("%s on %s: two media of one context differ", k.Name, system)
				}
			}
		}
	}
}

// TestLabelsAsBlkidSeesThem asks the program that udev asks.
func TestLabelsAsBlkidSeesThem(t *testing.T) {
	blkid := tier.Tool(t, "blkid")
	for _, k := range delivery.Kinds() {
		for system, kind := range map[string]string{"iso9660": "iso9660", "fat": "vfat"} {
			out, err := exec.Command(blkid, "-p", "-o", "export", write(t, k, system, []byte(userData), meta)).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "LABEL="+k.Label+"\n") || !strings.Contains(string(out), "TYPE="+kind+"\n") {
				t.Errorf("%s on %s: %v\n%s", k.Name, system, err, out)
			}
		}
	}
}

// TestContextShInAShell has a shell read what no shell should have to.
func TestContextShInAShell(t *testing.T) {
	sh := tier.Tool(t, "sh")
	k, err := delivery.Named("opennebula")
	if err != nil {
		t.Fatal(err)
	}
	m := meta
	m.PublicKeys = []string{"ssh-rsa AAAA it's $HOME `me`", "ssh-rsa BBBB two"}
	files, err := k.Files([]byte(userData), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Path != "context.sh" {
			continue
		}
		name := filepath.Join(t.TempDir(), "context.sh")
		r, _ := f.Open()
		var text bytes.Buffer
		_, _ = text.ReadFrom(r)
		if err := os.WriteFile(name, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(sh, "-c", `. "$1"; printf '%s|%s|%s|%s|%s' "$EC2_USER_DATA" "$USERDATA_ENCODING" "$SET_HOSTNAME" "$ROOT_PUBKEY" "$SSH_KEY"`, "sh", name).Output()
		want := base64.StdEncoding.EncodeToString([]byte(userData)) + "|base64|vm1.local|root.pub|" + strings.Join(m.PublicKeys, "\n")
		if err != nil || string(out) != want {
			t.Errorf("shell reads %q, %v; want %q", out, err, want)
		}
	}
}

// TestAzureDocumentInCloudInitsWords reads the document by the element names and
// namespaces that cloud-init looks for.
func TestAzureDocumentInCloudInitsWords(t *testing.T) {
	python := tier.Tool(t, "python3")
	k, err := delivery.Named("azure")
	if err != nil {
		t.Fatal(err)
	}
	m := meta
	m.PublicKeys = []string{"ssh-rsa A & <b>"}
	files, err := k.Files([]byte(userData), m)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := files[0].Open()
	const script = `
import sys, json, base64
from xml.etree import ElementTree as E
wa = "{http://schemas.microsoft.com/windowsazure}"
root = E.fromstring(sys.stdin.buffer.read())
assert root.tag == "{http://schemas.dmtf.org/ovf/environment/1}Environment", root.tag
assert root.find(wa + "ProvisioningSection/" + wa + "Version").text == "1.0"
c = root.find(wa + "ProvisioningSection/" + wa + "LinuxProvisioningConfigurationSet")
assert root.find(wa + "PlatformSettingsSection/" + wa + "PlatformSettings/" + wa + "ProvisionGuestAgent").text == "false"
print(json.dumps({"host": c.find(wa + "HostName").text, "user": c.find(wa + "UserName").text,
  "data": base64.b64decode(c.find(wa + "CustomData").text).decode(),
  "keys": [k.find(wa + "Value").text for k in c.findall(wa + "SSH/" + wa + "PublicKeys/" + wa + "PublicKey")]}))`
	cmd := exec.Command(python, "-c", script)
	cmd.Stdin = r
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, out)
	}
	var got, want any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	want = map[string]any{"host": "vm1.local", "user": "root", "data": userData, "keys": []any{"ssh-rsa A & <b>"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("document (-want +got):\n%s", diff)
	}
}

func TestNoCloudMetaIsYAML(t *testing.T) {
	python := tier.Tool(t, "python3")
	if exec.Command(python, "-c", "import yaml").Run() != nil {
		t.Skip("python3 has no yaml module")
	}
	k, err := delivery.Named("nocloud")
	if err != nil {
		t.Fatal(err)
	}
	files, err := k.Files(nil, delivery.Meta{InstanceID: "i-1", Hostname: "h", PublicKeys: []string{"ssh-rsa A: #b"}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", "import sys, yaml, json; print(json.dumps(yaml.safe_load(sys.stdin), sort_keys=True))")
	cmd.Stdin, _ = files[0].Open()
	out, err := cmd.Output()
	if want := `{"instance-id": "i-1", "local-hostname": "h", "public-keys": ["ssh-rsa A: #b"]}`; err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("yaml = %s, %v; want %s", out, err, want)
	}
}

func TestInspectOthers(t *testing.T) {
	iso := tier.Tool(t, "genisoimage")
	for _, tc := range []struct {
		name  string
		files map[string]string
		kind  string
		data  string
	}{
		{"plain config drive of another maker", map[string]string{"openstack/latest/user_data": "u", "openstack/latest/meta_data.json": `{"uuid":"x"}`}, "config-2", "u"},
		{"EC2 tree only", map[string]string{"ec2/latest/user-data": "e", "ec2/latest/meta-data.json": "{}"}, "config-2", "e"},
		{"cloud-localds", map[string]string{"user-data": "#cloud-config\n", "meta-data": "instance-id: i-1\nlocal-hostname: h\n"}, "nocloud", "#cloud-config\n"},
		{"OpenNebula, not encoded", map[string]string{"context.sh": "USER_DATA=\"plain \\$x\"\n"}, "opennebula", "plain $x"},
		{"Azure without the decoded file", map[string]string{"ovf-env.xml": `<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure"><wa:ProvisioningSection><LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure"><HostName>h</HostName><CustomData>aGk=</CustomData></LinuxProvisioningConfigurationSet></wa:ProvisioningSection></Environment>`}, "azure", "hi"},
	} {
		tree := t.TempDir()
		for p, text := range tc.files {
			full := filepath.Join(tree, p)
			if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, names := range [][]string{{"-R"}, {"-J"}} {
			out := filepath.Join(t.TempDir(), "x.iso")
			if b, err := exec.Command(iso, append(names, "-quiet", "-o", out, tree)...).CombinedOutput(); err != nil {
				t.Fatalf("genisoimage: %v\n%s", err, b)
			}
			found, err := delivery.Inspect(out)
			if err != nil || found.Kind != tc.kind || string(found.UserData) != tc.data {
				t.Errorf("%s %v: kind %q, user data %q, %v; want %q, %q", tc.name, names, found.Kind, found.UserData, err, tc.kind, tc.data)
			}
		}
	}
}

func TestInspectRefuses(t *testing.T) {
	if _, err := delivery.Inspect(filepath.Join(t.TempDir(), "none")); !fail.Is(err, fail.NotFound) {
		t.Errorf("Inspect of a missing file = %v", err)
	}
	name := filepath.Join(t.TempDir(), "x")
	for _, text := range []string{"", "not an image", strings.Repeat("\x00", 100_000)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := delivery.Inspect(name); !errors.Is(err, delivery.ErrNotContext) {
			t.Errorf("Inspect of %d bytes = %v, want ErrNotContext", len(text), err)
		}
	}
}
