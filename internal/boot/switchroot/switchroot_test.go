package switchroot

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/tier"
)

func write(t *testing.T, file, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func TestFindInit(t *testing.T) {
	sh := "#!/bin/sh\n"
	for _, tc := range []struct {
		name  string
		build func(tree string)
		want  string
		part  string // of the error
	}{
		{"empty tree", func(string) {}, "", "/sbin/init: no such file"},
		{"script", func(d string) {
			write(t, d+"/sbin/init", sh, 0o755)
			write(t, d+"/bin/sh", "x", 0o755)
		}, "/sbin/init", ""},
		{"script without its shell", func(d string) { write(t, d+"/sbin/init", sh, 0o755) }, "", "needs /bin/sh"},
		{"not executable", func(d string) { write(t, d+"/sbin/init", sh, 0o644) }, "", "not an executable file"},
		{"garbage", func(d string) { write(t, d+"/sbin/init", "garbage", 0o755) }, "", "neither a program nor a script"},
		{"a second choice", func(d string) {
			write(t, d+"/usr/lib/systemd/systemd", sh, 0o755)
			write(t, d+"/bin/sh", "x", 0o755)
		}, "/usr/lib/systemd/systemd", ""},
		{"merged /usr with absolute links", func(d string) {
			write(t, d+"/usr/lib/systemd/systemd", sh, 0o755)
			write(t, d+"/usr/bin/sh", "x", 0o755)
			link(t, "/lib/systemd/systemd", d+"/usr/sbin/init")
			link(t, "usr/sbin", d+"/sbin")
			link(t, "/usr/lib", d+"/lib")
			link(t, "usr/bin", d+"/bin")
		}, "/sbin/init", ""},
		{"link in a circle", func(d string) { link(t, "init", d+"/sbin/init") }, "", "too many symbolic links"},
		{"link out of the tree stays in it", func(d string) { link(t, "../../../../../../bin/sh", d+"/sbin/init") }, "", "no such file"},
	} {
		tree := t.TempDir()
		tc.build(tree)
		got, err := FindInit(tree, "")
		if got != tc.want {
			t.Errorf("%s: FindInit = %q, %v; want %q", tc.name, got, err, tc.want)
		}
		if tc.part != "" && (!errors.Is(err, ErrNoInit) || !strings.Contains(err.Error(), tc.part)) {
			t.Errorf("%s: FindInit = %v, want ErrNoInit with %q", tc.name, err, tc.part)
		}
	}
}

// TestElfInterpreter compares with the standard library's reader, which only
// tests may import.
func TestElfInterpreter(t *testing.T) {
	for _, file := range []string{"/bin/sh", "/bin/busybox", os.Args[0], "/usr/bin/qemu-system-x86_64"} {
		program, err := elf.Open(file)
		if err != nil {
			continue
		}
		want := ""
		for _, p := range program.Progs {
			if p.Type == elf.PT_INTERP {
				text, err := io.ReadAll(p.Open())
				if err != nil {
					t.Fatal(err)
				}
				want = strings.TrimRight(string(text), "\x00")
			}
		}
		_ = program.Close()
		if got, err := interpreter(file); got != want || err != nil {
			t.Errorf("interpreter(%s) = %q, %v; want %q", file, got, err, want)
		}
	}
}

func FuzzElfInterpreter(f *testing.F) {
	if data, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(data[:min(len(data), 4096)])
	}
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = elfInterpreter(bytes.NewReader(data), data[:min(len(data), 256)])
	})
}

func TestFindInitOfThisSystem(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no /bin/sh here")
	}
	if got, err := FindInit("/", "/bin/sh"); err != nil || got != "/bin/sh" {
		t.Errorf("FindInit(/, /bin/sh) = %q, %v", got, err)
	}
}

func TestDelete(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, outside+"/precious", "x", 0o600)
	write(t, dir+"/a/b/c", "x", 0o400)
	write(t, dir+"/f", "x", 0o600)
	link(t, outside, dir+"/link")
	link(t, outside, dir+"/a/link")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := Delete(d); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(outside + "/precious"); err != nil {
		t.Errorf("a file behind a link is gone: %v", err)
	}
}

func TestFreeOnlyRAM(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		t.Skip("the temporary directory is in memory")
	}
	write(t, dir+"/f", "x", 0o600)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := Free(d); !errors.Is(err, ErrNotRAM) {
		t.Errorf("Free of a disk = %v, want ErrNotRAM", err)
	}
	if _, err := os.Stat(dir + "/f"); err != nil {
		t.Errorf("Free deleted from a disk: %v", err)
	}
}

// TestSwitch does the whole switch in a mount namespace of its own: a tmpfs as
// the initramfs, another as the operating system.
func TestSwitch(t *testing.T) {
	tier.Root(t)
	if os.Getenv("MICA_SWITCHROOT_CHILD") == "1" {
		child(t)
		return
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", os.Args[0], "-test.run=^TestSwitch$", "-test.v")
	cmd.Env = append(os.Environ(), "MICA_SWITCHROOT_CHILD=1", "MICA_SWITCHROOT_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "SWITCHED") {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

func child(t *testing.T) {
	base := os.Getenv("MICA_SWITCHROOT_DIR")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("initramfs", base, "tmpfs", 0, ""))
	for _, d := range []string{"root", "run", "lib/deep"} {
		must(os.MkdirAll(filepath.Join(base, d), 0o755))
	}
	write(t, base+"/lib/deep/file", "x", 0o600)
	write(t, base+"/init", "x", 0o600)
	// Like a boot: the initramfs is the root of this process.
	must(unix.Chdir(base))
	must(unix.Mount(".", "/", "", unix.MS_MOVE, ""))
	must(unix.Chroot("."))
	must(unix.Mount("run", "/run", "tmpfs", 0, ""))
	write(t, "/run/kept", "kept", 0o600)
	must(unix.Mount("os", "/root", "tmpfs", 0, ""))
	write(t, "/root/etc/os", "os", 0o600)

	must(Move("/root", []string{"/run"}))
	old, err := Enter("/root")
	must(err)
	must(Free(old))
	for name, want := range map[string]string{"/etc/os": "os", "/run/kept": "kept"} {
		if got, err := os.ReadFile(name); string(got) != want {
			t.Errorf("after the switch %s = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := old.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	// The mount point of the new root is all that may be left.
	if left, _ := old.Readdirnames(-1); len(left) > 2 {
		t.Errorf("left in the initramfs: %v", left)
	}
	if !t.Failed() {
		_, _ = os.Stdout.WriteString("SWITCHED\n")
	}
}
