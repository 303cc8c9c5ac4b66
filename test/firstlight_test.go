package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFirstLight is the life of the demo's machine, from its creation to the
// empty directory it leaves, and to what its boot is good for: those of others.
func TestFirstLight(t *testing.T) {
	server := newRepositoryServer(t)
	forgeProfile(t, server)
	server.start()
	m := newMica(t)
	iso := filepath.Join(assets(t), "mica.iso")

	shared := newSharedFolders(t)
	r := m.try(append([]string{"create", "demo", "../examples/demo.context", "--image", iso}, shared.flags()...)...)
	if r.code != 0 {
		t.Fatalf("create: exit code %d\n%s\n%s", r.code, r.stderr, m.serialTail())
	}
	for _, stage := range []string{"disk", "repository", "union", "handover", "apply"} {
		if !strings.Contains(r.stderr+r.stdout, stage) {
			t.Errorf("create did not show the stage %q:\n%s%s", stage, r.stdout, r.stderr)
		}
	}
	if t.Failed() {
		return
	}
	cold := server.count()
	t.Logf("requests of the first boot: %d", cold)

	t.Run("the context is applied", func(t *testing.T) {
		got := m.ssh("demo", "root", `. /etc/os-release; echo "$ID"; hostname; id -un demo; getent shadow demo | cut -d: -f2 | cut -c1-12
			cat /var/lib/mica-demo.txt; stat -c %a /usr/bin/sudo; stat -f -c %T /; ls -d /mnt/.ro/bin /mnt/.rw/cache; cat /mnt/.rw/context/source`)
		for _, want := range []string{"debian\n", "mica-demo\n", "demo\n", "$6$micademo$", "took its role from a context", "4755\n", "overlayfs\n", "/mnt/.ro/bin\n", "/mnt/.rw/cache\n", "ConfigDrive"} {
			if !strings.Contains(got, want) {
				t.Errorf("in the machine: %q is missing in\n%s", want, got)
			}
		}
		if got := m.run("ssh", "demo", "--", "id -un"); got != "demo\n" {
			t.Errorf("mica ssh logs in as %q, want the context's first user", got)
		}
		if r := m.try("ssh", "demo", "--", "exit 42"); r.code != 42 {
			t.Errorf("exit code of a remote command = %d, want 42", r.code)
		}
	})

	t.Run("nothing failed in the system", func(t *testing.T) {
		if got := m.ssh("demo", "root", "systemctl --failed --no-legend --plain"); strings.TrimSpace(got) != "" {
			t.Errorf("failed units:\n%s", got)
		}
		if got := m.ssh("demo", "root", "systemctl is-active cloud-init.service cloud-final.service; true"); strings.Contains(got, "\nactive") || strings.HasPrefix(got, "active") {
			t.Errorf("cloud-init ran, although the context holds nothing for it: %q", got)
		}
	})

	recorded := record(t, m, "demo")
	server.misbehave(nil)

	t.Run("listings", func(t *testing.T) {
		if got := m.run("list"); !strings.Contains(got, "demo") || !strings.Contains(got, "running") {
			t.Errorf("list:\n%s", got)
		}
		var listed struct {
			Schema int
			Items  []struct{ Name, State string }
		}
		m.json(&listed, "list")
		if len(listed.Items) != 1 || listed.Items[0].Name != "demo" || listed.Items[0].State != "running" {
			t.Errorf("list --output json = %+v", listed)
		}
		if got := m.run("show", "demo"); !strings.Contains(got, iso) && !strings.Contains(got, "mica.iso") {
			t.Errorf("show does not name the image:\n%s", got)
		}
		if got := m.run("logs", "demo"); !strings.Contains(got, "repository") || !strings.Contains(got, "handover") {
			t.Errorf("logs:\n%s", got)
		}
	})

	bootID := func() string { return m.ssh("demo", "root", "cat /proc/sys/kernel/random/boot_id") }

	t.Run("pause and stop keep the machine where it was", func(t *testing.T) {
		before := bootID()
		m.run("pause", "demo")
		if got := m.run("list"); !strings.Contains(got, "paused") {
			t.Errorf("list of a paused machine:\n%s", got)
		}
		m.run("resume", "demo")
		shared.release(t, m, "demo")
		m.run("stop", "demo")
		if got := m.run("list"); !strings.Contains(got, "saved") {
			t.Errorf("list of a stopped machine:\n%s", got)
		}
		m.run("start", "demo")
		if after := bootID(); after != before {
			t.Errorf("boot id = %q after stop and start, want %q: the machine booted anew", after, before)
		}
	})

	t.Run("a reboot keeps files and the pinned snapshot", func(t *testing.T) {
		pin := m.ssh("demo", "root", "cat /mnt/.rw/aux/cvmfs_snapshot; touch /var/lib/written-before; rm /etc/debian_version; sync")
		before := bootID()
		_ = m.try("ssh", "--user", "root", "demo", "--", "systemctl reboot")
		eventually(t, "the machine goes down", func() bool {
			return m.try("ssh", "--user", "root", "demo", "--", "test $(cat /proc/sys/kernel/random/boot_id) != "+strings.TrimSpace(before)).code == 0
		})
		got := m.ssh("demo", "root", "cat /mnt/.rw/aux/cvmfs_snapshot; ls /var/lib/written-before; ls /etc/debian_version 2>&1; wc -l </var/lib/mica-demo.txt; dmesg | grep -c 'recovering journal\\|recovery complete' || true")
		if !strings.HasPrefix(got, pin[:40]) {
			t.Errorf("the snapshot is no longer pinned: %q, was %q", got, pin)
		}
		if !strings.Contains(got, "/var/lib/written-before\n") || !strings.Contains(got, "No such file") || !strings.Contains(got, "\n3\n") {
			t.Errorf("after the reboot:\n%s\nwant the written file, the removed one gone, the script run once", got)
		}
		if !strings.HasSuffix(got, "\n0\n") {
			t.Errorf("the root disk was not unmounted cleanly:\n%s", got)
		}
		t.Logf("requests of the second boot: %d", server.count()-cold)
		eventually(t, "the shared folder is mounted after a reboot", func() bool { // SSH does not wait for it
			return m.try("ssh", "--user", "root", "demo", "--", "grep -qx 'still here' /mnt/shared/data/after").code == 0
		})
	})

	t.Run("destroy asks, then leaves nothing", func(t *testing.T) {
		m.fails(2, []string{"--force"}, "destroy", "demo")
		if got := m.run("list"); !strings.Contains(got, "running") {
			t.Errorf("a refused destroy changed the machine:\n%s", got)
		}
		m.run("destroy", "--force", "demo")
		if left, _ := os.ReadDir(filepath.Join(m.home, "machines")); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
		m.fails(4, []string{"demo"}, "show", "demo")
	})

	t.Run("the next machine boots along the profile of this one", func(t *testing.T) { bootAlongProfile(t, m, server, recorded) })
	t.Run("a machine without a network boots from the slice", func(t *testing.T) { bootFromSlice(t, m, server, recorded) })
}
