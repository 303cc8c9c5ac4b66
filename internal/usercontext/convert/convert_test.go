package convert

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/delivery"
	"github.com/micavm/mica/internal/usercontext/lint"
	"github.com/micavm/mica/internal/usercontext/multipart"
)

// chaos is randomness that repeats.
func chaos() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1}) }

func load(t testing.TB, text string) Loaded {
	t.Helper()
	l, err := Loader{Rand: chaos()}.Load("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func faults(t testing.TB, text []byte) []usercontext.Problem {
	t.Helper()
	c, err := usercontext.Parse("made", text)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(lint.Check(c, lint.Options{}), func(p usercontext.Problem) bool { return p.Severity == usercontext.Note })
}

// values are sections, keys and values without their places.
func values(a *usercontext.Amiconfig) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, s := range a.Sections {
		if strings.HasPrefix(s.Name, "ucernvm-") || s.Name == "end" {
			continue
		}
		out[s.Name] = map[string]string{}
		for _, o := range s.Options {
			out[s.Name][o.Key] = o.Value
		}
	}
	return out
}

const whole = "#!/bin/sh.after\necho hello\n\nexit 0\n\n[amiconfig]\nplugins=cernvm\n\n[cernvm]\nservices=docker\n\n[ucernvm-begin]\ncvmfs_branch=x.cern.ch\n[ucernvm-end]\n"

// same compares what all agents read.
func same(t *testing.T, what string, a, b *usercontext.Context) {
	t.Helper()
	if diff := cmp.Diff(values(a.Amiconfig()), values(b.Amiconfig())); diff != "" {
		t.Errorf("%s: sections (-before +after):\n%s", what, diff)
	}
	if diff := cmp.Diff(a.Block().Keys, b.Block().Keys); diff != "" {
		t.Errorf("%s: block (-before +after):\n%s", what, diff)
	}
	if x, y := a.Script(), b.Script(); !bytes.Equal(x.Text, y.Text) || x.Before != y.Before || x.After != y.After {
		t.Errorf("%s: script %q, before it was %q", what, y.Text, x.Text)
	}
}

func TestRoundTrips(t *testing.T) {
	texts := map[string]string{"whole": whole}
	demo, err := os.ReadFile("../../../examples/demo.context")
	if err != nil {
		t.Fatal(err)
	}
	texts["demo"] = string(demo)
	checkRoundTrips(t, texts)
}

func TestRealContexts(t *testing.T) {
	dir := tier.PeerData(t, "contexts")
	files, err := filepath.Glob(filepath.Join(dir, "*.context"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no contexts in %s: %v", dir, err)
	}
	texts := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(file)] = string(data)
	}
	checkRoundTrips(t, texts)
}

func checkRoundTrips(t *testing.T, texts map[string]string) {
	for name, text := range texts {
		before := load(t, text)
		for _, form := range []string{"mime", "context.sh", "gzip", "base64"} {
			out, left, err := To(before, form, chaos())
			if err != nil || len(left) > 0 {
				t.Errorf("%s to %s: left %v, %v", name, form, left, err)
				continue
			}
			after := load(t, string(out))
			same(t, name+" to "+form, before.Context, after.Context)
			if form != "mime" && !bytes.Equal(after.Text, before.Text) {
				t.Errorf("%s to %s and back: other bytes", name, form)
			}
			back, left, err := To(after, "context", chaos())
			if err != nil || len(left) > 0 {
				t.Errorf("%s to %s and back: left %v, %v", name, form, left, err)
			}
			same(t, name+" to "+form+" and back", before.Context, load(t, string(back)).Context)
		}
	}
}

// TestMIMESeenByOriginals checks that the original agents find their parts.
func TestMIMESeenByOriginals(t *testing.T) {
	out, _, err := To(load(t, whole), "mime", chaos())
	if err != nil {
		t.Fatal(err)
	}
	if got := faults(t, out); len(got) > 0 {
		t.Errorf("the message has faults: %v\n%s", got, out)
	}
	o := load(t, string(out)).Original()
	if v, _ := o.Amiconfig.Get("cernvm", "services"); v != "docker" {
		t.Errorf("amiconfig reads services = %q from\n%s", v, out)
	}
	for _, s := range o.Block.Settings[:1] {
		if s.Original != "CVMFS_BRANCH=x.cern.ch" {
			t.Errorf("the boot loader reads %q", s.Original)
		}
	}
}

