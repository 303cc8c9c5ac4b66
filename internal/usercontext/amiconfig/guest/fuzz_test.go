package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Account files come from an operating system image, and people edit them.
func FuzzTable(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash\n", "alice")
	f.Add("# c\n\n+::::::\nbroken\nroot:x:0:0:::\n", "root")
	f.Add("a:b", "a")
	f.Add("\r\n:::::::\n::", "")
	f.Fuzz(func(t *testing.T, text, name string) {
		for _, width := range []int{4, 7, 8} {
			table := parseTable([]byte(text), width)
			if got := string(table.bytes()); got != text {
				t.Errorf("parseTable(%q) prints as %q", text, got)
			}
			if !ValidName(name) {
				continue
			}
			fields := append([]string{name}, make([]string, width-1)...)
			table.set(fields)
			got := table.find(name)
			if strings.Join(got, ":") != strings.Join(fields, ":") {
				t.Errorf("after set(%q) in %q: find = %q", fields, text, got)
			}
			again := parseTable(table.bytes(), width)
			if strings.Join(again.find(name), ":") != strings.Join(fields, ":") {
				t.Errorf("after writing %q: find(%q) = %q", table.bytes(), name, again.find(name))
			}
		}
	})
}

// Whatever the files hold, making a user either fails or gives an account that
// can be found, and no other line changes.
func FuzzEnsureAccount(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash\n", "root:x:0:\n", "root:*:1::::::\n", "alice")
	f.Add("alice:x:y:z:::\n", "", "", "alice")
	f.Add("", "alice:x:-1:\n", "alice", "alice")
	f.Fuzz(func(t *testing.T, passwd, group, shadow, name string) {
		dir := t.TempDir()
		for file, text := range map[string]string{"passwd": passwd, "group": group, "shadow": shadow} {
			if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "etc", file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		root, err := Open(Options{Dir: dir, Volatile: true})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		acc, created, err := root.EnsureAccount(t.Context(), NewAccount{Name: name, Shell: "/bin/sh"})
		if err != nil {
			return
		}
		got, ok, err := root.Account(name)
		if err != nil || !ok || got != acc {
			t.Errorf("Account(%q) = %+v, %v, %v, want %+v", name, got, ok, err, acc)
		}
		if created && (acc.UID < firstID || acc.UID > lastID) {
			t.Errorf("EnsureAccount(%q) gave uid %d", name, acc.UID)
		}
		after, err := root.ReadFile(passwdFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSuffix(passwd, "\n"), "\n") {
			if !strings.HasPrefix(line, name+":") && !strings.Contains(string(after), line) {
				t.Errorf("line %q of %q is gone: %q", line, passwd, after)
			}
		}
	})
}

func FuzzAuthorizedKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me@here")
	f.Add(`command="a b\" c" ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQM=`)
	f.Add("404 - Not Found")
	f.Add("ssh-rsa //////8=")
	f.Fuzz(func(t *testing.T, line string) {
		key, err := ParseAuthorizedKey(line)
		if err != nil {
			return
		}
		if strings.ContainsAny(key.Line, "\n\r") || !strings.Contains(key.Line, key.Blob) {
			t.Errorf("ParseAuthorizedKey(%q) = %+v", line, key)
		}
		if again, err := ParseAuthorizedKey(key.Line); err != nil || again != key {
			t.Errorf("ParseAuthorizedKey(%q) = %+v, %v, want the same as before", key.Line, again, err)
		}
	})
}
