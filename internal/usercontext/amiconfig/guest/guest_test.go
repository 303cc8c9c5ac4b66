package guest_test

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func open(t testing.TB, o guest.Options) *guest.Root {
	t.Helper()
	o.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	o.Rand = rand.NewChaCha8([32]byte{3})
	root, err := guest.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestLinksStayInside(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "secret", "outside")
	dir := t.TempDir()
	write(t, dir, "etc/real.conf", "old\n")
	links := map[string]string{
		"etc/absolute":  "/etc/real.conf",          // of the system, not of the host
		"etc/up":        "../../../../etc/up2",     // ".." stops at the top
		"etc/out":       outside + "/secret",       // exists on the host only
		"etc/loop":      "loop",                    //
		"etc/directory": outside,                   //
		"usr/lib/cvmfs": "/etc/cvmfs/../real.conf", //
	}
	for name, target := range links {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root := open(t, guest.Options{Dir: dir})
	for name, want := range map[string]string{"/etc/absolute": "etc/real.conf", "usr/lib/../lib/cvmfs": "etc/real.conf", "/etc/up": "etc/up2", "/../../etc/new": "etc/new"} {
		text := "by " + name
		if err := root.WriteFile(name, []byte(text), guest.Attr{}); err != nil {
			t.Errorf("WriteFile(%q) = %v", name, err)
		} else if got := read(t, dir, want); got != text {
			t.Errorf("WriteFile(%q): %s = %q, want %q", name, want, got, text)
		}
	}
	if info, err := os.Lstat(filepath.Join(dir, "etc/absolute")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	for _, name := range []string{"etc/out", "etc/directory/secret"} {
		if err := root.WriteFile(name, []byte("x"), guest.Attr{}); err != nil {
			t.Errorf("WriteFile(%q) = %v", name, err) // below the same path inside
		}
	}
	if got := read(t, outside, "secret"); got != "outside" {
		t.Errorf("a file outside was written: %q", got)
	}
	if err := root.WriteFile("etc/loop", nil, guest.Attr{}); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("WriteFile(loop) = %v, want ELOOP", err)
	}
	for _, bad := range []string{"", "a\x00b", "/", "/etc"} {
		if err := root.WriteFile(bad, nil, guest.Attr{}); err == nil {
			t.Errorf("WriteFile(%q) = nil, want an error", bad)
		}
	}
}

func TestNoFollow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "etc/shadow", "root:*:\n")
	write(t, dir, "tmp/.keep", "")
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "tmp/x509up_u1000")); err != nil {
		t.Fatal(err)
	}
	root := open(t, guest.Options{Dir: dir})
	if err := root.WriteFile("/tmp/x509up_u1000", []byte("proxy"), guest.Attr{Mode: 0o600, NoFollow: true}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, "etc/shadow"); got != "root:*:\n" {
		t.Errorf("shadow = %q, want it untouched", got)
	}
	if got := read(t, dir, "tmp/x509up_u1000"); got != "proxy" {
		t.Errorf("file = %q, want proxy", got)
	}
	if err := os.MkdirAll(filepath.Join(dir, "home/eve"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "home/eve/.ssh")); err != nil {
		t.Fatal(err)
	}
	err := root.Authorize(guest.Account{Name: "eve", UID: 1000, GID: 1000, Home: "/home/eve"}, []string{key1})
	if err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("Authorize() through a link = %v, want a refusal", err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "etc/a.conf", "one\n")
	if err := os.Chmod(filepath.Join(dir, "etc/a.conf"), 0o640); err != nil {
		t.Fatal(err)
	}
	root := open(t, guest.Options{Dir: dir})
	steps := []struct {
		text string
		attr guest.Attr
		want []guest.Kind
		mode fs.FileMode
	}{
		{"one\n", guest.Attr{}, nil, 0o640},
		{"two\n", guest.Attr{Backup: true}, []guest.Kind{guest.KindFile}, 0o640},
		{"three\n", guest.Attr{Backup: true}, []guest.Kind{guest.KindFile}, 0o640},
		{"three\n", guest.Attr{Mode: 0o600}, []guest.Kind{guest.KindAttr}, 0o600},
		{"three\n", guest.Attr{Mode: 0o600}, nil, 0o600},
	}
	for i, s := range steps {
		n := len(root.Actions())
		if err := root.WriteFile("/etc/a.conf", []byte(s.text), s.attr); err != nil {
			t.Fatal(err)
		}
		var got []guest.Kind
		for _, a := range root.Actions()[n:] {
			got = append(got, a.Kind)
		}
		if !slices.Equal(got, s.want) {
			t.Errorf("step %d: actions %v, want %v", i, got, s.want)
		}
		info, err := os.Stat(filepath.Join(dir, "etc/a.conf"))
		if err != nil || info.Mode().Perm() != s.mode {
			t.Errorf("step %d: mode %v, %v, want %v", i, info.Mode(), err, s.mode)
		}
	}
	if got := read(t, dir, "etc/a.conf.orig"); got != "one\n" {
		t.Errorf("a.conf.orig = %q, want the first version", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "etc/.mica-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

const system = "root:x:0:0:root:/root:/bin/bash\n# a comment\n\nbroken line\n+::::::\n"

func accounts(t testing.TB) (string, *guest.Root) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "etc/passwd", system)
	write(t, dir, "etc/group", "root:x:0:\nwheel:x:10:\n+:::\n")
	write(t, dir, "etc/gshadow", "root:::\nwheel:::\n")
	write(t, dir, "etc/shadow", "root:*:19000:0:99999:7:::\n")
	write(t, dir, "etc/skel/.config/app/rc", "setting\n")
	if err := os.Symlink(".config/app/rc", filepath.Join(dir, "etc/skel/.rc")); err != nil {
		t.Fatal(err)
	}
	return dir, open(t, guest.Options{Dir: dir})
}

