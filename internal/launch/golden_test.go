package launch_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/tier"
)

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func execCommand(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(context.WithoutCancel(ctx), name, args...).CombinedOutput()
	return string(out), err
}

// TestGolden replays what the original answered where no machine is needed.
func TestGolden(t *testing.T) {
	d := newDesk(t)
	t.Chdir(d.home)
	d.write("flags2.conf", "flags=2\n")
	d.write("flags256.conf", "flags=256\n")
	d.write("sh.conf", "name=fromconfig\nflags=5\n")
	for _, tc := range []struct {
		name     string
		args     []string
		stdin    string
		code     int
		out, err string // regular expressions; empty means that nothing is said
	}{
		{"no arguments", nil, "", 1, `^Usage: .*\n\tcreate\t`, ``},
		{"-h", []string{"-h"}, "", 1, `^Usage: `, ``},
		{"--help", []string{"--help"}, "", 1, `^Usage: `, ``},
		{"G1", []string{"bogus"}, "", 3, `^Usage: `, `^Invalid operation: bogus\n.*\n\n$`},
		{"operations are exact", []string{"List"}, "", 3, `^Usage: `, `Invalid operation`},
		{"G2 long", []string{"--version"}, "", 0, `^CernVM-Launch 9\.9\n$`, ``},
		{"G2 short", []string{"-v"}, "", 0, `^CernVM-Launch 9\.9\n$`, ``},
		{"G3", []string{"help"}, "", 1, `^Usage: `, ``},
		{"list of nothing", []string{"list"}, "", 0, ``, ``},
		{"G5", []string{"list", "nosuch"}, "", 4, ``, `^Unable to find the machine: nosuch\n$`},
		{"G6", []string{"list", "a", "b"}, "", 1, ``, `.`},
		{"list --running NAME", []string{"list", "--running", "x"}, "", 1, ``, `.`},
		{"G7", []string{"create", "--name"}, "", 1, ``, `Missing value.*--name`},
		{"G8", []string{"create", "a", "b", "c"}, "", 1, `^Using user data file: a\nUsing parameter file: b\n$`, `^Extra parameter given: c\n$`},
		{"G9", []string{"create", "nosuch"}, "", 4, `^Using user data file: nosuch\n$`, `^Error while processing file: nosuch`},
		{"G10", []string{"create", "UD", "nosuch.conf"}, "", 2, `Using parameter file: nosuch\.conf\n$`, `^Error while processing file: nosuch\.conf`},
		{"a folder for a configuration", []string{"create", "UD", "."}, "", 2, `Using`, `is a folder`},
		{"G11", []string{"create", "--name", "bad name", "UD"}, "", 4, `Using`, `Allowed characters`},
		{"a dot in a name", []string{"create", "--name", "a.b", "UD"}, "", 4, `Using`, `Allowed characters`},
		{"a name like an option", []string{"create", "--name", "--no-start", "UD"}, "", 4, `Using`, `Allowed characters`},
		{"G12", []string{"create", "--name", "x"}, "n\n", 4, `(?s)\[amiconfig\]\nplugins=cernvm\n.*startXDM=on\n.*Continue with default context\? \[Y/n\]: Aborting\n$`, ``},
		{"G14, a folder that is not there", []string{"create", "--name", "x", "--sharedFolder", "/usr/../nosuch", "UD"}, "", 4, `Using`, `The shared folder cannot be used`},
		{"G15", []string{"create", "--name", "x", "--iso", "/nosuch", "UD"}, "", 4, `Using`, `The ISO image does not exist`},
		{"G16 by URL", []string{"create", "--name", "x", "UD", "flags2.conf"}, "", 4, `Using`, `diskURL and diskChecksum`},
		{"G16 by path", []string{"create", "--name", "x", "UD", "flags256.conf"}, "", 4, `Using`, `diskPath`},
		{"G19", []string{"import"}, "", 1, ``, `OVA file`},
		{"G19 with a name", []string{"import", "--name", "x"}, "", 1, ``, `OVA file`},
		{"G20", []string{"import", "nosuch.ova"}, "", 4, `^Using image file: nosuch\.ova\n$`, `^No such file or directory: "nosuch\.ova"\n$`},
		{"import has no --iso", []string{"import", "--iso", "x", "y.ova"}, "", 1, ``, `Unknown option: --iso`},
		{"G21 start", []string{"start"}, "", 1, ``, `.`},
		{"G21 destroy", []string{"destroy"}, "", 1, ``, `.`},
		{"G21 destroy", []string{"destroy", "x", "--force"}, "", 1, ``, `.`},
		{"a machine named --force", []string{"destroy", "--force"}, "", 4, ``, `Unable to find the machine: --force`},
		{"G22 start", []string{"start", "nosuch"}, "", 4, ``, `^Unable to find the machine: nosuch\n$`},
		{"G22 pause", []string{"pause", "nosuch"}, "", 4, ``, `^Unable to find the machine: nosuch\n$`},
		{"G22 ssh", []string{"ssh", "me@nosuch"}, "", 4, ``, `^Unable to find the machine: nosuch\n$`},
		{"G23", []string{"stop", "nosuch"}, "", 4, ``, `^Unable to find the machine: nosuch\n$`},
		{"destroy nosuch", []string{"destroy", "nosuch"}, "", 4, ``, `^Unable to find the machine: nosuch\n$`},
		{"an unknown option", []string{"create", "--bogus"}, "", 1, ``, `Unknown option: --bogus`},
		{"an empty value is none", []string{"create", "--name", "", "UD"}, "bad name\n", 4, `Enter VM name \[UD\]: $`, `Allowed characters`},
		{"memory is no number", []string{"create", "--name", "x", "--memory", "2G", "UD"}, "", 4, `Using`, `Invalid value of memory: "2G"`},
		{"memory is too small", []string{"create", "--name", "x", "--memory=1", "UD"}, "", 4, `Using`, `memory: 1 is not between`},
		{"cpus", []string{"create", "--name", "x", "--cpus", "0", "UD"}, "", 4, `Using`, `cpus`},
		{"disk", []string{"create", "--name", "x", "--disk", "-5", "UD"}, "", 4, `Using`, `disk`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := d.run(tc.stdin, tc.args...)
			if r.code != tc.code {
				t.Errorf("exit code %d, want %d", r.code, tc.code)
			}
			for _, stream := range []struct{ name, got, want string }{{"stdout", r.out, tc.out}, {"stderr", r.err, tc.err}} {
				if stream.want == "" && stream.got != "" || !regexp.MustCompile(stream.want).MatchString(stream.got) {
					t.Errorf("%s = %q, want %q", stream.name, stream.got, stream.want)
				}
			}
		})
	}
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if changes := d.commands(); len(changes) != 0 {
		t.Errorf("VirtualBox was told %q", changes)
	}
}

