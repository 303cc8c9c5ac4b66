package password

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/tier"
)

func TestShadow(t *testing.T) {
	now := time.Unix(86400*20000, 0)
	for _, tc := range []struct{ text, want string }{
		{"root:!:1::::::\nuser:x:1::::::\n", "root:H:20000:0:99999::::\nuser:x:1::::::\n"},
		{"daemon:*:1::::::\nroot:*:1:5:60:7:1:100:\n", "daemon:*:1::::::\nroot:H:20000:0:99999:7:::\n"},
		{"root:*", "root:H:20000:0:99999::::"},
		{"user:x:1::::::\n", "root:H:20000:0:99999:7:::\nuser:x:1::::::\n"},
	} {
		if got, err := Shadow(tc.text, "H", now); got != tc.want || err != nil {
			t.Errorf("Shadow(%q) = %q, %v; want %q", tc.text, got, err, tc.want)
		}
	}
}

func TestSetRoot(t *testing.T) {
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := SetRoot(tree, "H", time.Now()); err == nil {
		t.Error("SetRoot in an empty tree succeeded")
	}
	passwd, shadow := filepath.Join(tree, "etc/passwd"), filepath.Join(tree, "etc/shadow")
	if err := os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := SetRoot(tree, "H", time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(passwd); string(got) != "root:H:0:0::/root:/bin/sh\n" {
		t.Errorf("passwd = %q", got)
	}
	if err := os.WriteFile(shadow, []byte("root:*:1::::::\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := SetRoot(tree, "S", time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(shadow); !strings.HasPrefix(string(got), "root:S:") {
		t.Errorf("shadow = %q", got)
	}
	if fi, _ := os.Stat(shadow); fi.Mode().Perm() != 0o640 {
		t.Errorf("mode of shadow = %v, want 0640", fi.Mode())
	}
	if err := os.Remove(shadow); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/shadow", shadow); err != nil {
		t.Fatal(err)
	}
	if err := SetRoot(tree, "S", time.Now()); err == nil {
		t.Error("SetRoot through a link succeeded")
	}
}

func TestGenerate(t *testing.T) {
	a, err := Generate(nil)
	b, err2 := Generate(nil)
	if err != nil || err2 != nil || a == b || len(a) != 14 {
		t.Errorf("Generate twice = %q, %q (%v, %v), want two different ones of 14 characters", a, b, err, err2)
	}
	if got, _ := Generate(bytes.NewReader(bytes.Repeat([]byte{255, 0}, 20))); got != strings.Repeat("a", 14) {
		t.Errorf("Generate skips biased bytes: got %q", got)
	}
	if _, err := Generate(strings.NewReader("ab")); err == nil {
		t.Error("Generate from an exhausted source succeeded")
	}
}

// TestHashAgreesWithOpenssl lets openssl compute the same hash from our salt.
func TestHashAgreesWithOpenssl(t *testing.T) {
	openssl := tier.Tool(t, "openssl")
	hash, err := Hash("sesame, open")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Split(hash, "$")
	if len(f) < 4 || f[1] != "6" {
		t.Fatalf("Hash = %q, want $6$…", hash)
	}
	salt := f[len(f)-2]
	out, err := exec.Command(openssl, "passwd", "-6", "-salt", salt, "sesame, open").Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Split(strings.TrimSpace(string(out)), "$")
	if theirs[len(theirs)-1] != f[len(f)-1] {
		t.Errorf("Hash = %q, openssl says %q", hash, strings.TrimSpace(string(out)))
	}
}
