package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAmiconfigMIME calls the drop-in as the original is called.
func TestAmiconfigMIME(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.ini")
	if err := os.WriteFile(file, []byte("[amiconfig]\nplugins=cernvm\n"), 0o600); err != nil {
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
		{"no file", []string{"none:cloud-config"}, 1, "", "none"},
	} {
		var stdout, stderr bytes.Buffer
		code := amiconfigMIME(IO{Out: &stdout, Err: &stderr}, append([]string{"amiconfig-mime"}, tc.args...))
		if code != tc.code || !strings.Contains(stdout.String(), tc.out) || !strings.Contains(stderr.String(), tc.err) {
			t.Errorf("%s: exit code %d, want %d; stdout %q; stderr %q", tc.name, code, tc.code, &stdout, &stderr)
		}
	}
}