// TestFirstRun is G4: no configuration, and nobody to answer.
func TestFirstRun(t *testing.T) {
	d := newDesk(t)
	for name, tc := range map[string]struct {
		terminal        bool
		stdin, base, at string
	}{
		"no terminal":     {false, "/elsewhere\n", "", ""},
		"an empty answer": {true, "\n", "", ""},
		"end of input":    {true, "", "", ""},
		"a folder":        {true, "  " + t.TempDir() + "/new  \n", "new", ""},
		"a relative path": {true, "some/where\n", "", "is not an absolute path"},
		"not to be made":  {true, "/proc/nosuch\n", "", "unable to make the directory"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			d.env["MICA_LAUNCH_HOME"], d.terminal = home, tc.terminal
			r := d.run(tc.stdin, "list")
			base := home
			if tc.base != "" {
				base = strings.TrimSpace(tc.stdin)
			}
			if r.code != 0 || !strings.Contains(r.out, "Enter directory ["+home+"]: ") || !strings.Contains(r.err, tc.at) {
				t.Errorf("list ended with %d\nstdout: %s\nstderr: %s", r.code, r.out, r.err)
			}
			var keys []string
			for line := range strings.Lines(d.read(home + "/.cernvm-launch.conf")) {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					keys = append(keys, line)
				}
			}
			want := []string{
				"sharedFolder=" + home, "launchHomeFolder=" + base, "apiPort=22", "cernvmVersion=latest", "cpus=1",
				"memory=2048", "disk=20000", "executionCap=100", "flags=49",
			}
			if diff := cmp.Diff(want, keys); diff != "" {
				t.Errorf("the configuration (-want +got):\n%s", diff)
			}
			if again := d.run("", "list"); again.out != "" || again.code != 0 {
				t.Errorf("the second list ended with %d and said %q", again.code, again.out)
			}
		})
	}
	d.env["MICA_LAUNCH_HOME"] = d.home
}

