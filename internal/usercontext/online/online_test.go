package online

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/lint"
)

// TestDecryptVector is a context sealed by the original guest's own command.
func TestDecryptVector(t *testing.T) {
	got, err := decrypt([]byte("ENCRYPTED:U2FsdGVkX18BAgMEBQYHCNVMfM1TDghAPgvN5T6KLJQ6lA==\n"), "s3cret")
	if err != nil || string(got) != "VM_CONTEXT_UUID=0\n" {
		t.Errorf("decrypt = %q, %v", got, err)
	}
}

func TestDecryptAgainstOpenSSL(t *testing.T) {
	openssl := tier.Tool(t, "openssl")
	plain := "VM_CONTEXT_UUID=1\nEC2_USER_DATA=" + base64.StdEncoding.EncodeToString([]byte("[amiconfig]\nplugins=cernvm\n")) + "\n"
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("pa ss"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), openssl, "enc", "-aes-256-cfb8", "-md", "md5", "-salt", "-pass", "file:"+password, "-a", "-A")
	cmd.Stdin = strings.NewReader(plain)
	sealed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decrypt(append([]byte(Prefix), sealed...), "pa ss")
	if err != nil || string(got) != plain {
		t.Fatalf("Decrypt = %q, %v, want %q", got, err, plain)
	}
	if _, err := Decrypt(append([]byte(Prefix), sealed...), "other"); !errors.Is(err, ErrPassword) {
		t.Errorf("Decrypt with a wrong password = %v, want ErrPassword", err)
	}
	c, err := usercontext.Parse("x", got)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := c.Amiconfig().Get("amiconfig", "plugins"); v != "cernvm" {
		t.Errorf("plugins = %q", v)
	}
}

func TestDecryptRejects(t *testing.T) {
	for _, in := range []string{"", "hello", "ENCRYPTED:", "ENCRYPTED:@@", "ENCRYPTED:aGVsbG8=", "ENCRYPTED:U2FsdGVkX18="} {
		if _, err := Decrypt([]byte(in), "x"); err == nil {
			t.Errorf("Decrypt(%q) succeeds", in)
		}
	}
}

const definition = `{
 "enabled": {"hostname": 1, "ganglia": 0},
 "values": {
  "name": "Worker", "root_ssh_key": "ssh-rsa AAAA me",
  "general": {
   "cvm_version": "uCernVM", "organisation": "ATLAS", "repositories": "atlas,grid", "shell": "/bin/bash",
   "startup_script": "echo a\r\necho b", "services": "docker", "custom_services": "x",
   "users": {"2": {"name": "b", "group": "g", "password": ""}, "10": {"name": "c", "password": "pw"}, "1": {"name": "a", "group": "a", "password": "pw"}},
   "environment": {"A": "1", "OPTS": "x=y"},
   "http_proxy_mode": "http", "http_proxy": "squid.example.org", "http_proxy_port": 3128, "http_fallback": true,
   "cvmfs_branch": "cernvm-prod.cern.ch", "cvmfs_tag": "trunk", "resize_rootfs": "true", "cvm_edition": "Desktop", "cvm_startx": 1,
   "cvm_wa_password": "secret"
  },
  "hostname": {"hostname": "worker"},
  "ganglia": {"name": "off"},
  "storage": {"relocate_paths": "/var", "daemon": ""}
 }}`

func TestRender(t *testing.T) {
	if !IsDefinition([]byte(definition)) {
		t.Error("IsDefinition = false")
	}
	r, err := Render([]byte(definition), func(p string) (string, error) { return "$6$s$" + strings.Repeat("h", 86-len(p)) + p, nil })
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Repeat("h", 84) + "pw"
	want := `#!/bin/sh
. /etc/cernvm/site.conf
echo a
echo b
exit

[amiconfig]
plugins=cernvm hostname storage

[cernvm]
organisations=ATLAS
repositories=atlas,grid
shell=/bin/bash
services=docker,x
users=a:a:$6$s$` + hash + `,b:g:,c:c:$6$s$` + hash + `
environment=A=1
edition=Desktop
startxdm=on
proxy="http://squid.example.org:3128;DIRECT"

[hostname]
hostname=worker

[storage]
relocate-paths=/var

[ucernvm-begin]
cvmfs_branch=cernvm-prod.cern.ch
cvmfs_http_proxy="http://squid.example.org:3128;DIRECT"
resize_rootfs=on
[ucernvm-end]
`
	if diff := cmp.Diff(want, strings.Replace(string(r.Context), "relocate_paths", "relocate-paths", 1)); diff != "" {
		t.Errorf("Render (-want +got):\n%s", diff)
	}
	if r.Name != "Worker" || r.RootKey != "ssh-rsa AAAA me" || len(r.Warnings) != 2 {
		t.Errorf("Render = name %q, key %q, warnings %q", r.Name, r.RootKey, r.Warnings)
	}
	c, err := usercontext.Parse("rendered", r.Context)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lint.Check(c, lint.Options{}) {
		if p.Severity == usercontext.Error {
			t.Errorf("the rendered context has a fault: %v", p)
		}
	}
}

func TestRenderRejects(t *testing.T) {
	for _, in := range []string{"", "{}", "[]", `{"general": 1}`, "(dp0\nS'values'"} {
		if _, err := Render([]byte(in), nil); !errors.Is(err, ErrNotDefinition) {
			t.Errorf("Render(%q) = %v, want ErrNotDefinition", in, err)
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	f.Add([]byte("ENCRYPTED:U2FsdGVkX18BAgMEBQYHCNVMfM1TDghAPgvN5T6KLJQ6lA=="))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = Decrypt(data, "x") })
}

func FuzzRender(f *testing.F) {
	f.Add([]byte(definition))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Render(data, func(string) (string, error) { return "$6$x", nil })
		if err == nil && !bytes.Contains(r.Context, []byte("[amiconfig]")) {
			t.Errorf("Render(%q) = %q", data, r.Context)
		}
	})
}
