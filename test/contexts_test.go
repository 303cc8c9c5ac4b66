package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMixedContext boots a MIME context that has something for each of its three
// readers: the boot loader, the agent and Debian's cloud-init. Each takes its part,
// and its scripts find the shared folders in place.
func TestMixedContext(t *testing.T) {
	t.Parallel() // of those beside it, only this one needs the server's address
	server := newRepositoryServer(t)
	server.start()
	m := newMica(t)
	dir := t.TempDir()
	parts := []string{
		write(t, dir, "boot", "[ucernvm-begin]\nswap_size=128M\n[ucernvm-end]\n") + ":ucernvm",
		write(t, dir, "cloud", "#cloud-config\ndisable_root: false\nusers:\n  - name: cloudy\n    shell: /bin/sh\nwrite_files:\n  - path: /etc/from-cloud-config\n    content: cloud-config was here\n") + ":cloud-config",
		write(t, dir, "script", "#!/bin/sh\necho shell script was here > /etc/from-script\ncp /mnt/shared/data/hello /etc/from-share\n") + ":x-shellscript",
		write(t, dir, "agent", "[amiconfig]\nplugins=cernvm\n\n[cernvm]\nusers=ami:ami:$6$micademo$p2eYzj4iSZdeBwd.FALD244Aypqc2PCAWmItHfzIc012MjcILY69c4T6r484LaXIzpquecfblWYrjVLzhPISu0\n") + ":amiconfig-user-data",
	}
	context := write(t, dir, "mixed.context", m.run(append([]string{"context", "mime"}, parts...)...))
	shared := newSharedFolders(t)
	m.run(append([]string{"create", "mixed", context, "--image", filepath.Join(assets(t), "mica.iso")}, shared.flags()...)...)
	got := m.ssh("mixed", "root", `cloud-init status --wait >/dev/null; cloud-id; id -un cloudy; id -un ami
		cat /etc/from-cloud-config /etc/from-script /etc/from-share; grep -c swapfile /proc/swaps; swapon --show=SIZE --noheadings; true`)
	for _, want := range []string{"configdrive\n", "cloudy\n", "ami\n", "cloud-config was here", "shell script was here\n", "hello from this computer\n", "\n1\n", "128M"} {
		if !strings.Contains(got, want) {
			t.Errorf("in the machine, %q is missing in\n%s", want, got)
		}
	}
	shared.check(t, m, "mixed")
	m.run("destroy", "--force", "mixed")
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