func TestMIME(t *testing.T) {
	parts := []multipart.Part{
		{Type: "amiconfig-user-data", Filename: "dir/a.txt", Data: []byte("[amiconfig]\r\nplugins=cernvm")},
		{Type: "cloud-config", Filename: "c.yaml", Data: []byte("#cloud-config\nusers:\n  - default\n")},
	}
	for _, keep := range []bool{false, true} {
		out, err := multipart.Write(parts, keep, chaos())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range faults(t, out) {
			if p.Severity == usercontext.Error {
				t.Errorf("keep order %v: %v\n%s", keep, p, out)
			}
		}
		c := load(t, string(out))
		var names []string
		for _, p := range c.Parts {
			names = append(names, p.Filename)
		}
		want := []string{"c.yaml", "a.txt"}
		if keep {
			want = []string{"a.txt", "c.yaml"}
		}
		if !cmp.Equal(names, want) {
			t.Errorf("keep order %v: parts %q, want %q", keep, names, want)
		}
		if _, ok := c.Original().Amiconfig.Get("amiconfig", "users"); ok {
			t.Errorf("keep order %v: amiconfig takes the cloud-config's keys for its own", keep)
		}
	}
	if _, err := multipart.Write([]multipart.Part{{Type: "cloud-config", Filename: "x", Data: []byte{0xff}}}, false, chaos()); err == nil {
		t.Error("Write takes bytes that are not text")
	}
}

func TestMIMERoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []multipart.Part
		for range rapid.IntRange(1, 4).Draw(t, "parts") {
			body := rapid.StringOfN(rapid.SampledFrom([]rune("ab=:-[]\n \té#")), 1, 60, -1).Draw(t, "body")
			typ := rapid.SampledFrom([]string{"cloud-config", "cloud-boothook", "part-handler"}).Draw(t, "type")
			parts = append(parts, multipart.Part{Type: typ, Filename: "f", Data: []byte(strings.TrimRight(body, "\n") + "\n")})
		}
		out, err := multipart.Write(parts, true, chaos())
		if err != nil {
			t.Fatal(err)
		}
		c, err := usercontext.Parse("x", out)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Parts) != len(parts) {
			t.Fatalf("%d parts, want %d:\n%s", len(c.Parts), len(parts), out)
		}
		for i, p := range c.Parts {
			if !bytes.Equal(p.Data, parts[i].Data) {
				t.Fatalf("part %d = %q, want %q", i, p.Data, parts[i].Data)
			}
		}
	})
}

