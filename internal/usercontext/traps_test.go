package usercontext_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig"
	"github.com/micavm/mica/internal/usercontext/lint"
)

// A trap is something in a context that looks harmless and is not. want and not are
// beginnings of lines of what reading prints; elsewhere names the test of a trap
// that is not in the text, as package.Test.
type trap struct {
	name, text string
	want, not  []string
	elsewhere  []string
}

func traps() []trap {
	const user = "[cernvm]\nusers=u:u:p\n"
	const hash6 = "$6$saltsalt$" + "K9uR0f4Ew6UlXhsNfjJwB7VXr0Hc2vKq2mJXl8nWbn3FZ3gk1QvA6bJZCq5o0o1n8X2d8C6oQvWzYx5tB7uN40"
	mime := func(parts ...string) string {
		text := "Content-Type: multipart/mixed; boundary=\"B\"\nMIME-Version: 1.0\n"
		for _, p := range parts {
			text += "\n--B\nContent-Type: text/" + p
		}
		return text + "\n--B--\n"
	}
	return []trap{
		{name: "blanks separate plugins", text: "[amiconfig]\nplugins=cernvm nss\n" + user, want: []string{"mica plugin cernvm", "mica plugin nss", "mica user u"}, not: []string{"mica warning", "lint I003"}},
		{name: "commas separate plugins", text: "[amiconfig]\nplugins=cernvm,nss\n" + user, want: []string{"lint I003", "mica plugin cernvm", "mica user u", "mica warning [amiconfig] plugins: names are separated by blanks"}},
		{name: "section in another case", text: "[AMICONFIG]\nplugins=cernvm\n[CernVM]\nusers=u:u:p\n", want: []string{"lint I001", "original CernVM.users=u:u:p", "mica user u", "mica warning section [CernVM]"}, not: []string{"original cernvm."}},
		{name: "no continuation lines", text: "[cernvm]\nservices=a,\n  b\n", want: []string{"lint I005", "original cernvm.services=a,", "mica service a"}, not: []string{"mica service b"}},
		{name: "semicolon behind a blank", text: "[cernvm]\nproxy=http://h:1 ;DIRECT\n", want: []string{"lint I007", "original cernvm.proxy=http://h:1", "mica cernvm.proxy=http://h:1"}, not: []string{"mica cernvm.proxy=http://h:1 "}},
		{name: "semicolon in a value", text: "[cernvm]\nproxy=\"http://h:1;DIRECT\"\n", want: []string{"original cernvm.proxy=\"http://h:1;DIRECT\""}, not: []string{"lint I007"}},
		{name: "semicolon first and blank last", text: "[cernvm]\nproxy=;DIRECT \nkeyboard=;us\n", want: []string{"original cernvm.proxy=$", "original cernvm.keyboard=;us"}},
		{name: "hash sign in a value", text: "[cernvm]\nkeyboard=us # mine\n", want: []string{"lint I007", "original cernvm.keyboard=us # mine"}},
		{name: "percent and dollar", text: "[cernvm]\ndesktop_icons=A,QQ==%B,Qg==\nusers=u:u:" + hash6 + "\n", want: []string{"original cernvm.desktop_icons=A,QQ==%B,Qg==", "mica file /etc/skel/Desktop/A.desktop", "mica file /etc/skel/Desktop/B.desktop", "mica user u hash from the context"}, not: []string{"lint C002"}},
		{name: "blank lines of here-documents", text: "#!/bin/sh\ncat >f <<E\na\n\nb\nE\nexit 0\n", want: []string{"lint S007", "original script cat >f <<E|a|b|E|exit 0", "mica script cat >f <<E|a||b|E|exit 0"}},
		{name: "a script that runs twice", text: "#!/bin/sh.before\ncat >x <<E\n#!/bin/sh\nE\nexit 0\n", want: []string{"lint S003", "original before and after", "mica before$"}},
		{name: "sections in here-documents", text: "#!/bin/sh\ncat >f <<E\n[cernvm]\nusers=x:x:x\nE\nexit 0\n[amiconfig]\nplugins=cernvm\n", want: []string{"lint S007", "original cernvm.users=x:x:x", "mica user x"}},
		{name: "options of the interpreter", text: "#!/bin/bash -e\nexit 0\n", want: []string{"lint S002", "original never", "mica after"}},
		{name: "a blank behind the interpreter", text: "#!/bin/sh \nexit 0\n", want: []string{"lint S002", "original never", "mica after"}},
		{name: "an interpreter that is no shell", text: "#!/usr/bin/python\nprint(1)\n", want: []string{"lint S002", "original never", "mica never"}},
		{name: "no exit", text: "#!/bin/sh\ntouch /a\n[amiconfig]\nplugins=cernvm\n" + user, want: []string{"lint S001", "original script touch /a|[amiconfig]", "mica script touch /a|[amiconfig]", "mica user u"}},
		{name: "an exit that is none", text: "#!/bin/sh\nexit_code=1\n[amiconfig]\nplugins=cernvm\n" + user, want: []string{"lint S001", "mica script exit_code=1|[amiconfig]"}},
		{name: "an exit in a branch", text: "#!/bin/sh\nif true\nthen\nexit 0\nfi\necho b\nexit 0\n[amiconfig]\nplugins=cernvm\n" + user, want: []string{"mica script if true|then|exit 0|fi|echo b|exit 0$"}, not: []string{"lint S001"}},
		{name: "an unclosed quote", text: "#!/bin/sh\necho 'x\nexit 0\n[amiconfig]\nplugins=cernvm\n" + user, want: []string{"lint S004", "original cernvm.users=u:u:p", "mica user u"}},
		{name: "other kinds of hashes", text: "[cernvm]\nusers=a:a:$5$salt$hash,b:b:$y$j9T$salt$hash\n", want: []string{"lint C002", "mica user a hash from the context", "mica user b hash from the context"}},
		{name: "a colon in a password", text: "[cernvm]\nusers=u:g:a:b,v:v:c\n", want: []string{"lint C003", "mica user v", "mica failed cernvm"}, not: []string{"mica user u"}},
		{name: "an equals sign in the environment", text: "[cernvm]\nenvironment=OPTS=--x=1\nusers=u:u:p\n", want: []string{"lint C004", "mica user u", "mica file /etc/cernvm/environment.conf OPTS=--x=1"}},
		{name: "a key that begins like another", text: "[cernvm]\nshell=/bin/bash\nenvironment=ROOTSYS=/a,ROOT=/b\nusers=u:u:p\n", want: []string{"lint C004", "mica file /etc/cernvm/environment.conf ROOTSYS=/a|ROOT=/b", "mica file /etc/cernvm/site.conf CERNVM_USER_SHELL=/bin/bash|CERNVM_ENVIRONMENT_VARS=+ROOTSYS+ROOT|CERNVM_USER=u|"}},
		{name: "a proxy that a shell takes apart", text: "[ucernvm-begin]\ncvmfs_http_proxy=http://a:1|http://b:1;DIRECT\n[ucernvm-end]\n", want: []string{"lint U003", "original block cvmfs_http_proxy lost", "mica block cvmfs_http_proxy=http://a:1|http://b:1;DIRECT"}},
		{name: "blanks in the block", text: "[ucernvm-begin]\ncvmfs_server = h\n[ucernvm-end]\n", want: []string{"lint U002", "original block cvmfs_server lost", "mica block cvmfs_server=h"}},
		{name: "carriage returns", text: "[ucernvm-begin]\r\ncvmfs_server=h\r\n[ucernvm-end]\r\n[cernvm]\r\nusers=u:u:p\r\n", want: []string{"lint Z002", "original block cvmfs_server unseen", "original cernvm.users=u:u:p", "mica block cvmfs_server=h", "mica user u"}},
		{name: "a script with carriage returns", text: "#!/bin/sh\r\nexit 0\r\n", want: []string{"lint Z002", "original never", "mica after"}},
		{name: "dead keys", text: "[amiconfig]\nplugins=cernvm ldap\ndisabed_plugins=nss\n[cernvm]\nconfig_url=http://x/\ngroup_profile=g\n[ucernvm-begin]\ncvmfs_path=cvm4\n[ucernvm-end]\n", want: []string{"lint I009", "lint U001", "lint I003", "lint I004", "mica warning [amiconfig] plugins: there is no plugin ldap, it is called amildap", "mica warning disabed_plugins"}},
		{name: "a second block", text: "[ucernvm-begin]\ncvmfs_tag=a\n[ucernvm-end]\n[ucernvm-begin]\ncvmfs_tag=b\n[ucernvm-end]\n", want: []string{"lint U004", "original block cvmfs_tag set a", "mica block cvmfs_tag=a"}},
		{name: "an end before the block", text: "[ucernvm-end]\n[ucernvm-begin]\ncvmfs_tag=a\n[ucernvm-end]\n", want: []string{"lint U004"}, not: []string{"original block cvmfs_tag set"}},
		{name: "an unterminated block", text: "[ucernvm-begin]\ncvmfs_tag=a\n[cernvm]\nusers=u:u:p\n", want: []string{"lint U004", "mica block cvmfs_tag=a"}},
		{name: "no line end at the end", text: "[ucernvm-begin]\ncvmfs_tag=x", want: []string{"lint Z002", "original block cvmfs_tag unseen", "mica block cvmfs_tag=x"}},
		{name: "cloud-config behind amiconfig's part", text: mime("amiconfig-user-data\n\n"+user, "cloud-config\n\n#cloud-config\nusers:\n - name: x\n"), want: []string{"lint M003", "original cernvm.users=$", "mica user u"}},
		{name: "a script that ends without a line end", elsewhere: []string{"online.TestRender"}},
		{name: "encoded parts", text: mime("amiconfig-user-data\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString([]byte(user)) + "\n"), want: []string{"lint M002", "mica user u"}, not: []string{"original cernvm.users"}},
		{name: "a wrong boundary", text: strings.ReplaceAll(mime("amiconfig-user-data\n\n"+user), "\n--B", "\n--C"), want: []string{"lint M001", "original cernvm.users=u:u:p"}},
		{name: "certificates in two encodings", elsewhere: []string{"amiconfig/plugins.TestGolden"}},
		{name: "a script that mentions MIME", text: "#!/bin/sh\n# MIME-Version: 1.0\nexit 0\n", want: []string{"lint M004", "mica after"}},
		{name: "a byte order mark", text: "\xef\xbb\xbf[amiconfig]\nplugins=cernvm\n" + user, want: []string{"lint Z002", "mica user u"}, not: []string{"original amiconfig."}},
		{name: "a byte order mark before a script", text: "\xef\xbb\xbf#!/bin/sh\nexit 0\n", want: []string{"lint Z002", "original never", "mica after"}},
		{name: "a header of cloud-config that is none", text: "# cloud-config\nusers: []\n", want: []string{"lint Y001", "cloud-init skips text/x-not-multipart"}},
		{name: "cloud-config behind blank lines", text: "\n\n#cloud-config\nusers: []\n", want: []string{"cloud-init takes text/cloud-config"}},
		{name: "two meanings of ROOT_PUBKEY", elsewhere: []string{"online.TestFetch", "source.TestMedia"}},
		{name: "agents with different sources", elsewhere: []string{"source.TestDelivered", "amiconfig.TestOldNamesOrder"}},
		{name: "names of devices", elsewhere: []string{"source.TestMedia"}},
		{name: "an error page for a value", elsewhere: []string{"amiconfig.TestTraps", "source.TestBadReplies", "delivery/metadata.TestFailuresAreHTML"}},
		{name: "done although it failed", elsewhere: []string{"amiconfig.TestTraps", "amiconfig.TestOldNamesOnce"}},
		{name: "the same instance for another context", elsewhere: []string{"delivery.TestIdentityFollowsContent", "amiconfig.TestOncePerInstance", "lint.TestMediaWithOneIdentifier"}},
		{name: "ps without options", elsewhere: []string{"amiconfig.TestScript"}},
		{name: "the placeholder of a cluster", text: "[cernvm]\nservices=###MASTER_IP_PLACEHOLDER###\n", want: []string{"lint U008"}, elsewhere: []string{"source.TestClusterWorker"}},
		{name: "NUL bytes", text: "[cernvm]\nusers=u:u:p\nkeyboard=a\x00b\n", want: []string{"lint Z002", "mica user u", "mica failed cernvm"}},
		{name: "bytes that are not UTF-8", text: "[cernvm]\nusers=u:u:p\nkeyboard=\xff\n", want: []string{"lint Z002", "mica user u", "mica failed cernvm"}},
		{name: "downloads of the configuration tool", elsewhere: []string{"amiconfig/plugins.TestGolden"}},
		{name: "an empty value removes", text: "[cernvm]\norganisations=\nusers=u:u:p\n", want: []string{"original cernvm.organisations=$", "mica user u"}, elsewhere: []string{"amiconfig.TestTraps"}},
		{name: "words for yes and no", text: "[ucernvm-begin]\ncernvm_path=on\n[ucernvm-end]\n", want: []string{"lint U005", "original block cernvm_path set 1", "mica block cernvm_path=on"}},
		{name: "plugins listed twice", text: "[amiconfig]\nplugins=cernvm\n" + user + "[amiconfig]\nplugins=nss\n", want: []string{"lint I006", "original amiconfig.plugins=nss", "mica plugin nss", "mica warning section [cernvm] has no effect"}, not: []string{"mica user u"}, elsewhere: []string{"amiconfig.TestExtraUserData"}},
		{name: "secrets in logs", elsewhere: []string{"explain.TestSecrets", "lint.TestNoSecrets", "amiconfig.TestApplyUsers", "amiconfig/plugins.TestGolden"}},
		{name: "a colon separates, too", text: "[cernvm]\nusers: u:u:p\nhttp://x/y\n", want: []string{"original cernvm.http=//x/y", "mica user u", "lint I004"}},
		{name: "a proxy that is lost at the second boot", text: "[cernvm]\nproxy=\"http://h:1;DIRECT\"\n", want: []string{"lint C010"}, elsewhere: []string{"amiconfig.TestTraps"}},
		{name: "more than 16384 bytes", text: user + strings.Repeat("# padding\n", 1700), want: []string{"lint Z001", "mica user u"}},
		{name: "a context in gzip", text: zipped(user), want: []string{"lint Z003", "mica user u"}, not: []string{"original cernvm"}},
		{name: "a bomb of gzip", text: zipped(strings.Repeat("x", 8<<20)), want: []string{"unreadable", "mica warning"}},
		{name: "a bomb in layers", text: zipped(zipped(zipped(zipped(user)))), want: []string{"unreadable", "mica warning"}, not: []string{"mica user"}},
		{name: "a bomb in a part", text: mime("amiconfig-user-data\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString([]byte(zipped(strings.Repeat("x", 8<<20)))) + "\n"), want: []string{"lint M"}},
	}
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// reading prints what everybody makes of a context, one thing a line.
func reading(t *testing.T, text string) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(strings.ReplaceAll(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n", "|") + "\n")
	}
	c, err := usercontext.Parse("x", []byte(text))
	if err != nil {
		line("unreadable: %v", err)
	}
	for _, p := range lint.Check(c, lint.Options{CloudInit: true}) {
		line("lint %s %s", p.Rule, p.Text)
	}
	original := c.Original()
	for _, s := range original.Amiconfig.Sections {
		for _, o := range s.Options {
			line("original %s.%s=%s", s.Name, o.Key, o.Value)
		}
	}
	kinds := map[usercontext.OutcomeKind]string{usercontext.Set: "set", usercontext.Cut: "cut", usercontext.Lost: "lost", usercontext.Unseen: "unseen", usercontext.Expands: "expands"}
	for _, s := range original.Block.Settings {
		line("original block %s %s %s", s.Key, kinds[s.Shell.Kind], s.Shell.Value)
	}
	phases := func(before, after bool) string {
		switch {
		case before && after:
			return "before and after"
		case before:
			return "before"
		case after:
			return "after"
		}
		return "never"
	}
	body := func(script []byte) string {
		_, rest, _ := strings.Cut(string(script), "\n")
		return strings.TrimRight(rest, "\n")
	}
	line("original %s", phases(original.Script.Before, original.Script.After))
	line("original script %s", body(original.Script.Text))
	for _, p := range c.CloudInit() {
		verb := "skips"
		if p.Handled {
			verb = "takes"
		}
		line("cloud-init %s %s", verb, p.Type)
	}
	for _, s := range c.Amiconfig().Sections {
		for _, o := range s.Options {
			line("mica %s.%s=%s", s.Name, o.Key, o.Value)
		}
	}
	for key, value := range c.Block().Keys {
		line("mica block %s=%s", key, value)
	}
	script := c.Script()
	line("mica %s", phases(script.Before, script.After))
	line("mica script %s", body(script.Text))
	sim, err := amiconfig.Simulate(t.Context(), []byte(text), amiconfig.Input{})
	if err != nil {
		t.Fatalf("simulating: %v", err)
	}
	for _, p := range sim.Plugins {
		line("mica plugin %s", p.Name)
		if p.Code == amiconfig.CodeFailed {
			line("mica failed %s", p.Name)
		}
	}
	for _, u := range sim.Users {
		line("mica user %s %s", u.Name, u.Password)
	}
	for _, f := range sim.Files {
		line("mica file %s %s", f.Path, f.Preview)
	}
	for _, s := range sim.Services {
		line("mica service %s", s.Name)
	}
	for _, w := range sim.Warnings {
		line("mica warning %s", w)
	}
	return b.String()
}

// TestTraps has every trap once: what the original agents read, what Mica does, and
// what the checker says.
func TestTraps(t *testing.T) {
	for _, trap := range traps() {
		t.Run(trap.name, func(t *testing.T) {
			for _, name := range trap.elsewhere {
				if !testExists(t, name) {
					t.Errorf("there is no test %s", name)
				}
			}
			if trap.text == "" {
				if len(trap.elsewhere) == 0 {
					t.Error("nothing tests it")
				}
				return
			}
			got := reading(t, trap.text)
			lines := strings.Split(got, "\n")
			has := func(want string) bool {
				if whole, exact := strings.CutSuffix(want, "$"); exact {
					return slices.Contains(lines, whole)
				}
				return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) })
			}
			for _, want := range trap.want {
				if !has(want) {
					t.Errorf("no line %q in\n%s", want, got)
				}
			}
			for _, not := range trap.not {
				if has(not) {
					t.Errorf("a line %q in\n%s", not, got)
				}
			}
		})
	}
}

// testExists looks for package.Test below this directory.
func testExists(t *testing.T, name string) bool {
	t.Helper()
	dir, test, _ := strings.Cut(name, ".")
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("\nfunc "+test+"(t *testing.T)")) {
			return true
		}
	}
	return false
}
