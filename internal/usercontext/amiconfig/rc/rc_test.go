package rc

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/stage"
)

func open(t *testing.T, files map[string]string) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch to, link := strings.CutPrefix(text, "-> "); {
		case link:
			err = os.Symlink(to, file)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(file, 0o755)
		default:
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root, dir
}

// state lists files with their modes, texts and targets.
func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, file)
		if d.Type() == fs.ModeSymlink {
			to, err := os.Readlink(file)
			found[name] = "-> " + to
			return err
		}
		text, err := os.ReadFile(file)
		fi, infoErr := d.Info()
		if infoErr == nil {
			found[name] = fi.Mode().String() + " " + string(text)
		}
		return errors.Join(err, infoErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestInstall(t *testing.T) {
	tests := []struct {
		system string
		files  map[string]string
		kind   string
		want   map[string]string // beginnings
		absent []string
	}{
		{
			"Enterprise Linux 6",
			map[string]string{"etc/rc.d/init.d/sshd": "", "etc/rc.d/rc3.d/S55sshd": "-> ../init.d/sshd", "etc/rc.d/rc5.d/": "", "etc/init.d": "-> rc.d/init.d", "etc/rc3.d": "-> rc.d/rc3.d", "etc/inittab": "id:5:initdefault:\n"},
			"sysv",
			map[string]string{"etc/rc.d/init.d/mica-apply": "-rwxr-xr-x #!/bin/sh\n", "etc/rc.d/rc3.d/S08mica-hostkeys": "-> ../init.d/mica-hostkeys", "etc/rc.d/rc3.d/S99mica-apply": "-> ../init.d/mica-apply", "etc/rc.d/rc5.d/S99mica-apply": "-> ../init.d/mica-apply", "etc/inittab": "-rw-r--r-- id:5:initdefault:\n"},
			[]string{"etc/rc.d/rc2.d/S99mica-apply"},
		},
		{
			"Debian without systemd",
			map[string]string{"etc/init.d/ssh": "", "etc/rc2.d/": "", "etc/rc3.d/": "", "etc/inittab": "id:2:initdefault:\n", "sbin/init": "x"},
			"sysv",
			map[string]string{"etc/init.d/mica-apply": "-rwxr-xr-x #!/bin/sh\n", "etc/rc2.d/S99mica-apply": "-> ../init.d/mica-apply"},
			nil,
		},
		{
			"Alpine",
			map[string]string{"etc/init.d/sshd": "", "etc/runlevels/default/": "", "etc/inittab": "::sysinit:/sbin/openrc sysinit\n", "sbin/init": "-> /bin/busybox"},
			"openrc",
			map[string]string{"etc/init.d/mica-apply": "-rwxr-xr-x #!/sbin/openrc-run\n", "etc/runlevels/default/mica-apply": "-> /etc/init.d/mica-apply", "etc/inittab": "-rw-r--r-- ::sysinit:"},
			nil,
		},
		{
			"busybox alone",
			map[string]string{"etc/inittab": "::sysinit:/etc/rcS", "sbin/init": "-> ../bin/busybox"},
			"busybox",
			map[string]string{"etc/inittab": "-rw-r--r-- ::sysinit:/etc/rcS\n::wait:/run/initramfs/bin/mica-guest hostkeys\n::once:/run/initramfs/bin/mica-guest apply\n"},
			nil,
		},
		{"something else", map[string]string{"etc/passwd": "", "etc/inittab": "x", "sbin/init": "-> other"}, "", map[string]string{"etc/inittab": "-rw-r--r-- x"}, []string{"etc/init.d/mica-apply"}},
	}
	for _, test := range tests {
		root, dir := open(t, test.files)
		kind, err := Install(root)
		if kind != test.kind || (test.kind == "") != errors.Is(err, ErrUnknown) || test.kind != "" && err != nil {
			t.Errorf("%s: Install = %q, %v, want %q", test.system, kind, err, test.kind)
		}
		first := state(t, dir)
		for name, want := range test.want {
			if !strings.HasPrefix(first[name], want) {
				t.Errorf("%s: %s = %q, want %q", test.system, name, first[name], want)
			}
		}
		for _, name := range test.absent {
			if _, ok := first[name]; ok {
				t.Errorf("%s: %s was made", test.system, name)
			}
		}
		if _, err := Install(root); err != nil && test.kind != "" {
			t.Errorf("%s again: %v", test.system, err)
		}
		for name, text := range state(t, dir) {
			if first[name] != text {
				t.Errorf("%s: the second time changed %s to %q", test.system, name, text)
			}
		}
	}
}

// A tree may have been made to write elsewhere.
func TestInstallStaysInside(t *testing.T) {
	outside := t.TempDir()
	root, _ := open(t, map[string]string{"etc/rc.d/rc3.d/": "", "etc/rc.d/init.d": "-> " + outside})
	if _, err := Install(root); err == nil {
		t.Error("Install writes through a link to elsewhere")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

// The scripts are run with an imitation of the guest binary.
func TestScripts(t *testing.T) {
	dir := t.TempDir()
	guest := filepath.Join(dir, "mica-guest")
	if err := os.WriteFile(guest, []byte("#!/bin/sh\necho \"$@\" >>"+dir+"/log\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(text, shell string, args ...string) int {
		file := filepath.Join(dir, "script")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, stage.Program, guest)), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(dir + "/log")
		cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", shell, file, file}, args...)...)
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode()
	}
	root, _ := open(t, map[string]string{"etc/rc.d/rc3.d/": ""})
	_, files, err := plan(root)
	if err != nil {
		t.Fatal(err)
	}
	keys, apply := files[0].text, files[1].text
	const sysV = `f=$1; shift; . "$f"`
	const openRC = `ebegin() { :; }; eend() { return $1; }; . "$1"; start`
	for _, test := range []struct {
		text, shell string
		args        []string
		code        int
		log         string
	}{
		{apply, sysV, []string{"start"}, 0, "apply\n"},
		{keys, sysV, []string{"start"}, 0, "hostkeys\n"},
		{apply, sysV, []string{"stop"}, 0, ""},
		{apply, sysV, nil, 2, ""},
		{openrcApply, openRC, nil, 0, "apply\n"},
		{openrcHostKeys, openRC, nil, 0, "hostkeys\n"},
		{strings.ReplaceAll(apply, stage.Program, "/nonexistent"), sysV, []string{"start"}, 0, ""},
	} {
		code := run(test.text, test.shell, test.args...)
		log, _ := os.ReadFile(dir + "/log")
		if code != test.code || string(log) != test.log {
			t.Errorf("%v of %.20q: code %d, ran %q, want %d, %q", test.args, test.text, code, log, test.code, test.log)
		}
	}
}
