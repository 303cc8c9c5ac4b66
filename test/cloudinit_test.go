package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
)

// cloudInit is the demo's operating system with its cloud-init, for one program
// at a time in a chroot. What a program writes there goes to memory and is gone when
// it ends, mounts included: each run has a mount namespace of its own.
type cloudInit struct {
	t     *testing.T
	tree  string
	files string   // seen as /mnt in the chroot
	enter []string // before the command: how to enter a network namespace
}

func newCloudInit(t *testing.T) *cloudInit {
	t.Helper()
	dir := assets(t)
	if os.Geteuid() != 0 {
		t.Fatal("this story enters a chroot: run the vm tier as root")
	}
	tree, err := filepath.Abs(filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	return &cloudInit{t: t, tree: tree, files: t.TempDir()}
}

// chroot mounts what a program in the tree needs and becomes that program. $1 is
// the tree, $2 an empty folder, $3 what is to be /mnt, the rest the program.
const chroot = `set -e
tree=$1 work=$2 files=$3
shift 3
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$work/root"
mount -t proc proc "$work/root/proc"
mount --rbind /dev "$work/root/dev"
mount -t tmpfs tmpfs "$work/root/run"
mkdir "$work/root/run/systemd"
mount --rbind "$files" "$work/root/mnt"
: >"$work/root/etc/resolv.conf"
echo "169.254.169.254 metadata.google.internal" >>"$work/root/etc/hosts"
exec chroot "$work/root" "$@"`

// run runs a program in the tree and returns its standard output.
func (c *cloudInit) run(stdin string, program ...string) []byte {
	c.t.Helper()
	args := slices.Concat(c.enter, []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", chroot, "sh", c.tree, c.t.TempDir(), c.files}, program)
	cmd := exec.CommandContext(c.t.Context(), args[0], args[1:]...) //nolint:gosec // what this story is about
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("%s in the tree: %v\n%s", program[0], err, stderr.Bytes())
	}
	if testing.Verbose() && stderr.Len() > 0 {
		c.t.Logf("%s: %s", program[0], stderr.Bytes())
	}
	return stdout.Bytes()
}

// job is one question for testdata/cloudinit.py.
type job struct {
	Source string            `json:"source"`
	Where  string            `json:"where"`
	DMI    map[string]string `json:"dmi,omitempty"`
}

// answer is what cloud-init found.
type answer struct {
	UserData      []byte   `json:"user_data"`
	InstanceID    string   `json:"instance_id"`
	Hostname      string   `json:"hostname"`
	Keys          []string `json:"keys"`
	Zone          string   `json:"zone"`
	PasswordLogin bool     `json:"password_login"`
	Error         string   `json:"error"`
}

// ask has cloud-init's data sources read, all in one process.
func (c *cloudInit) ask(jobs []job) []answer {
	c.t.Helper()
	program, err := os.ReadFile("testdata/cloudinit.py")
	if err != nil {
		c.t.Fatal(err)
	}
	question, err := json.Marshal(jobs)
	if err != nil {
		c.t.Fatal(err)
	}
	var answers []answer
	out := c.run(string(question), "python3", "-c", string(program))
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(jobs) {
		c.t.Fatalf("cloud-init's answers: %v, %d of %d\n%s", err, len(answers), len(jobs), out)
	}
	return answers
}

// identify has ds-identify, which chooses the data source at boot, look at one
// medium on a machine with the given firmware tables, and returns its list. Only
// blkid is replaced: it cannot see an image that is no device, so it says what the
// real one says about the image.
func (c *cloudInit) identify(image, device string, dmi map[string]string) string {
	c.t.Helper()
	blkid, err := exec.Command(tier.Tool(c.t, "blkid"), "-p", "-o", "export", image).Output() //nolint:gosec // an image of this test
	if err != nil {
		c.t.Fatalf("blkid %s: %v", image, err)
	}
	said := "DEVNAME=" + device + strings.TrimPrefix(string(blkid), "DEVNAME="+image)
	root := filepath.Join(c.files, "identify")
	must := func(err error) {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	must(os.RemoveAll(root))
	put := func(name, text string, mode os.FileMode) {
		c.t.Helper()
		full := filepath.Join(root, name)
		must(os.MkdirAll(filepath.Dir(full), 0o750))
		must(os.WriteFile(full, []byte(text), mode)) //nolint:gosec // paths of this test
	}
	content, err := os.ReadFile(image) //nolint:gosec // an image of this test
	must(err)
	put("bin/blkid", "#!/bin/sh\ncat /mnt/identify/blkid\n", 0o700)
	put("bin/systemd-detect-virt", "#!/bin/sh\necho kvm\n", 0o700)
	put("blkid", said, 0o600)
	put("etc/cloud/cloud.cfg", "", 0o600)
	put("proc/cmdline", "quiet\n", 0o600)
	put("proc/1/cmdline", "/sbin/init\x00", 0o600)
	put(strings.TrimPrefix(device, "/"), string(content), 0o600)
	put("sys/class/block/"+filepath.Base(device)+"/size", fmt.Sprintln(len(content)/512), 0o600)
	for name, value := range dmi {
		put("sys/class/dmi/id/"+name, value+"\n", 0o600)
	}
	must(os.MkdirAll(filepath.Join(root, "run"), 0o750))
	c.run("", "sh", "-c", "PATH=/mnt/identify/bin:$PATH PATH_ROOT=/mnt/identify DEBUG_LEVEL=0 /usr/lib/cloud-init/ds-identify --force || true")
	list, err := os.ReadFile(filepath.Join(root, "run/cloud-init/cloud.cfg")) //nolint:gosec // as above
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(root, "run/cloud-init/ds-identify.log")) //nolint:gosec // as above
		c.t.Errorf("ds-identify came to no result: %v\n%s", err, log)
	}
	return strings.TrimSpace(string(list))
}

