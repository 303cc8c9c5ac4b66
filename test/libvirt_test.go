package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLibvirt boots the demo's machine under a real libvirt, which has this
// computer's files and a network of its own, with the repository's server in it.
func TestLibvirt(t *testing.T) {
	t.Parallel()
	iso := filepath.Join(assets(t), "mica.iso")
	if os.Getuid() != 0 {
		t.Skip("a libvirt daemon of its own needs root")
	}
	port, err := os.ReadFile(filepath.Join(assets(t), "port"))
	if err != nil {
		t.Fatal(err)
	}
	const libvirtd = "../scripts/libvirtd.sh"
	world := filepath.Join(shortDir(t), "world")
	command(t, libvirtd, "start", world)
	t.Cleanup(func() {
		if out, err := exec.Command(libvirtd, "stop", world).CombinedOutput(); err != nil {
			t.Errorf("ending the world of libvirt: %v\n%s", err, out)
		}
	})
	m := newMica(t)
	m.in = []string{libvirtd, "exec", world}
	server := m.command(t.Context(), "repo", "serve", filepath.Join(assets(t), "repo"), "--listen", "127.0.0.1:"+strings.TrimSpace(string(port)))
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the world's end is the server's
		_ = server.Process.Kill()
		_ = server.Wait()
	})

	m.run("create", "demo", "../examples/demo.context", "--driver", "libvirt", "--image", iso)
	if got := m.run("ssh", "demo", "--", "hostname; id -un"); got != "mica-demo\ndemo\n" {
		t.Errorf("in the machine: %q", got)
	}
	if got := m.run("show", "demo"); !strings.Contains(got, "libvirt") {
		t.Errorf("show does not name the driver:\n%s", got)
	}
	bootID := func() string { return m.ssh("demo", "root", "cat /proc/sys/kernel/random/boot_id") }
	before := bootID()
	m.run("stop", "demo")
	if got := m.run("list"); !strings.Contains(got, "saved") {
		t.Errorf("list of a stopped machine:\n%s", got)
	}
	m.run("start", "demo")
	if after := bootID(); after != before {
		t.Errorf("the machine booted anew instead of going on: boot id %s, was %s", after, before)
	}
	m.run("destroy", "--force", "demo")
	if left, _ := filepath.Glob(filepath.Join(m.home, "machines", "*")); len(left) > 0 {
		t.Errorf("destroy left %q", left)
	}
}