// TestLife is a machine from its creation to its end: G13, G17, G24 to G28.
func TestLife(t *testing.T) {
	d := newDesk(t)
	t.Setenv("PATH", d.home)
	d.write("ssh", "")
	if err := os.Chmod(d.path("ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := d.run("\n", "create", "--name", "x") // G13
	if r.code != 0 || !strings.Contains(r.err, "everybody knows") {
		t.Fatalf("create ended with %d\n%s%s", r.code, r.out, r.err)
	}
	block := "Parameters of the machine:\n\tname: x\n\tcpus: 1\n\tmemory: 64\n\tdisk: 64\n\tcernvmVersion: " + version + "\n\tsharedFolder: " + d.home + "\n"
	if !strings.HasSuffix(r.out, block) {
		t.Errorf("create said %q, want %q at the end", r.out, block)
	}
	line := func() string { return "x:\tCVM: " + version + "\tport: " + d.record()["local/apiPort"] + "\n" } // another program may take the port
	running := func(yes bool) {
		t.Helper()
		want := ""
		if yes {
			want = line()
		}
		if got := d.must("list", "--running").out; got != want {
			t.Errorf("list --running = %q, want %q", got, want)
		}
	}
	running(true)
	if got := d.must("list").out; got != line() {
		t.Errorf("list = %q, want %q", got, line())
	}
	detail := "x:\tCVM: " + version + "\n\tcpus: 1\n\tmemory: 64\n\tdisk: 64\n\texecutionCap: 100\n\tcernvmVersion: " + version +
		"\n\tbaseFolder: " + d.record()["local/baseFolder"] + "\n\tforwarded ports: 22 (VM) --> " + d.record()["local/apiPort"] + " (localhost)\n"
	if diff := cmp.Diff(detail, d.must("list", "x").out); diff != "" {
		t.Errorf("list x (-want +got):\n%s", diff)
	}
	d.fails(4, "The machine already exists", "create", "--name", "x", d.path("UD")) // G17

	d.fails(4, "No user name", "ssh", "x") // G25
	if r := d.run("bob\n", "ssh", "@x"); r.code != 0 || r.out != "Username: " {
		t.Errorf("ssh ended with %d and said %q", r.code, r.out)
	}
	id := d.record()["uuid"]
	want := []string{
		"ssh", "-Y", "-p", d.record()["local/apiPort"], "-o", "HostKeyAlias=cernvm-" + id, "-o",
		"UserKnownHostsFile=" + d.record()["local/baseFolder"] + "/known_hosts", "bob@127.0.0.1",
	}
	if diff := cmp.Diff(want, d.sshed); diff != "" {
		t.Errorf("ssh (-want +got):\n%s", diff)
	}
	d.fails(4, "is no user name", "ssh", "-oProxyCommand=x@x")

	d.commands()
	d.must("start", "x") // G27
	if changes := d.commands(); len(changes) != 0 {
		t.Errorf("the second start told VirtualBox %q", changes)
	}
	d.must("pause", "x")
	running(true)
	d.must("ssh", "al@x") // G26
	if last := d.sshed[len(d.sshed)-1]; last != "al@127.0.0.1" {
		t.Errorf("ssh went to %q", last)
	}
	d.must("pause", "x") // it is already
	d.must("stop", "x")
	running(false)
	d.fails(4, "Machine 'x' is not running", "ssh", "al@x")
	d.commands()
	d.must("stop", "x") // G28
	d.fails(4, "cannot be paused", "pause", "x")
	if changes := d.commands(); len(changes) != 0 {
		t.Errorf("stop and pause of a saved machine told VirtualBox %q", changes)
	}
	d.must("start", "x")
	running(true)

	for _, answer := range []string{"n\n", "\n", "", "maybe\n"} { // G24
		if r := d.run(answer, "destroy", "x"); r.code != 0 || !strings.HasSuffix(r.out, "destroy it? [y/N]: ") {
			t.Errorf("destroy, answered %q, ended with %d and said %q", answer, r.code, r.out)
		}
	}
	running(true)
	if r := d.run("y\n", "destroy", "x"); r.code != 0 {
		t.Errorf("destroy ended with %d: %s", r.code, r.err)
	}
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if out := d.vboxManage("list", "vms") + d.vboxManage("list", "hdds"); strings.TrimSpace(out) != "" {
		t.Errorf("VirtualBox still has %q", out)
	}
}

// TestPeers replays the original's own test, create_and_destroy.
func TestPeers(t *testing.T) {
	tier.Full(t)
	d := newDesk(t)
	d.write("params.conf", "# a comment\nname=launch_testing_machine\napiPort=22\ncernvmVersion="+version+"\ncpus=1\nmemory=512\ndisk=10000\nexecutionCap=100\nflags=5\ndiskChecksum=\ndiskURL=\nip=\n")
	d.write("userData.conf", "From x\nContent-Type: multipart/mixed; boundary=\"=\"\n\n--=\nContent-Type: text/cloud-config\n\nusers: [boinc]\n--=--")
	d.must("create", "--no-start", d.path("userData.conf"), d.path("params.conf"))
	if d.told("startvm") {
		t.Error("--no-start boots the machine")
	}
	if out := d.must("list", "launch_testing_machine").out; !regexp.MustCompile(`(?s)^.*launch_testing_machine:\s+CVM:.*`).MatchString(out) {
		t.Errorf("list said %q", out)
	}
	r := d.must("destroy", "launch_testing_machine")
	if r.out != "" {
		t.Errorf("destroy of a machine that is off asked %q", r.out)
	}
}

// TestConfiguration is G29 and G18: what VirtualBox is told for the flags.
func TestConfiguration(t *testing.T) {
	tier.Full(t)
	d := newDesk(t)
	t.Chdir(d.home)
	d.write("my.iso", strings.Repeat("x", 4096))
	d.configure(fakevbox.Config{Additions: d.write("additions.iso", "x")})
	for _, tc := range []struct {
		name, config string
		args         []string
		has, hasNot  []string
	}{
		{"the peers' flags", "flags=5", nil, []string{
			"--ostype Linux26_64", "modifyvm", "--cpus 1 --memory 64 --vram 32", "guestapi,tcp,127.0.0.1,", ",,22", "additions.iso",
			"sharedfolder add", "--name x_sf --hostpath " + d.home, "SharedFoldersEnableSymlinksCreate/x_sf 1", "--boot1 dvd", "--nictype1 virtio",
		}, []string{"--clipboard", "hostonly", "startvm"}},
		{"32 bits and more", "flags=32\nvram=64\ngraphics=vmsvga\nnatDns=proxy\nexecutionCap=50\nsharedFolder=none\napiPort=80", nil, []string{
			"--ostype Linux26 ", "--clipboard-mode bidirectional", "--vram 64", "vmsvga", "--natdnsproxy1 on", "--cpuexecutioncap 50", ",,80",
		}, []string{"additions.iso", "sharedfolder"}},
		{"own ISO", "flags=5", []string{"--iso", "my.iso"}, []string{"image.iso"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if strings.Contains(tc.config, "flags=32") { // an image of the other architecture
				tc.config += "\nisoPath=my.iso"
			}
			d.write("c.conf", tc.config+"\n")
			d.commands()
			d.must(append([]string{"create", "--no-start", "--name", "x", "UD", "c.conf"}, tc.args...)...)
			lines := strings.Join(d.commands(), " \n")
			for _, part := range tc.has {
				if !strings.Contains(lines, part) {
					t.Errorf("VirtualBox was not told %q:\n%s", part, lines)
				}
			}
			for _, part := range tc.hasNot {
				if strings.Contains(lines, part) {
					t.Errorf("VirtualBox was told %q:\n%s", part, lines)
				}
			}
			if tc.args != nil { // G18
				if out, want := d.must("list").out, "x:\tCVM: my.iso\tport: "+d.record()["local/apiPort"]+"\n"; out != want {
					t.Errorf("list = %q, want %q", out, want)
				}
				if got := d.record()["isoPath"]; got != d.path("my.iso") {
					t.Errorf("isoPath = %q, want an absolute path", got)
				}
			}
			d.must("destroy", "x")
		})
	}
}

// TestSharedFolderIsCanonicalised is G14 as it should have been.
func TestSharedFolderIsCanonicalised(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	d.must("create", "--no-start", "--name", "x", "--sharedFolder", d.home+"/../"+d.home[strings.LastIndexByte(d.home, '/')+1:], d.path("UD"))
	if got := d.record()["sharedFolder"]; got != d.home {
		t.Errorf("sharedFolder = %q, want %q", got, d.home)
	}
}

func TestListIsSorted(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	var want []string
	for _, name := range []string{"c", "a", "B", "b"} {
		d.must("create", "--no-start", "--name="+name, d.path("UD"))
		want = append(want, name)
	}
	slices.Sort(want)
	var got []string
	ports := map[string]bool{}
	for line := range strings.Lines(d.must("list").out) {
		name, rest, _ := strings.Cut(line, ":")
		got = append(got, name)
		ports[rest[strings.LastIndexByte(rest, ' '):]] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if len(ports) != 4 {
		t.Errorf("4 machines have %d ports", len(ports))
	}
}