func TestCloudConfig(t *testing.T) {
	text := "#!/bin/sh.before\nuseradd x\nexit 0\n[amiconfig]\nplugins=cernvm hostname squid disablesshpasswdauth\n[hostname]\nhostname=h\n" +
		"[cernvm]\nusers=a:g:pw,b:b:$6$x$y,c:c:\nenvironment=A=1,B=x y\nservices=docker\nrepositories=sft,x.org\nproxy=\"http://p:1;DIRECT\"\nkeyboard=de\nedition=Desktop\nconfig_url=http://x/\nswap_size=2G\n" +
		"[ucernvm-begin]\ncvmfs_tag=t\n[ucernvm-end]\n"
	out, left, err := To(load(t, text), "cloud-config", chaos())
	if err != nil {
		t.Fatal(err)
	}
	if got := faults(t, out); len(got) > 0 {
		t.Errorf("the cloud-config has faults: %v", got)
	}
	var what []string
	for _, u := range left {
		what = append(what, u.What)
	}
	if diff := cmp.Diff([]string{"plugin squid", "the phase of the script", "the password of user c", "edition", "cvmfs_tag"}, what); diff != "" {
		t.Errorf("unmapped (-want +got):\n%s", diff)
	}
	var got map[string]any
	if err := yaml.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	users := got["users"].([]any)
	a := users[1].(map[string]any)
	if a["name"] != "a" || a["primary_group"] != "g" || a["sudo"] == nil || !strings.HasPrefix(a["passwd"].(string), "$6$") {
		t.Errorf("user a = %v", a)
	}
	if b := users[2].(map[string]any); b["passwd"] != "$6$x$y" || b["sudo"] != nil || b["lock_passwd"] != false {
		t.Errorf("user b = %v", b)
	}
	if c := users[3].(map[string]any); c["lock_passwd"] != true {
		t.Errorf("user c = %v", c)
	}
	if strings.Contains(string(out), "pw\n") {
		t.Error("the password is in clear text")
	}
	for key, want := range map[string]any{"hostname": "h", "ssh_pwauth": false, "groups": []any{"g", "b", "c"}, "keyboard": map[string]any{"layout": "de"}, "swap": map[string]any{"filename": "/swapfile", "size": "2G"}} {
		if diff := cmp.Diff(want, got[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	files := map[string]string{}
	for _, f := range got["write_files"].([]any) {
		f := f.(map[string]any)
		files[f["path"].(string)] = f["content"].(string)
	}
	want := map[string]string{
		"/etc/profile.d/context-environment.sh": "export A='1'\nexport B='x y'\n",
		"/etc/cvmfs/default.local":              "CVMFS_REPOSITORIES='sft.cern.ch,x.org'\nCVMFS_HTTP_PROXY='http://p:1;DIRECT'\n",
		scriptPath:                              "#!/bin/sh.before\nuseradd x\nexit 0\n",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestCloudConfigStays(t *testing.T) {
	const text = "#cloud-config\nruncmd: [ls]\n"
	out, left, err := To(load(t, text), "cloud-config", chaos())
	if err != nil || len(left) > 0 || string(out) != text {
		t.Errorf("To = %q, %v, %v", out, left, err)
	}
	mixed := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/cloud-config\n\n#cloud-config\n--B\nContent-Type: text/amiconfig-user-data\n\n[amiconfig]\nplugins=cernvm\n--B--\n"
	out, left, err = To(load(t, mixed), "context", chaos())
	if err != nil || len(left) != 1 || !strings.Contains(left[0].What, "cloud-config") || !strings.Contains(string(out), "[amiconfig]") {
		t.Errorf("To context = %q, %v, %v", out, left, err)
	}
}

func TestNew(t *testing.T) {
	full := Spec{
		Hostname: "worker", Users: []Account{{Name: "u", Password: "pw"}, {Name: "v", Group: "g", Hash: "$6$salt$" + strings.Repeat("x", 86)}},
		Repositories: []string{"sft", "grid"}, Organisations: []string{"ATLAS"}, Services: []string{"docker"}, Environment: []string{"A=1"},
		Proxy: "http://p:3128;DIRECT", Desktop: true, Branch: "cernvm-prod.cern.ch", Tag: "v1", Path: "cvm4", Script: "echo hello\r\ntouch /x", Before: true,
	}
	for name, s := range map[string]Spec{"nothing": {}, "everything": full, "a script with its own line": {Script: "#!/bin/bash\necho\nexit 3\n"}} {
		out, err := New(s, chaos())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := faults(t, out); len(got) > 0 {
			t.Errorf("%s: faults %v in\n%s", name, got, out)
		}
	}
	out, err := New(full, chaos())
	if err != nil {
		t.Fatal(err)
	}
	c := load(t, string(out))
	if users, _ := c.Amiconfig().Get("cernvm", "users"); !strings.HasPrefix(users, "u:u:$6$") || !strings.Contains(users, ",v:g:$6$salt$") {
		t.Errorf("users = %q", users)
	}
	if got := c.Block().Keys["cvmfs_http_proxy"]; got != full.Proxy {
		t.Errorf("proxy = %q", got)
	}
	if s := c.Script(); string(s.Text) != "#!/bin/sh.before\necho hello\ntouch /x\nexit 0\n" || !s.Before {
		t.Errorf("script = %q", s.Text)
	}
	for _, s := range []Spec{{Hostname: "a\n[cernvm]"}, {Tag: "$(reboot)"}} {
		if _, err := New(s, chaos()); !fail.Is(err, fail.Usage) {
			t.Errorf("New(%+v) = %v, want a usage error", s, err)
		}
	}
}

func TestSplit(t *testing.T) {
	files := Split(load(t, whole).Context)
	var got []string
	for _, f := range files {
		got = append(got, f.Name)
	}
	if diff := cmp.Diff([]string{"script.sh", "ucernvm.txt", "amiconfig.txt"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	text := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n" +
		strings.Repeat("--B\nContent-Type: text/cloud-config\nContent-Disposition: attachment; filename=\"../../etc/passwd\"\n\n#cloud-config\n", 2) + "--B--\n"
	got = nil
	for _, f := range Split(load(t, text).Context) {
		got = append(got, f.Name)
	}
	if diff := cmp.Diff([]string{"passwd", "passwd-2"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestSeal(t *testing.T) {
	sealed, err := seal([]byte(whole), "pw", chaos(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if !IsSealed(sealed) {
		t.Errorf("IsSealed = false for\n%s", sealed)
	}
	if plain, err := Open(sealed, "pw"); err != nil || string(plain) != whole {
		t.Errorf("Open = %q, %v", plain, err)
	}
	if _, err := Open(sealed, "other"); !errors.Is(err, ErrPassword) {
		t.Errorf("Open with another password = %v, want ErrPassword", err)
	}
	for i := 30; i < len(sealed)-30; i += 7 { // somewhere in the body
		changed := bytes.Clone(sealed)
		if changed[i] == 'A' || changed[i] == '\n' {
			continue
		}
		changed[i] = 'A'
		if plain, err := Open(changed, "pw"); err == nil {
			t.Fatalf("byte %d changed: Open = %q", i, plain)
		}
	}
	l := Loader{Password: func() (string, error) { return "pw", nil }}
	if c, err := l.Load("x", sealed); err != nil || string(c.Text) != whole {
		t.Errorf("Load = %v", err)
	}
	l.Password = func() (string, error) { return "other", nil }
	if _, err := l.Load("x", sealed); !fail.Is(err, fail.Unverified) {
		t.Errorf("Load with a wrong password = %v, want class Unverified", err)
	}
	if _, err := (Loader{}).Load("x", sealed); !fail.Is(err, fail.Usage) {
		t.Errorf("Load without a password = %v, want class Usage", err)
	}
}

func TestLoadDefinition(t *testing.T) {
	l := load(t, `{"values":{"name":"x","root_ssh_key":"ssh-rsa AAAA","general":{"users":{"1":{"name":"u","group":"u","password":"pw"}},"cvm_wa_password":"x"}}}`)
	if users, _ := l.Amiconfig().Get("cernvm", "users"); !strings.HasPrefix(users, "u:u:$6$") {
		t.Errorf("users = %q", users)
	}
	if len(l.PublicKeys) != 1 || len(l.Warnings) != 1 {
		t.Errorf("keys %q, warnings %q", l.PublicKeys, l.Warnings)
	}
}

// TestMedia takes contexts back from the images that machines get.
func TestMedia(t *testing.T) {
	for _, k := range delivery.Kinds() {
		var image bytes.Buffer
		if err := delivery.WriteISO(t.Context(), &image, k, []byte(whole), delivery.Meta{Hostname: "h"}); err != nil {
			t.Fatal(err)
		}
		l, err := Loader{}.Load("image", image.Bytes())
		if err != nil || string(l.Text) != whole {
			t.Errorf("%s: Load = %v", k.Name, err)
		}
	}
	var image bytes.Buffer
	if err := iso9660.Write(t.Context(), &image, iso9660.Volume{Label: "X", Files: []iso9660.File{iso9660.Bytes("README", 0o644, []byte("x"))}}); err != nil {
		t.Fatal(err)
	}
	if _, err := (Loader{}).Load("image", image.Bytes()); !fail.Is(err, fail.NotFound) {
		t.Errorf("Load of an image without a context = %v, want class NotFound", err)
	}
}

func TestToUnknown(t *testing.T) {
	if _, _, err := To(load(t, whole), "xml", nil); !fail.Is(err, fail.Usage) {
		t.Errorf("To = %v, want a usage error", err)
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\n#!/bin/sh\n--B--\n"))
	f.Add([]byte("EC2_USER_DATA=" + base64.StdEncoding.EncodeToString([]byte(whole))))
	f.Fuzz(func(_ *testing.T, data []byte) {
		c, err := usercontext.Parse("x", data)
		if err != nil {
			return
		}
		for _, target := range Targets() {
			_, _, _ = To(Loaded{Context: c}, target.Name, chaos())
		}
		Split(c)
	})
}

func FuzzOpen(f *testing.F) {
	sealed, err := seal([]byte(whole), "pw", chaos(), 10)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte("-----BEGIN " + sealType + "-----\nAQo=\n-----END " + sealType + "-----\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if len(data) > 60 && bytes.Contains(data, []byte("ARQ")) { // a cost of 20 takes seconds
			return
		}
		_, _ = Open(data, "pw")
	})
}