func TestAccounts(t *testing.T) {
	dir, root := accounts(t)
	ctx := t.Context()
	acc, created, err := root.EnsureAccount(ctx, guest.NewAccount{Name: "alice", Groups: []string{"wheel", "nosuch"}, Shell: "/bin/zsh", Gecos: "Alice A."})
	if err != nil || !created {
		t.Fatalf("EnsureAccount() = %v, %v", created, err)
	}
	if diff := cmp.Diff(guest.Account{Name: "alice", UID: 1000, GID: 1000, Gecos: "Alice A.", Home: "/home/alice", Shell: "/bin/zsh"}, acc); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
	want := "root:x:0:0:root:/root:/bin/bash\n# a comment\n\nbroken line\nalice:x:1000:1000:Alice A.:/home/alice:/bin/zsh\n+::::::\n"
	if got := read(t, dir, "etc/passwd"); got != want {
		t.Errorf("passwd = %q, want %q", got, want)
	}
	if got, want := read(t, dir, "etc/group"), "root:x:0:\nwheel:x:10:alice\nalice:x:1000:\n+:::\n"; got != want {
		t.Errorf("group = %q, want %q", got, want)
	}
	if got, want := read(t, dir, "etc/gshadow"), "root:::\nwheel:::alice\nalice:!::\n"; got != want {
		t.Errorf("gshadow = %q, want %q", got, want)
	}
	if got := read(t, dir, "home/alice/.rc"); got != "setting\n" {
		t.Errorf("~/.rc = %q, want what the link in /etc/skel points to", got)
	}
	// An account that exists keeps what it has.
	write(t, dir, "home/alice/mine", "mine")
	if err := root.SetPassword(ctx, "alice", "$6$a$b", "test"); err != nil {
		t.Fatal(err)
	}
	acc, created, err = root.EnsureAccount(ctx, guest.NewAccount{Name: "alice", Shell: "/bin/bash", UID: 4711, Home: "/elsewhere"})
	if err != nil || created || acc.UID != 1000 || acc.Home != "/home/alice" || acc.Shell != "/bin/bash" {
		t.Errorf("EnsureAccount() again = %+v, %v, %v; want the same account with another shell", acc, created, err)
	}
	if got := read(t, dir, "etc/shadow"); !strings.Contains(got, "alice:$6$a$b:19675:") {
		t.Errorf("shadow = %q, want the password kept", got)
	}
	if got := read(t, dir, "home/alice/mine"); got != "mine" {
		t.Errorf("a file of the user is %q", got)
	}
}

