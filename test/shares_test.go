package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// sharedFolders are folders of this computer that a story shares with its machine.
type sharedFolders struct {
	data, fixed string // to read and write, and to read only
}

// newSharedFolders makes them under names that are hard to pass on.
func newSharedFolders(t *testing.T) sharedFolders {
	t.Helper()
	top := t.TempDir()
	s := sharedFolders{filepath.Join(top, `größe, "zwei" = 2`), filepath.Join(top, "fixed")}
	for _, dir := range []string{s.data, s.fixed} {
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	write(t, s.data, "hello", "hello from this computer\n")
	write(t, s.data, "Füße", "letters of all kinds\n")
	write(t, s.fixed, "hello", "read only hello\n")
	for link, target := range map[string]string{"link": "hello", "outside": "/etc/hostname"} {
		if err := os.Symlink(target, filepath.Join(s.data, link)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// flags are those of 'mica create'.
func (s sharedFolders) flags() []string {
	return []string{"--share", "data=" + s.data, "--share", "a-name-of-more-than-thirty-one-letters=" + s.fixed + ":ro"}
}

// check uses the folders from inside the machine and looks at what that did here.
func (s sharedFolders) check(t *testing.T, m *mica, machine string) {
	t.Helper()
	got := m.ssh(machine, "root", `cd /mnt/shared/data && cat hello link Füße; echo "outside: $(cat outside)"
		echo from the machine >written; mkdir -p deep/er; ln -s ../../written deep/er/link; chmod 640 written; cat deep/er/link
		mv hello moved && cat link 2>&1; mv moved hello; rm -r deep/er; stat -c '%a %h' written
		cd /mnt/shared/a-name*; cat hello; echo x >hello; rm hello; touch new; mount -o remount,rw . ; touch new; ls
		findmnt -no FSTYPE,TARGET -t 9p; systemctl --failed --no-legend --plain; true`)
	t.Logf("in the machine:\n%s", got)
	for _, want := range []string{
		"hello from this computer\nhello from this computer\nletters of all kinds\n", "outside: " + machine + "\n",
		"from the machine\n", "link: No such file or directory\n", "640 1\n", "read only hello\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("in the machine, %q is missing", want)
		}
	}
	if strings.Contains(got, "mnt-shared") || strings.Count(got, "9p ") != 2 {
		t.Error("in the machine: want two 9p mounts, and no failed unit")
	}
	// Files that the machine makes are those of whoever runs it, and no one else's.
	info, err := os.Lstat(filepath.Join(s.data, "written"))
	if err != nil || info.Mode() != 0o640 || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
		t.Errorf("the machine's file: %v, %v; want a plain one of mine with mode 0640", info, err)
	}
	if data, err := os.ReadFile(filepath.Join(s.data, "written")); err != nil || string(data) != "from the machine\n" {
		t.Errorf("the machine's file holds %q, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(s.fixed, "hello")); err != nil || string(data) != "read only hello\n" {
		t.Errorf("the read-only file holds %q, %v", data, err)
	}
	if left, err := os.ReadDir(s.fixed); err != nil || len(left) != 1 {
		t.Errorf("the read-only folder holds %v, %v", left, err)
	}
	if left, err := os.ReadDir(filepath.Join(s.data, "deep")); err != nil || len(left) != 0 {
		t.Errorf("what the machine removed: %v, %v", left, err)
	}
}

// release sees that memory is not saved while the folders are in use, and that
// the machine has not noticed; then it follows the hint.
func (s sharedFolders) release(t *testing.T, m *mica, machine string) {
	t.Helper()
	umount := "umount /mnt/shared/data /mnt/shared/a-name-of-more-than-thirty-one-letters"
	m.fails(5, []string{"shared folders mounted", "mica stop --shutdown " + machine, umount}, "stop", machine)
	if got := m.run("list"); !strings.Contains(got, "running") {
		t.Errorf("list after a refused stop:\n%s", got)
	}
	m.ssh(machine, "root", "echo still here >/mnt/shared/data/after; "+umount)
	if data, err := os.ReadFile(filepath.Join(s.data, "after")); err != nil || string(data) != "still here\n" {
		t.Errorf("written after a refused stop: %q, %v", data, err)
	}
}
