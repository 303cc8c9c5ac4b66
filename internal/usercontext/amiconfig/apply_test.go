package amiconfig

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me@here"

// tree makes a small system in a temporary directory.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"etc/passwd":           "root:x:0:0:root:/root:/bin/bash\n",
		"etc/group":            "root:x:0:\nwheel:x:10:\nusers:x:100:\n",
		"etc/shadow":           "root:*:19000:0:99999:7:::\n",
		"etc/hosts":            "127.0.0.1 localhost\n",
		"etc/skel/.bashrc":     "# skel\n",
		"etc/ssh/sshd_config":  "PasswordAuthentication yes\n",
		"usr/bin/ps":           "",
		"bin/bash":             "",
		"bin/zsh":              "",
		"mnt/.rw/ulogs/.empty": "",
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.Contains(name, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// open opens a tree. Programs go to the runner; none is run by itself.
func open(t testing.TB, dir string, runner guest.Runner) *guest.Root {
	t.Helper()
	root, err := guest.Open(guest.Options{
		Dir: dir, Runner: runner, Volatile: true, Rand: rand.NewChaCha8([32]byte{1}),
		Now: func() time.Time { return time.Unix(1_700_000_000, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

// shellOnly runs the context's script with /bin/sh and refuses everything else.
type shellOnly struct {
	t   testing.TB
	dir string
}

func (s shellOnly) Run(ctx context.Context, c guest.Command) (guest.Result, error) {
	if c.Name != "/bin/sh" {
		s.t.Errorf("ran %q", c.Line())
		return guest.Result{Code: 127}, nil
	}
	c.Dir = s.dir
	return guest.Exec{}.Run(ctx, c)
}

func read(t testing.TB, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func apply(t testing.TB, root *guest.Root, in Input, o Options) Report {
	t.Helper()
	rep, err := Apply(t.Context(), root, in, o)
	if err != nil {
		t.Fatalf("Apply() = %v", err)
	}
	return rep
}

func TestApplyUsers(t *testing.T) {
	dir := tree(t, nil)
	root := open(t, dir, nil)
	in := Input{
		UserData:   []byte("[cernvm]\nusers=alice:physics:secret,bob:bob:$6$abcdefgh$hash.of/bob\nshell=/bin/zsh\n"),
		PublicKeys: []string{testKey}, InstanceID: "i-1",
	}
	rep := apply(t, root, in, Options{})
	if rep.State != stage.Done {
		t.Errorf("state = %s (%s %v), want done", rep.State, rep.Detail, rep.Warnings)
	}
	if diff := cmp.Diff([]string{"alice", "bob"}, rep.Users); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
	passwd := read(t, dir, "etc/passwd")
	for _, want := range []string{"alice:x:1000:999::/home/alice:/bin/zsh\n", "bob:x:1001:1001::/home/bob:/bin/zsh\n"} {
		if !strings.Contains(passwd, want) {
			t.Errorf("passwd = %q, lacks %q", passwd, want)
		}
	}
	group := read(t, dir, "etc/group")
	for _, want := range []string{"wheel:x:10:alice\n", "users:x:100:alice\n", "physics:x:999:alice\n", "bob:x:1001:\n"} {
		if !strings.Contains(group, want) {
			t.Errorf("group = %q, lacks %q", group, want)
		}
	}
	shadow := read(t, dir, "etc/shadow")
	if !strings.Contains(shadow, "bob:$6$abcdefgh$hash.of/bob:19675:") || strings.Contains(shadow, "secret") {
		t.Errorf("shadow = %q", shadow)
	}
	if ok, err := root.PasswordIs("alice", "secret"); err != nil || !ok {
		t.Errorf("PasswordIs(alice, secret) = %v, %v, want true", ok, err)
	}
	for _, home := range []string{"root", "home/alice", "home/bob"} {
		if got := read(t, dir, home+"/.ssh/authorized_keys"); got != testKey+"\n" {
			t.Errorf("%s/.ssh/authorized_keys = %q", home, got)
		}
	}
	if got := read(t, dir, "home/alice/.bashrc"); got != "# skel\n" {
		t.Errorf(".bashrc = %q, want that of /etc/skel", got)
	}
	if strings.Contains(string(rep.JSON())+rep.Log(), "secret") {
		t.Error("the report has a password in it")
	}
}

func TestAgainChangesNothing(t *testing.T) {
	dir := tree(t, nil)
	root := open(t, dir, nil)
	in := Input{
		UserData: []byte("[amiconfig]\nplugins=cernvm disablesshpasswdauth hostname\n[hostname]\nhostname=vm1.example.org\n" +
			"[cernvm]\nusers=alice:physics:secret,bob::\nenvironment=A=1,B=x y\nproxy=http://p:3128;DIRECT\nauto_login=on\nedition=Desktop\n" +
			"desktop_icons=A~B,W0Rlc2t0b3AgRW50cnldCg==\nextra_repositories=x.org|h.org|a2V5\nkeyboard=us\n"),
		PublicKeys: []string{testKey}, InstanceID: "i-1",
	}
	apply(t, root, in, Options{Force: true})
	n := len(root.Actions())
	if n < 20 {
		t.Fatalf("%d actions at first, want at least 20", n)
	}
	apply(t, root, in, Options{Force: true})
	for _, a := range root.Actions()[n:] {
		if a.Kind != guest.KindCommand && a.Kind != guest.KindService && a.Kind != guest.KindHostname {
			t.Errorf("the second time did %+v", a)
		}
	}
}

func TestOncePerInstance(t *testing.T) {
	dir := tree(t, nil)
	in := Input{UserData: []byte("[cernvm]\nusers=alice:alice:a\nservices=sshd\n"), InstanceID: "i-1", PublicKeys: []string{testKey}}
	if rep := apply(t, open(t, dir, nil), in, Options{}); !rep.First {
		t.Error("first run: First = false, want true")
	}
	if err := os.Remove(filepath.Join(dir, "root/.ssh/authorized_keys")); err != nil {
		t.Fatal(err)
	}
	rep := apply(t, open(t, dir, nil), in, Options{})
	if rep.First || !slices.Equal(rep.Users, []string{"alice"}) {
		t.Errorf("second run: First = %v, users %v, want false and alice", rep.First, rep.Users)
	}
	if _, err := os.Stat(filepath.Join(dir, "root/.ssh/authorized_keys")); err == nil {
		t.Error("the second run did a once-per-machine part")
	}
	// services are started at every boot: here there is no such service
	if !strings.Contains(rep.Detail, "cernvm") {
		t.Errorf("second run: detail = %q, want the failure to start a service", rep.Detail)
	}
	in.InstanceID = "i-2"
	if rep := apply(t, open(t, dir, nil), in, Options{}); !rep.First {
		t.Error("another instance id: First = false, want true")
	}
	in.UserData = append(in.UserData, "[end]\n"...)
	rep = apply(t, open(t, dir, nil), in, Options{})
	if rep.First || !strings.Contains(strings.Join(rep.Warnings, "\n"), "has changed") {
		t.Errorf("changed context: First = %v, warnings %q, want a warning only", rep.First, rep.Warnings)
	}
	if rep := apply(t, open(t, dir, nil), in, Options{Force: true}); !rep.First {
		t.Error("forced: First = false, want true")
	}
}

const guardScript = `parents=$(pid=$$; while [ $pid -ne 1 ]; do pid=$(ps -o ppid= -p $pid); cat /proc/$(echo $pid)/cmdline; done)
if ! echo $parents | grep -q amiconfig; then
  echo "Skipping startup script"
  exit 0
fi
`

func TestScript(t *testing.T) {
	if _, err := exec.LookPath("ps"); err != nil {
		t.Log("no ps here: the guard runs with the small one")
	}
	dir := tree(t, map[string]string{"usr/bin/ps": ""})
	if err := os.Remove(filepath.Join(dir, "usr/bin/ps")); err != nil { // so that tinyPS is used
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	text := "#!/bin/sh.after\n" + guardScript + "grep -c ^alice: etc/passwd >" + out + "\necho to the log\n" +
		"echo \"$AMICONFIG_LOCAL_USER_DATA\" >>" + out + "\nexit 3\n\n[amiconfig]\nplugins=cernvm\n[cernvm]\nusers=alice:alice:x\n"
	var events []stage.Event
	rep := apply(t, open(t, dir, shellOnly{t, dir}), Input{UserData: []byte(text)}, Options{Emit: func(e stage.Event) { events = append(events, e) }})
	if len(rep.Scripts) != 1 || rep.Scripts[0].Phase != "after" || rep.Scripts[0].Code != 3 {
		t.Fatalf("scripts = %+v, want one after with exit code 3", rep.Scripts)
	}
	if got, want := read(t, dir, "out"), "1\n/var/lib/amiconfig/2007-12-15/user-data\n"; got != want {
		t.Errorf("the script wrote %q, want %q", got, want)
	}
	if got := read(t, dir, "var/log/mica/script-after.log"); !strings.HasSuffix(got, "to the log\n") {
		t.Errorf("log = %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "var/log/mica/script-after.log"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log: mode %v, %v, want 0600", info.Mode(), err)
	}
	if rep.State != stage.Warned || rep.Facts["script_after"] != "3" {
		t.Errorf("state = %s, facts %v, want warned and script_after=3", rep.State, rep.Facts)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "var/lib/mica/run/*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	last := events[len(events)-1]
	if last.Stage != stage.Plugin || last.Facts["plugin"] != "script-after" || last.State != stage.Warned {
		t.Errorf("last event = %+v, want that of the script", last)
	}
}

func TestScriptTimeout(t *testing.T) {
	dir := tree(t, nil)
	began := time.Now()
	rep := apply(t, open(t, dir, shellOnly{t, dir}), Input{UserData: []byte("#!/bin/sh\nsleep 60\nexit 0\n")}, Options{ScriptTimeout: 200 * time.Millisecond})
	if len(rep.Scripts) != 1 || rep.Scripts[0].Problem == "" {
		t.Errorf("scripts = %+v, want one that was stopped", rep.Scripts)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("took %v, want well under the script's minute", d)
	}
}

func TestRequiredPluginFails(t *testing.T) {
	rep := apply(t, open(t, tree(t, nil), nil), Input{UserData: []byte("[cernvm]\nusers=alice\n")}, Options{})
	if rep.State != stage.Failed || rep.ExitCode() != 1 {
		t.Errorf("state = %s, exit code %d, want failed and 1", rep.State, rep.ExitCode())
	}
	rep = apply(t, open(t, tree(t, nil), nil), Input{UserData: []byte("[amiconfig]\nplugins=hostname\n[hostname]\nhostname=not a name\n"), PublicKeys: []string{testKey}}, Options{})
	if rep.State != stage.Warned || rep.ExitCode() != 0 {
		t.Errorf("state = %s, exit code %d, want warned and 0", rep.State, rep.ExitCode())
	}
}

func TestRunLeavesReportAndEvents(t *testing.T) {
	dir := tree(t, map[string]string{
		"mnt/.rw/context/user-data":        "[cernvm]\nusers=alice:alice:topsecret\n",
		"mnt/.rw/context/meta.json":        `{"instance_id":"i-9","hostname":"vm9","public_keys":["` + testKey + `"]}`,
		"etc/ssh/ssh_host_ed25519_key":     "private",
		"etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA root@builder\n",
	})
	in, err := readInput(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	var events []stage.Event
	p := program{out: &out, err: &errs, env: func(string) string { return "" }, open: guest.Open, consoles: func() []string { return nil }}
	rep, err := p.run(t.Context(), guest.Options{Dir: dir}, in, Options{}, func(e stage.Event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, "mnt/.rw/ulogs/apply.json"); got != string(rep.JSON()) {
		t.Errorf("apply.json = %q", got)
	}
	if got := read(t, dir, "var/log/mica/apply.log"); !strings.Contains(got, "plugin cernvm: done") {
		t.Errorf("apply.log = %q, want the plugin's line", got)
	}
	first, last := events[0], events[len(events)-1]
	if first.Stage != stage.Apply || first.State != stage.Started {
		t.Errorf("first event = %+v", first)
	}
	want := map[string]string{"ssh_host_key": "ssh-ed25519 AAAA", "users": "alice"}
	if last.Stage != stage.Apply || last.State != stage.Done {
		t.Errorf("last event = %+v, want apply done", last)
	}
	if diff := cmp.Diff(want, last.Facts); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if strings.Contains(read(t, dir, "var/log/mica/apply.log"), "topsecret") || errs.Len() > 0 {
		t.Errorf("the log has a password, or there were complaints: %s", errs.String())
	}
}

func TestConsoles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"sys/class/tty/console/active": "tty0 hvc0\n", "dev/tty0": "", "dev/hvc0": "", "dev/ttyS0": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names := consoles(dir)
	c := &console{append(names, filepath.Join(dir, "dev/none"))}
	c.emit(stage.Event{Stage: stage.Apply, State: stage.Done})
	for _, name := range []string{"dev/tty0", "dev/hvc0", "dev/ttyS0"} {
		if _, ok := stage.Parse(strings.TrimSpace(read(t, dir, name))); !ok {
			t.Errorf("%s got %q, want an event", name, read(t, dir, name))
		}
	}
}

// A login prompt that starts on a line hangs it up. What is written later arrives
// all the same.
func TestConsoleSurvivesHangUp(t *testing.T) {
	tier.Root(t)
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	lines := make(chan string, 16)
	go func() {
		var text string
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			text += string(buf[:n])
			for {
				line, rest, found := strings.Cut(text, "\n")
				if !found {
					break
				}
				lines <- line
				text = rest
			}
			switch {
			case errors.Is(err, unix.EIO): // nobody has the other end open just now
				time.Sleep(5 * time.Millisecond)
			case err != nil:
				return
			}
		}
	}()
	c := &console{[]string{tty.Name()}}
	for _, state := range []stage.State{stage.Started, stage.Done} {
		c.emit(stage.Event{Stage: stage.Apply, State: state})
		for arrived := false; !arrived; {
			select {
			case line := <-lines:
				e, ok := stage.Parse(line)
				arrived = ok && e.State == state
			case <-time.After(10 * time.Second):
				t.Fatalf("the event %q never arrived", state)
			}
		}
		if err := unix.IoctlSetInt(int(tty.Fd()), unix.TIOCVHANGUP, 0); err != nil {
			t.Fatal(err)
		}
		_ = tty.Close()
		if tty, err = os.OpenFile(c.names[0], os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
			t.Fatal(err)
		}
	}
	_ = tty.Close()
}
