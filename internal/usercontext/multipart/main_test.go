package multipart

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProgram calls the drop-in as the original is called.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.ini")
	if err := os.WriteFile(file, []byte("[amiconfig]\nplugins=cernvm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	colon, binary := filepath.Join(dir, "b:c"), filepath.Join(dir, "d")
	if err := errors.Join(os.WriteFile(colon, []byte("#cloud-config\n"), 0o600), os.WriteFile(binary, []byte{0xff, 0}, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		args     []string
		code     int
		out, err string
	}{
		{"no arguments", nil, 1, "Usage: amiconfig-mime FILE:TYPE", ""},
		{"one part", []string{file + ":amiconfig-user-data"}, 0, "Content-Type: text/amiconfig-user-data; charset=\"utf-8\"", ""},
		{"order kept", []string{file + ":amiconfig-user-data", file + ":cloud-config"}, 0, "[end]\n", ""},
		{"no type", []string{file}, 1, "", "is not FILE:TYPE"},
		{"a colon in the name", []string{colon + ":cloud-config"}, 0, "filename=\"b:c\"", ""},
		{"bytes that are no text", []string{binary + ":cloud-config"}, 1, "", "not text"},
		{"no file", []string{"none:cloud-config"}, 1, "", "none"},
	} {
		var stdout, stderr bytes.Buffer
		code := Main(&stdout, &stderr, append([]string{"amiconfig-mime"}, tc.args...))
		if code != tc.code || !strings.Contains(stdout.String(), tc.out) || !strings.Contains(stderr.String(), tc.err) {
			t.Errorf("%s: exit code %d, want %d; stdout %q; stderr %q", tc.name, code, tc.code, &stdout, &stderr)
		}
	}
}