func TestAccountErrors(t *testing.T) {
	dir, root := accounts(t)
	before := read(t, dir, "etc/passwd")
	for _, n := range []guest.NewAccount{
		{Name: ""},
		{Name: "a:b"},
		{Name: "a\nb"},
		{Name: "../x"},
		{Name: "-x"},
		{Name: strings.Repeat("x", 33)},
		{Name: "bob", Shell: "/bin/sh:0:0"},
		{Name: "bob", Home: "/home\nroot::0:0:::"},
		{Name: "bob", Gecos: "x:y"},
		{Name: "bob", Group: "nosuch"},
		{Name: "bob", UID: 0, Group: "no:such"},
	} {
		if _, _, err := root.EnsureAccount(t.Context(), n); err == nil {
			t.Errorf("EnsureAccount(%+v) = nil, want an error", n)
		}
	}
	if err := root.SetPassword(t.Context(), "root", "x:0:0", ""); err == nil {
		t.Error("SetPassword with a colon = nil, want an error")
	}
	if err := root.SetPassword(t.Context(), "nobody", "!", ""); err == nil {
		t.Error("SetPassword of nobody = nil, want an error")
	}
	if _, err := root.EnsureGroup(t.Context(), "second", 10, false); err == nil {
		t.Error("EnsureGroup with a gid in use = nil, want an error")
	}
	if got := read(t, dir, "etc/passwd"); got != before {
		t.Errorf("passwd = %q, want it untouched", got)
	}
}

func TestIDs(t *testing.T) {
	dir, root := accounts(t)
	write(t, dir, "etc/passwd", system+"last:x:59999:59999::/home/last:/bin/sh\nfirst:x:1000:1000::/:/bin/sh\nhuge:x:65534:1::/:/bin/sh\n")
	acc, _, err := root.EnsureAccount(t.Context(), guest.NewAccount{Name: "alice"})
	if err != nil || acc.UID != 1001 {
		t.Errorf("EnsureAccount() = uid %d, %v, want 1001, the lowest that is free", acc.UID, err)
	}
	gid, err := root.EnsureGroup(t.Context(), "sys", 0, true)
	if err != nil || gid != 999 {
		t.Errorf("EnsureGroup(system) = %d, %v, want 999", gid, err)
	}
}