// Keys that cloud-init's parser takes for keys, one with odd characters.
var storyKeys = []string{
	"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0mNJJvZ5v1XQ1n0J6m3rYc1ZkK2b9m0mOaP4q1lYqk me@here",
	"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 it's \"two\" & <three>: #4",
}

// mediaCase is one layout, and who of cloud-init's is to find it.
type mediaCase struct {
	layout, source, named string // of Mica, of cloudinit.py, in datasource_list
	dmi                   map[string]string
}

// TestCloudInitReadsEveryMedium has the cloud-init of the demo's operating system
// read every medium that Mica writes, as a CD and as a disk, and compares all it
// found with what went in.
func TestCloudInitReadsEveryMedium(t *testing.T) {
	c, m := newCloudInit(t), newMica(t)
	cases := []mediaCase{
		{layout: "config-2", source: "config_drive", named: "ConfigDrive"},
		{layout: "nocloud", source: "nocloud", named: "NoCloud"},
		{layout: "opennebula", source: "opennebula", named: "OpenNebula"},
		// ds-identify 22.4 quotes its patterns for AltCloud, so it never chooses it.
		{layout: "vsphere", source: "altcloud"},
		{layout: "azure", source: "azure", named: "Azure", dmi: map[string]string{"chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}},
	}
	texts := map[string]string{
		"mixed": "#!/bin/sh\necho \"$HOME\" 'it''s' `id` \\\nexit 0\n[amiconfig]\nplugins=cernvm\n",
		"cloud": "#cloud-config\nruncmd:\n  - [touch, /tmp/ü]\n",
		"large": "#cloud-config\n# " + strings.Repeat("0123456789abcdef\n# ", 40_000) + "\n",
	}
	keys := filepath.Join(c.files, "keys.pub")
	if err := os.WriteFile(keys, []byte(strings.Join(storyKeys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	type medium struct {
		mediaCase
		verb, text, image string
	}
	var media []medium
	var jobs []job
	for _, one := range cases {
		for _, verb := range []string{"iso", "drive"} {
			for name, text := range texts {
				file := filepath.Join(c.files, name)
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				base := one.layout + "-" + verb + "-" + name
				image := filepath.Join(t.TempDir(), base)
				if r := m.try("context", verb, file, "--layout", one.layout, "--hostname", "vm1.example.org", "--instance-id", "i-"+name, "--ssh-key", keys, "--out", image); r.code != 0 {
					t.Fatalf("%s", r.stderr)
				}
				extract(t, verb, image, filepath.Join(c.files, base))
				media = append(media, medium{one, verb, name, image})
				jobs = append(jobs, job{Source: one.source, Where: "/mnt/" + base})
			}
		}
	}
	for i, got := range c.ask(jobs) {
		at := media[i]
		name := fmt.Sprintf("%s, %s, %s", at.layout, at.verb, at.text)
		if got.Error != "" {
			t.Errorf("%s: %s", name, got.Error)
			continue
		}
		want := answer{UserData: []byte(texts[at.text]), InstanceID: "i-" + at.text, Hostname: "vm1.example.org", Keys: storyKeys}
		switch at.layout {
		case "config-2":
			want.Zone = "local"
		case "opennebula": // has no identifier, cloud-init makes one up
			want.InstanceID = "iid-dsopennebula"
		case "vsphere": // has no metadata, and cloud-init strips the text
			want = answer{UserData: bytes.TrimSpace(want.UserData)}
		case "azure": // takes the identifier from the firmware
			want.InstanceID = ""
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, shorten(diff))
		}
	}
	for _, at := range media {
		if at.text != "mixed" || at.named == "" {
			continue
		}
		device := map[string]string{"iso": "/dev/sr0", "drive": "/dev/vdb"}[at.verb]
		if list := c.identify(at.image, device, at.dmi); !slices.Contains(strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(" [],:", r) }), at.named) {
			t.Errorf("%s, %s: ds-identify chose %q, want %s in it", at.layout, at.verb, list, at.named)
		}
	}
}

// extract unpacks an image with tools that are not Mica's.
func extract(t *testing.T, verb, image, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o750); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tier.Tool(t, "xorriso"), "-osirrox", "on", "-indev", image, "-extract", "/", to) //nolint:gosec // as below
	if verb == "drive" {
		cmd = exec.Command(tier.Tool(t, "mcopy"), "-s", "-i", image, "::/*", to) //nolint:gosec // images and folders of this test
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

func shorten(text string) string { return text[:min(len(text), 3000)] }
