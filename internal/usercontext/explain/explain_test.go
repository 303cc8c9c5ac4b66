package explain

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func text(t *testing.T, name string, data []byte, o Options) string {
	t.Helper()
	c, err := usercontext.Parse(name, data)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Explain(c, o).Text(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("explanation of %s (-want +got):\n%s", name, diff)
	}
}

func TestDemo(t *testing.T) {
	data, err := os.ReadFile("../../../examples/demo.context")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "demo", text(t, "demo.context", data, Options{}))
}

// TestRealContexts explains contexts that are in public use.
func TestRealContexts(t *testing.T) {
	dir := tier.PeerData(t, "contexts")
	for _, name := range []string{"aleph-slc6", "atlas", "cms-opendata", "default", "squid"} {
		data, err := os.ReadFile(filepath.Join(dir, name+".context"))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, text(t, name+".context", data, Options{}))
	}
}

func TestDifferences(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", []string{"Nothing in the context is for it: repository", "only lets root log in", "There is nothing to do"}},
		{"end marker first", "[ucernvm-end]\n[ucernvm-begin]\ncvmfs_tag=x\n", []string{"reads no key at all"}},
		{"proxy without quotes", "[ucernvm-begin]\ncvmfs_http_proxy=http://a|http://b;DIRECT\n[ucernvm-end]\n", []string{"through the proxies http://a|http://b;DIRECT", "does not set it: the shell makes the assignment in a pipeline"}},
		{"value cut", "[ucernvm-begin]\ncvmfs_http_proxy=http://a;http://b\n[ucernvm-end]\n", []string{`sets it to "http://a" only`}},
		{"key that Mica ignores", "[ucernvm-begin]\ncvmfs_pac_urls=http://wpad/wpad.dat\n[ucernvm-end]\n", []string{"ignores cvmfs_pac_urls: proxies are named in"}},
		{"cluster", "[ucernvm-begin]\ncvm_cluster_pin=1\ncvm_service_url=https://pin.example\n[ucernvm-end]\n", []string{"waits for the head of its cluster", "through https://pin.example"}},
		{"key twice", "[ucernvm-begin]\ncvmfs_tag=x\ncvmfs_tag=y\n[ucernvm-end]\n", []string{"ignores this cvmfs_tag: line 3 has it again", "snapshot named y"}},
		{"commas between plugins", "[amiconfig]\nplugins=cernvm,hostname\n", []string{"hostname: ", "the list of plugins has commas"}},
		{"double run", "#!/bin/sh.before\ncat >f <<E\n#!/bin/sh\nE\nexit\n", []string{"runs the script as root before the plugins", "runs it twice"}},
		{"never run", "#!/bin/bash -e\nexit\n", []string{"after the plugins", "does not run it"}},
		{"python", "#!/usr/bin/python3\n", []string{"its interpreter is no shell", "runs the script as root, at the end of the first boot"}},
		{"online", "[cernvm]\ncontextualization_key=abcd:topsecret\n", []string{"fetches the context abcd of CernVM Online"}},
		{"services", "[cernvm]\nservices=a,b\ncontextualization_command=me:run it\n", []string{"starts the services a, b (at every boot", "runs as me: run it"}},
		{"compressed part", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/ucernvm\nContent-Transfer-Encoding: base64\n\nW3VjZXJudm0tYmVnaW5dCmN2bWZzX3RhZz14Clt1Y2Vybm0tZW5kXQo=\n--B--\n", []string{"MIME with 1 parts: ucernvm", "snapshot named x", "because the part is encoded"}},
		{
			"cloud-init's types", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/cloud-boothook\n\n#cloud-boothook\n--B\nContent-Type: text/cloud-config\n\n#cloud-config\n--B\nContent-Type: text/x-include-url\n\nhttp://x\n--B\nContent-Type: text/x-shellscript-per-boot\n\n#!/bin/sh\n--B--\n",
			[]string{"runs the hook early (at every boot", "applies the cloud-config", "fetches what the list", "runs the script as root (at every boot"},
		},
		{"mention of MIME", "#!/bin/sh\n# MIME-Version: 1.0\nexit\n", []string{"takes the context for a MIME message"}},
	} {
		got := text(t, tc.name, []byte(tc.in), Options{})
		for _, want := range tc.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is not in\n%s", tc.name, want, got)
			}
		}
	}
}

func TestSecrets(t *testing.T) {
	const secret = "Tr0ub4dor"
	in := "[amiconfig]\nplugins=cernvm\n[cernvm]\nusers=u:u:" + secret + ",v:v:$6$" + secret + ",w:" + secret + "\ncontextualization_key=id:" + secret + "\nx509-cert=" + secret + " ;" + secret + "\n"
	if got := text(t, "x", []byte(in), Options{}); strings.Contains(got, secret) {
		t.Errorf("a secret shows in\n%s", got)
	}
	if got := text(t, "x", []byte(in), Options{Reveal: true}); strings.Count(got, secret) < 3 {
		t.Errorf("secrets do not show when asked for, in\n%s", got)
	}
}