// The lock is the one of shadow-utils: a process lock on /etc/.pwd.lock keeps the
// agent waiting.
func TestAccountLock(t *testing.T) {
	dir, root := accounts(t)
	f, err := os.OpenFile(filepath.Join(dir, "etc/.pwd.lock"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := root.EnsureGroup(ctx, "g", 0, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("EnsureGroup() while locked = %v, want a deadline", err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
		t.Fatal(err)
	}
	if _, err := root.EnsureGroup(t.Context(), "g", 0, false); err != nil {
		t.Errorf("EnsureGroup() = %v", err)
	}
}

const (
	key1 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me@here"
	key2 = `from="10.0.0.0/8, 192.168.0.0/16",command="echo \"hi there\"" ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQM= you`
)

func TestAuthorize(t *testing.T) {
	dir := t.TempDir()
	root := open(t, guest.Options{Dir: dir})
	acc := guest.Account{Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice"}
	err := root.Authorize(acc, []string{key1 + "\r\n" + key2, "404 - Not Found", "<html>", strings.Replace(key1, "me@here", "again", 1), "# comment\n"})
	if err == nil || strings.Count(err.Error(), "public key") < 2 {
		t.Errorf("Authorize() = %v, want two complaints", err)
	}
	if got, want := read(t, dir, "home/alice/.ssh/authorized_keys"), key1+"\n"+key2+"\n"; got != want {
		t.Errorf("authorized_keys = %q, want %q", got, want)
	}
	n := len(root.Actions())
	if err := root.Authorize(acc, []string{key2, key1}); err != nil || len(root.Actions()) != n {
		t.Errorf("Authorize() again = %v, %d actions, want none", err, len(root.Actions())-n)
	}
}

// openssl is the oracle for SHA-512 crypt.
func TestHashAgainstOpenSSL(t *testing.T) {
	openssl := tier.Tool(t, "openssl")
	root := open(t, guest.Options{Dir: t.TempDir()})
	for _, password := range []string{"password", "a b:c,d%\"'$", "pässwörd", strings.Repeat("x", 100)} {
		hash, err := root.Hash(password)
		if err != nil {
			t.Fatal(err)
		}
		if !guest.IsHash(hash) {
			t.Errorf("Hash(%q) = %q, which IsHash denies", password, hash)
		}
		fields := strings.Split(hash, "$") // "", 6, [rounds=5000,] salt, digest
		salt := fields[len(fields)-2]
		res, err := guest.Exec{}.Run(t.Context(), guest.Command{Name: openssl, Args: []string{"passwd", "-6", "-salt", salt, "-stdin"}, Stdin: []byte(password + "\n")})
		if err != nil || res.Code != 0 {
			t.Fatalf("openssl: %v %s", err, res.Output)
		}
		want := strings.TrimSpace(string(res.Output))
		if got := strings.Replace(hash, "rounds=5000$", "", 1); got != want {
			t.Errorf("Hash(%q) = %q, openssl says %q", password, got, want)
		}
	}
}

func TestIsHash(t *testing.T) {
	for text, want := range map[string]bool{
		"$6$saltsalt$abc": true, "$5$s$x": true, "$1$s$x": true, "$y$j9T$abc$def": true, "$2b$12$abcdefghijk": true, "$6$rounds=5000$s$x": true,
		"password": false, "$": false, "$6$": false, "$9$a$b": false, "$6$a b$c": false, "6$a$b": false, "$y$a:b$c": false,
	} {
		if got := guest.IsHash(text); got != want {
			t.Errorf("IsHash(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestExec(t *testing.T) {
	out := func(c guest.Command) (string, int, error) {
		res, err := guest.Exec{}.Run(t.Context(), c)
		return string(res.Output), res.Code, err
	}
	text, code, err := out(guest.Command{Name: "sh", Args: []string{"-c", "cat; echo $HOME $X; exit 7"}, Stdin: []byte("in "), Env: []string{"X=y"}})
	if text != "in /root y\n" || code != 7 || err != nil {
		t.Errorf("Run() = %q, %d, %v", text, code, err)
	}
	if _, code, err = out(guest.Command{Name: "sh", Args: []string{"-c", "kill -9 $$"}}); code != 137 || err != nil {
		t.Errorf("killed: %d, %v, want 137", code, err)
	}
	if _, code, err = out(guest.Command{Name: "/nonexistent/program"}); code != 127 || err == nil {
		t.Errorf("missing program: %d, %v, want 127 and an error", code, err)
	}
	began := time.Now()
	if _, _, err = out(guest.Command{Name: "sh", Args: []string{"-c", "sleep 30 & sleep 30"}, Timeout: 100 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 10*time.Second {
		t.Errorf("timeout: %v after %v", err, time.Since(began))
	}
}

func TestCommandLine(t *testing.T) {
	got := guest.Command{Name: "su", Args: []string{"-", "a", "-c", "it's; here", ""}}.Line()
	if want := `su - a -c 'it'\''s; here' ''`; got != want {
		t.Errorf("Line() = %s, want %s", got, want)
	}
}

// transcript is a Runner that notes command lines and fails those it is told to.
type transcript struct {
	lines []string
	fail  string
}

func (r *transcript) Run(_ context.Context, c guest.Command) (guest.Result, error) {
	r.lines = append(r.lines, c.Line())
	if r.fail != "" && strings.Contains(c.Line(), r.fail) {
		return guest.Result{Code: 5, Output: []byte("first\nbroken thing\n")}, nil
	}
	return guest.Result{}, nil
}

func TestService(t *testing.T) {
	tests := []struct {
		name  string
		files []string
		want  []string
	}{
		{
			"systemd",
			[]string{"run/systemd/system/x", "usr/bin/systemctl", "usr/lib/systemd/system/ssh.service"},
			[]string{"systemctl enable --quiet ssh.service", "systemctl --no-block restart ssh.service", "systemctl --no-block try-reload-or-restart ssh.service"},
		},
		{
			"el6",
			[]string{"etc/init.d/ssh", "sbin/chkconfig", "sbin/service"},
			[]string{"chkconfig ssh on", "service ssh restart", "service ssh reload"},
		},
		{
			"debian",
			[]string{"etc/init.d/ssh", "usr/sbin/update-rc.d", "usr/sbin/service"},
			[]string{"update-rc.d ssh defaults", "service ssh restart", "service ssh reload"},
		},
		{
			"openrc",
			[]string{"etc/init.d/ssh", "sbin/rc-update", "sbin/rc-service"},
			[]string{"rc-update add ssh default", "rc-service ssh restart", "rc-service --ifstarted ssh reload"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range test.files {
				write(t, dir, f, "")
				if err := os.Chmod(filepath.Join(dir, f), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			runner := &transcript{}
			root := open(t, guest.Options{Dir: dir, Runner: runner})
			if err := root.Service(t.Context(), []string{"sshd", "ssh"}, guest.Enable, guest.Restart, guest.Reload); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, runner.lines); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			if err := root.Service(t.Context(), []string{"nosuch"}, guest.Start); !errors.Is(err, guest.ErrNoService) {
				t.Errorf("Service(nosuch) = %v, want ErrNoService", err)
			}
			if err := root.Service(t.Context(), []string{"../x; rm"}, guest.Start); err == nil || errors.Is(err, guest.ErrNoService) {
				t.Errorf("Service(../x; rm) = %v, want a refusal", err)
			}
			runner.fail = "restart"
			if err := root.Service(t.Context(), []string{"ssh"}, guest.Restart); err == nil || !strings.Contains(err.Error(), "exit code 5: broken thing") {
				t.Errorf("Service() that fails = %v", err)
			}
		})
	}
}

func TestPretendTouchesNothing(t *testing.T) {
	root := open(t, guest.Options{Dir: t.TempDir(), Pretend: true, Live: true, Runner: panics{}, HTTP: panics{}})
	if root.Live() {
		t.Error("Live() = true, want false")
	}
	if _, err := root.Run(t.Context(), "reboot"); err != nil {
		t.Error(err)
	}
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://user:pass@example.org/x?token=1", nil)
	if _, err := root.HTTP(t.Context(), request); !errors.Is(err, guest.ErrOffline) {
		t.Errorf("HTTP() = %v, want ErrOffline", err)
	}
	if err := root.Sysctl("kernel.panic", "1"); err != nil {
		t.Error(err)
	}
	want := []guest.Action{
		{Kind: guest.KindCommand, Target: "reboot"},
		{Kind: guest.KindNetwork, Target: "GET http://example.org/x"},
		{Kind: guest.KindSysctl, Target: "kernel.panic", Detail: "1"},
	}
	if diff := cmp.Diff(want, root.Actions()); diff != "" {
		t.Errorf("actions (-want +got):\n%s", diff)
	}
}

type panics struct{}

func (panics) Run(context.Context, guest.Command) (guest.Result, error) { panic("ran") }
func (panics) Do(*http.Request) (*http.Response, error)                 { panic("asked") }

func TestOwners(t *testing.T) {
	tier.Root(t)
	dir := t.TempDir()
	write(t, dir, "etc/passwd", system)
	write(t, dir, "etc/skel/.profile", "x")
	root := open(t, guest.Options{Dir: dir, Owners: true})
	acc, _, err := root.EnsureAccount(t.Context(), guest.NewAccount{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Authorize(acc, []string{key1}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"home/alice": 0o700, "home/alice/.profile": 0o644, "home/alice/.ssh": 0o700, "home/alice/.ssh/authorized_keys": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || int(st.Uid) != acc.UID || int(st.Gid) != acc.GID || info.Mode().Perm() != mode {
			t.Errorf("%s: %d:%d %v, want %d:%d %v", name, st.Uid, st.Gid, info.Mode().Perm(), acc.UID, acc.GID, mode)
		}
	}
}
