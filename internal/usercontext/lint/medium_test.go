package lint

import (
	"bytes"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// medium makes a CD and reads it.
func medium(t testing.TB, label string, files map[string]string) (delivery.Found, error) {
	t.Helper()
	v := iso9660.Volume{Label: label, RockRidge: true}
	for path, text := range files {
		v.Files = append(v.Files, iso9660.Bytes(path, 0o444, []byte(text)))
	}
	var b bytes.Buffer
	if err := iso9660.Write(t.Context(), &b, v); err != nil {
		t.Fatal(err)
	}
	return delivery.Read(bytes.NewReader(b.Bytes()), int64(b.Len()))
}

func TestMedia(t *testing.T) {
	const uuid = `{"uuid":"i-1"}`
	drive := func(changes ...string) map[string]string {
		files := map[string]string{"openstack/latest/user_data": "u", "openstack/latest/meta_data.json": uuid, "ec2/latest/user-data": "u", "ec2/latest/meta-data.json": "{}"}
		for i := 0; i < len(changes); i += 2 {
			if files[changes[i]] = changes[i+1]; changes[i+1] == "" {
				delete(files, changes[i])
			}
		}
		return files
	}
	for _, tc := range []struct {
		name, label string
		files       map[string]string
		want        []string // words of each finding, with its severity in front
	}{
		{"a config drive", "config-2", drive(), nil},
		{"another label", "DATA", drive(), []string{"warning: the label is \"DATA\""}},
		{"no identifier", "config-2", drive("openstack/latest/meta_data.json", "{}"), []string{"error: there is no instance id, so cloud-init gives"}},
		{"not JSON", "config-2", drive("openstack/latest/meta_data.json", "{"), []string{"error: its readers pass it over: openstack/latest/meta_data.json"}},
		{"CernVM-Launch's", "CONFIG-2", drive("openstack/latest/meta_data.json", `{"uuid":"83679162-1378-4288-a2d4-70e13ec132aa"}`), []string{"warning: the instance id is that of every machine"}},
		{"OpenStack's tree only", "config-2", drive("ec2/latest/user-data", "", "ec2/latest/meta-data.json", ""), []string{"warning: amiconfig of an original CernVM finds no context"}},
		{"EC2's tree only", "config-2", drive("openstack/latest/user_data", "", "openstack/latest/meta_data.json", ""), []string{"warning: only amiconfig"}},
		{"no EC2 metadata", "config-2", drive("ec2/latest/meta-data.json", ""), []string{"warning: amiconfig of an original CernVM passes the medium over"}},
		{"two contexts", "config-2", drive("ec2/latest/user-data", "v"), []string{"error: the contexts for boot loader and amiconfig differ"}},
		{"two kinds", "config-2", drive("context.sh", "A=b\n"), []string{"warning: there is context.sh as well"}},
		{"NoCloud", "cidata", map[string]string{"user-data": "u", "meta-data": "instance-id: i\n"}, nil},
		{"NoCloud by another label", "seed", map[string]string{"user-data": "u", "meta-data": "instance-id: i\n"}, []string{"error: the label is \"seed\""}},
		{"NoCloud without an identifier", "cidata", map[string]string{"user-data": "u", "meta-data": "{}"}, []string{"error: there is no instance id, so cloud-init takes"}},
		{"NoCloud without metadata", "cidata", map[string]string{"user-data": "u"}, []string{"error: its readers pass it over"}},
		{"OpenNebula", "CONTEXT", map[string]string{"context.sh": "USER_DATA='x'\n"}, nil},
		{"vSphere", "DATA", map[string]string{"user-data.txt": "u"}, []string{"warning: the label is"}},
	} {
		f, err := medium(t, tc.label, tc.files)
		var m Media
		compareFindings(t, tc.name, m.Check("x", f, err, nil), tc.want)
		if left := m.Check("y", f, err, []string{"P001"}); len(left) > 0 {
			t.Errorf("%s: ignored, but %v", tc.name, left)
		}
	}
}

// TestMediaOfMica wants nothing to be said about what Mica writes.
func TestMediaOfMica(t *testing.T) {
	for _, k := range delivery.Kinds() {
		var iso, fat bytes.Buffer
		if err := delivery.WriteISO(t.Context(), &iso, k, []byte("u"), delivery.Meta{Hostname: "h"}); err != nil {
			t.Fatal(err)
		}
		if err := delivery.WriteFAT(&fat, k, []byte("u"), delivery.Meta{Hostname: "h"}); err != nil {
			t.Fatal(err)
		}
		var m Media
		for name, image := range map[string][]byte{"iso": iso.Bytes(), "fat": fat.Bytes()} {
			f, err := delivery.Read(bytes.NewReader(image), int64(len(image)))
			compareFindings(t, k.Name+" "+name, m.Check(name, f, err, nil), nil)
		}
	}
}

func TestMediaWithOneIdentifier(t *testing.T) {
	var m Media
	for _, tc := range []struct {
		file, text string
		want       []string
	}{
		{"a", "one", nil},
		{"b", "one", nil},
		{"c", "two", []string{"error: instance id i is that of b, too"}},
	} {
		f, err := medium(t, "cidata", map[string]string{"user-data": tc.text, "meta-data": "instance-id: i\n"})
		compareFindings(t, tc.file, m.Check(tc.file, f, err, nil), tc.want)
	}
}

func compareFindings(t *testing.T, name string, got []usercontext.Problem, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %q", name, got, want)
		return
	}
	for i, p := range got {
		if text := p.Severity.String() + ": " + p.Text; p.Rule != "P001" || !strings.HasPrefix(text, want[i]) {
			t.Errorf("%s: %s %s, want %s", name, p.Rule, text, want[i])
		}
	}
}
