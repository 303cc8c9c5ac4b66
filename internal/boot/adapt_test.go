package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/boot/network"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/source"
)

func put(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func TestWithoutRoot(t *testing.T) {
	for _, tc := range []struct {
		text, want string
		changed    bool
	}{
		{"", "", false},
		{"# comment\n/dev/vdb /data ext4 defaults 0 2\n", "# comment\n/dev/vdb /data ext4 defaults 0 2\n", false},
		{"UUID=x / ext4 errors=remount-ro 0 1\n/dev/vdb /data ext4\n", "# not the root of this machine: UUID=x / ext4 errors=remount-ro 0 1\n/dev/vdb /data ext4\n", true},
		{"\t/dev/sda1\t/\text4", "# not the root of this machine: \t/dev/sda1\t/\text4", true},
		{"# /dev/sda1 / ext4\n", "# /dev/sda1 / ext4\n", false},
	} {
		got, changed := withoutRoot(tc.text)
		if got != tc.want || changed != tc.changed {
			t.Errorf("withoutRoot(%q) = %q, %v; want %q, %v", tc.text, got, changed, tc.want, tc.changed)
		}
		if again, changed := withoutRoot(got); changed || again != got {
			t.Errorf("withoutRoot(%q) changes its own result", tc.text)
		}
	}
}

func TestForgetIdentity(t *testing.T) {
	root := t.TempDir()
	put(t, root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	put(t, root, "var/lib/dbus/machine-id", "x")
	put(t, root, "etc/ssh/ssh_host_rsa_key", "secret")
	put(t, root, "etc/ssh/ssh_host_rsa_key.pub", "public")
	put(t, root, "etc/ssh/sshd_config", "kept")
	put(t, root, "var/lib/systemd/random-seed", "seed")
	if err := forgetIdentity(root); err != nil {
		t.Fatal(err)
	}
	if got := read(t, root, "etc/machine-id"); got != "" {
		t.Errorf("machine-id = %q, want empty", got)
	}
	for _, gone := range []string{"var/lib/dbus/machine-id", "etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "var/lib/systemd/random-seed"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	if got := read(t, root, "etc/ssh/sshd_config"); got != "kept" {
		t.Errorf("sshd_config = %q", got)
	}
	if err := forgetIdentity(t.TempDir()); err == nil {
		t.Error("a tree without etc: want an error, not a silent machine without an id")
	}
}

func TestResolvConf(t *testing.T) {
	lease := network.Config{Interface: "eth0"}
	c, err := network.ParseIP("10.0.0.2::10.0.0.1:24::eth0:none:10.0.0.3")
	if err != nil {
		t.Fatal(err)
	}
	lease.DNS = c.DNS
	for _, tc := range []struct {
		name  string
		build func(root, rw string)
		want  string // "" leaves the file alone
	}{
		{"none", func(string, string) {}, "10.0.0.3"},
		{"from the tree", func(root, _ string) { put(t, root, "etc/resolv.conf", "nameserver 9.9.9.9\n") }, "10.0.0.3"},
		{"of the administrator", func(root, rw string) {
			put(t, root, "etc/resolv.conf", "nameserver 9.9.9.9\n")
			put(t, rw, "persistent/etc/resolv.conf", "nameserver 9.9.9.9\n")
		}, ""},
		{"our own of an earlier boot", func(root, rw string) {
			put(t, root, "etc/resolv.conf", network.Marker+"\nnameserver 9.9.9.9\n")
			put(t, rw, "persistent/etc/resolv.conf", network.Marker+"\nnameserver 9.9.9.9\n")
		}, "10.0.0.3"},
	} {
		root, rw := t.TempDir(), t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		tc.build(root, rw)
		if err := resolvConf(root, &state{configs: []network.Config{lease}, rwDir: rw}); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		got := read(t, root, "etc/resolv.conf")
		if want := tc.want; want != "" && !strings.Contains(got, want) || want == "" && !strings.Contains(got, "9.9.9.9") {
			t.Errorf("%s: resolv.conf = %q, want %q", tc.name, got, want)
		}
	}
}

// TestInsideFollowsLinksInTheTree: /etc of a tree may be a link with an absolute
// target, which means the tree's, not this computer's.
func TestInsideFollowsLinksInTheTree(t *testing.T) {
	root := t.TempDir()
	put(t, root, "usr/etc/x", "")
	if err := os.Symlink("/usr/etc", filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	got, err := inside(root, "etc/fstab")
	if want := filepath.Join(root, "usr/etc/fstab"); got != want || err != nil {
		t.Errorf("inside = %q, %v; want %q", got, err, want)
	}
	if got, err := inside(root, "lib/modules/1"); err != nil || got != filepath.Join(root, "lib/modules/1") {
		t.Errorf("inside of a missing folder = %q, %v", got, err)
	}
}

func TestForCloudInit(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want bool
	}{
		"empty":         {"", false},
		"plain":         {"[amiconfig]\nplugins=cernvm\n", false},
		"plain, script": {"#!/bin/sh\ntrue\nexit\n[cernvm]\nx=y\n", false},
		"cloud-config":  {"#cloud-config\nusers: []\n", true},
		"mime": {"Content-Type: multipart/mixed; boundary=\"x\"\nMIME-Version: 1.0\n\n--x\nContent-Type: text/cloud-config\n\n#cloud-config\nusers: []\n--x\nContent-Type: text/amiconfig-user-data\n\n" +
			"[cernvm]\n--x--\n", true},
	} {
		c, err := usercontext.Parse(name, []byte(tc.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := forCloudInit(c); got != tc.want {
			t.Errorf("%s: forCloudInit = %v, want %v", name, got, tc.want)
		}
	}
	if forCloudInit(nil) {
		t.Error("forCloudInit(nil) = true")
	}
}

func TestWriteUnits(t *testing.T) {
	run := t.TempDir()
	c, err := network.ParseIP("10.0.0.2::10.0.0.1:24::eth0:none:10.0.0.3")
	if err != nil {
		t.Fatal(err)
	}
	c.MAC = "52:54:00:12:34:56"
	s := &state{configs: []network.Config{c}, shares: []source.Share{{Name: "data", Type: source.Share9P}, {Name: "../../../x", Type: source.Share9P}}}
	for range 2 { // a second try of the stage
		if err := writeUnits(run, s); err != nil {
			t.Fatal(err)
		}
	}
	if target, err := os.Readlink(filepath.Join(run, "systemd/system/multi-user.target.wants/mica-apply.service")); err != nil || target != "../mica-apply.service" {
		t.Errorf("wants link = %q, %v", target, err)
	}
	if target, err := os.Readlink(filepath.Join(run, "systemd/system/cloud-init-local.service")); err != nil || target != "/dev/null" {
		t.Errorf("cloud-init is not masked: %q, %v", target, err)
	}
	if text := read(t, run, "systemd/system/mnt-shared-data.mount"); !strings.Contains(text, "\nWhere=/mnt/shared/data\n") {
		t.Errorf("mount unit:\n%s", text)
	}
	if target, err := os.Readlink(filepath.Join(run, "systemd/system/multi-user.target.wants/mnt-shared-data.mount")); err != nil || target != "../mnt-shared-data.mount" {
		t.Errorf("nothing wants the share: %q, %v", target, err)
	}
	if all, err := filepath.Glob(filepath.Join(run, "systemd/system/*.mount")); err != nil || len(all) != 1 {
		t.Errorf("mount units %q, %v; want that of the share with a good name", all, err)
	}
	if text := read(t, run, "systemd/network/10-mica.network"); !strings.Contains(text, "MACAddress=52:54:00:12:34:56") || !strings.Contains(text, "KeepConfiguration=yes") {
		t.Errorf("network file:\n%s", text)
	}
}
