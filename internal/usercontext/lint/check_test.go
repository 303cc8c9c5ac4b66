package lint

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext"
)

func check(t testing.TB, text string, o Options) []usercontext.Problem {
	t.Helper()
	c, err := usercontext.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Check(c, o)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func zipped(t testing.TB, s string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func archive(t testing.TB, names ...string) string {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b64(zipped(t, out.String()))
}

func block(lines ...string) string {
	return usercontext.BlockBegin + "\n" + strings.Join(lines, "\n") + "\n" + usercontext.BlockEnd + "\n"
}

func cernvm(lines ...string) string {
	return "[amiconfig]\nplugins=cernvm\n[cernvm]\n" + strings.Join(lines, "\n") + "\n"
}

func multipart(parts ...string) string {
	return "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=CTX\n\n--CTX\n" + strings.Join(parts, "\n--CTX\n") + "\n--CTX--\n"
}

func part(typ, body string) string { return "Content-Type: text/" + typ + "\n\n" + body }

const hash = "$6$salt$" + "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567"

// finding is what a case expects: the rule, its line, and words of the text.
type finding struct {
	rule  string
	line  int
	words string
}

type example struct {
	name, text string
	want       []finding // all of them, notes left out
}

// examples has at least one context for every rule, and every trap of the
// original agents that shows in a context (their names start with a T).
func examples(t testing.TB) []example {
	t.Helper()
	guard := "grep -q amiconfig /proc/1/cmdline || exit 0\n"
	return []example{
		{"clean", "#!/bin/sh.after\n" + guard + "exit 0\n\n" + cernvm("users=u:u:"+hash) + block("cvmfs_branch=x.cern.ch"), nil},
		{"T01 blanks between plugins", "[amiconfig]\nplugins=cernvm squid\n[cernvm]\nshell=/bin/sh\n[squid]\ncache_dir_size=1000\n", nil},
		{"key with another name today", "#cloud-config\napt_update: true\n", []finding{{"Y002", 2, "will drop"}}},
		{"T02 comma between plugins", "[amiconfig]\nplugins=cernvm,rootsshkeys\n[cernvm]\nshell=/bin/sh\n", []finding{{"I003", 2, "commas"}}},
		{"T03 case of a section", "[amiconfig]\nplugins=cernvm\n[CernVM]\nshell=/bin/sh\n", []finding{{"I001", 3, "lower case"}}},
		{"T04 continuation line", cernvm("services=a,", "  b"), []finding{{"I005", 5, "indented"}}},
		{"T05 semicolon behind a blank", cernvm("services=a ;b"), []finding{{"I007", 4, "ends before"}}},
		{"T05 number sign", cernvm("services=a # b"), []finding{{"I007", 4, "does not start a comment"}}},
		{"T06 interpolation", cernvm("keyboard=%(x)s"), []finding{{"I007", 4, "stays as it is"}}},
		{"T07 blank lines", "#!/bin/sh.after\n" + guard + "cat >f <<E\na\n\nb\nE\nexit 0\n", []finding{{"S007", 5, "1 blank lines"}}},
		{"T08 double run", "#!/bin/sh.before\n" + guard + "cat >x <<E\n#!/bin/sh\nE\nln -s a b\nexit 0\n", []finding{{"S003", 1, "ln in line 6"}}},
		{"T09 section in a here-document", "#!/bin/sh.after\n" + guard + "cat >f <<E\n[cernvm]\nusers=x:x:x\nE\nexit 0\n[amiconfig]\nplugins=hostname\n", []finding{{"S007", 4, "[cernvm]"}}},
		{"T10 options of the interpreter", "#!/bin/bash -e\n" + guard + "exit 0\n", []finding{{"S002", 1, "never runs"}}},
		{"T10 trailing blank", "#!/bin/sh \n" + guard + "exit 0\n", []finding{{"S002", 1, "never runs"}}},
		{"T10 carriage returns", "#!/bin/sh\r\n" + strings.TrimSuffix(guard, "\n") + "\r\nexit 0\r\n", []finding{{"S002", 1, "carriage return"}, {"Z002", 1, "carriage returns"}}},
		{"not a shell", "#!/usr/bin/python3\n'/proc/ cmdline amiconfig'\n", []finding{{"S002", 1, "shell scripts only"}}},
		{"T11 no exit", "#!/bin/sh\n" + guard + "touch /a\n" + cernvm("shell=/bin/sh"), []finding{{"S001", 4, "no exit"}}},
		{"T11 exit that is a variable", "#!/bin/sh\n" + guard + "exit_code=1\n" + cernvm("shell=/bin/sh"), []finding{{"S001", 4, "no exit"}}},
		{"T12 open quote", "#!/bin/sh\n" + guard + "echo 'x\nexit 0\n" + cernvm("shell=/bin/sh"), []finding{{"S004", 3, "closing quote"}}},
		{"T13 hashes of other kinds", cernvm("users=u:u:$5$salt$abcdef,v:v:$y$j9T$salt$abcdef"), []finding{{"C002", 4, "user u"}, {"C002", 4, "user v"}}},
		{"malformed hash", cernvm("users=u:u:$6$salt"), []finding{{"C002", 4, "malformed"}}},
		{"locked", cernvm("users=u:u:!"), []finding{{"C002", 4, "locked on Mica"}}},
		{"T14 colon in a password", cernvm("users=u:g:a:b"), []finding{{"C003", 4, "three fields"}}},
		{"users in disorder", cernvm("users=U:g:" + hash + ",u::" + hash + ",u:G:" + hash), []finding{{"C003", 4, "not a user name"}, {"C003", 4, "no group"}, {"C003", 4, "not a group name"}, {"C003", 4, "twice"}}},
		{"T40 empty values", cernvm("organisations=", "users="), []finding{{"C003", 5, "empty"}}},
		{"no password", cernvm("users=u:u:"), []finding{{"C003", 4, "nobody gets to know"}}},
		{"password in clear text", cernvm("users=u:u:secret"), []finding{{"C001", 4, "user u"}}},
		{"T15 equals sign in the environment", cernvm("environment=OPTS=--x=1"), []finding{{"C004", 4, "another"}}},
		{"environment in disorder", cernvm("environment=A,1B=2"), []finding{{"C004", 4, "no \"=\""}, {"C004", 4, "not a variable's name"}}},
		{"T16 names that start alike", cernvm("environment=ROOTSYS=/a,ROOT=/b"), []finding{{"C004", 4, "start alike"}}},
		{"T17 proxy without quotes", block("cvmfs_http_proxy=http://a:1|http://b:1;DIRECT"), []finding{{"U003", 2, "pipeline"}}},
		{"proxy in quotes", block(`cvmfs_http_proxy="http://a:1|http://b:1;DIRECT"`), nil},
		{"T18 blanks in the block", block("cvmfs_server = h"), []finding{{"U002", 2, "blanks"}}},
		{"T19 carriage returns in the block", "[ucernvm-begin]\r\ncvmfs_tag=x\r\n[ucernvm-end]\r\n", []finding{{"U004", 1, "carriage return"}, {"Z002", 1, ""}, {"U004", 3, ""}}},
		{
			"T20 dead keys", "[amiconfig]\nplugins=cernvm\ndisabed_plugins=squid\n[cernvm]\ngroup_profile=x\nconfig_url=http://x/\n" + block("cvmfs_path=cvm4"),
			[]finding{{"I004", 3, "misprint"}, {"I009", 5, ""}, {"I009", 6, ""}, {"U001", 8, "cvmfs_path"}},
		},
		{"T20 sections of other names", "[amiconfig]\nplugins=ldap\n[ldap]\nbase=x\n", []finding{{"I003", 2, "ldap"}, {"I001", 3, "ldap"}}},
		{"T21 second block", block("cvmfs_tag=x") + block("cvmfs_branch=y"), []finding{{"U004", 4, "second block"}}},
		{"T21 end without begin", "[ucernvm-end]\n" + block("cvmfs_tag=x"), []finding{{"U004", 1, "before any begin"}, {"U004", 2, "second"}}},
		{"no end", "[ucernvm-begin]\ncvmfs_tag=x\n[amiconfig]\nplugins=rootsshkeys\n", []finding{{"U004", 1, "no end marker"}}},
		{"T22 no final line end", "[ucernvm-begin]\ncvmfs_tag=x", []finding{{"U004", 1, ""}, {"U002", 2, "no line end"}, {"Z002", 2, "no line end"}}},
		{"T23 cloud-config behind the sections", multipart(part("amiconfig-user-data", cernvm("users=u:u:"+hash)), part("cloud-config", "#cloud-config\nusers:\n  - default")), []finding{{"M003", 16, "users of [cernvm]"}}},
		{"other text behind the sections", multipart(part("amiconfig-user-data", cernvm("shell=/bin/sh")), part("cloud-config", "#cloud-config\nruncmd:\n  - ls")), []finding{{"M003", 16, "and those below"}}},
		{"sections last", multipart(part("cloud-config", "#cloud-config\nusers:\n  - default"), part("amiconfig-user-data", cernvm("shell=/bin/sh"))), nil},
		{"T24 exit grown to the text", "#!/bin/sh\n" + guard + "echo aexit\n" + cernvm("shell=/bin/sh"), []finding{{"S001", 4, "no exit"}}},
		{"T25 encoded parts", multipart("Content-Type: text/ucernvm\nContent-Transfer-Encoding: base64\n\n" + b64(block("cvmfs_tag=x"))), []finding{{"M002", 8, "base64"}, {"U007", 8, "encoded part"}}},
		{"T27 mention of MIME", "#!/bin/sh\n# MIME-Version: 1.0\n" + guard + "exit 0\n", []finding{{"M004", 1, "takes the context for"}}},
		{"MIME that cloud-init does not see", "Content-Type: multipart/mixed; boundary=CTX\n\n--CTX\n" + part("cloud-config", "#cloud-config\n") + "\n--CTX--\n", []finding{{"M004", 1, "does not see"}}},
		{"T28 byte order mark", "\xef\xbb\xbf" + cernvm("shell=/bin/sh"), []finding{{"Z002", 1, "byte order mark"}}},
		{"T29 almost a cloud-config", "# cloud-config\nusers: []\n", []finding{{"Y001", 1, "not exactly"}}},
		{"T29 document start", "---\nusers: []\n", []finding{{"Y001", 1, "---"}}},
		{"T37 placeholder", cernvm("eos-user=###MASTER_IP_PLACEHOLDER###"), []finding{{"U008", 4, ""}}},
		{"T38 compressed", zipped(t, cernvm("shell=/bin/sh")), []finding{{"Z003", 0, "compressed"}}},
		{"T38 NUL", cernvm("shell=/bin/sh", "keyboard=\x00"), []finding{{"Z002", 5, "NUL"}}},
		{"T41 boolean words", block("cernvm_path=on", "resize_rootfs=maybe"), []finding{{"U005", 2, "into a number"}, {"U005", 3, "on or off"}}},
		{"T42 plugins twice", "[amiconfig]\nplugins=cernvm\n[cernvm]\nshell=/bin/sh\n[amiconfig]\nplugins=rootsshkeys\n", []finding{{"I006", 5, "already"}, {"I006", 6, "already"}}},
		{"T44 colon as separator", cernvm("http://x/y"), []finding{{"I004", 4, "http"}}},
		{"T45 proxy lost at the second boot", cernvm(`proxy="http://h:3128;DIRECT"`), []finding{{"C010", 4, "second boot"}}},
		{"proxy in both places", cernvm(`proxy="http://h:3128;DIRECT"`) + block(`cvmfs_http_proxy="http://h:3128;DIRECT"`), nil},
		{"proxy that is none", cernvm("proxy=not a proxy;x") + block("cvmfs_http_proxy=DIRECT"), []finding{{"C007", 4, "not a proxy list"}}},
		{"key that only an original reads", block("cvmfs_pac_urls=http://wpad/wpad.dat"), []finding{{"I009", 2, "no effect on Mica"}}},
		{"unknown key", block("cvmfs_brnach=x", "zzz=1"), []finding{{"U001", 2, "cvmfs_brnach"}, {"U001", 3, "zzz"}}},
		{"archive", block("cernvm_inject=" + archive(t, "../etc/passwd")), []finding{{"U006", 2, "out of the root"}}},
		{"no archive", block("cernvm_inject=aGVsbG8="), []finding{{"U006", 2, "not a gzip"}}},
		{"sound archive", block("cernvm_inject=" + archive(t, "etc/motd")), nil},
		{"unknown section", "[amiconfig]\nplugins=rootsshkeys\n[nobody]\nx=1\n", []finding{{"I002", 3, "nothing reads"}}},
		{"plugin not enabled", "[amiconfig]\nplugins=rootsshkeys\n[hostname]\nhostname=x\n", []finding{{"I002", 3, "not enabled"}}},
		{"unknown plugin", "[amiconfig]\nplugins=cernvn\n", []finding{{"I003", 2, "cernvn"}}},
		{"obsolete plugin", "[amiconfig]\nplugins=rapadminpassword\n", []finding{{"I003", 2, "older images"}}},
		{"unknown option", cernvm("reposotories=sft"), []finding{{"I004", 4, "reposotories"}}},
		{"no separator", cernvm("shell"), []finding{{"I005", 4, "without"}}},
		{"option twice", cernvm("shell=/bin/sh", "shell=/bin/bash"), []finding{{"I006", 5, "line 4"}}},
		{"kinds of values", cernvm("auto_login=perhaps", "shell=bash", "swap_size=lots"), []finding{{"I008", 4, "on or off"}, {"I008", 5, "path"}, {"I008", 6, "size"}}},
		{"lists", cernvm("services=a,,b", "repositories=sft,sft.cern.ch,a/b"), []finding{{"I008", 4, "empty entry"}, {"C005", 5, "twice"}, {"C005", 5, "not a repository's name"}}},
		{"EOS", cernvm("eos-server=root://eos.cern.ch"), []finding{{"C006", 4, "certificate"}, {"C006", 4, "scheme"}}},
		{"command", cernvm("contextualization_command=ls"), []finding{{"C008", 4, "user:command"}}},
		{"icons", cernvm("desktop_icons=A," + b64("[Desktop Entry]\n") + "%B," + b64("nothing") + "%C"), []finding{{"C009", 4, "no line"}, {"C009", 4, "not Name,base64"}}},
		{"broken MIME", "MIME-Version: 1.0\nContent-Type: multipart/mixed\n\nx\n", []finding{{"M001", 1, "no boundary"}, {"M001", 1, "no part"}}},
		{"part of no type", multipart(part("nothing", "x")), []finding{{"M004", 7, "text/nothing"}}},
		{"path in a file name", multipart("Content-Type: text/cloud-config\nContent-Disposition: attachment; filename=\"a/b\"\n\n#cloud-config\n"), []finding{{"M005", 5, "path"}}},
		{"bash under sh", "#!/bin/sh.after\n" + guard + "source /etc/profile\nexit 0\n", []finding{{"S005", 3, "source"}}},
		{"bash under bash", "#!/bin/bash\n" + guard + "source /etc/profile\nexit 0\n", nil},
		{"risks", "#!/bin/sh.after\n" + guard + "curl http://x/ | sh\nchmod 777 /tmp/x\nexit 0\n", []finding{{"S008", 3, "without a look"}, {"S008", 3, "plain http"}, {"S008", 4, "everybody write"}}},
		{"private key", cernvm("x509-cert=" + b64("-----BEGIN RSA PRIVATE KEY-----\n")), []finding{{"C001", 4, "clear text"}, {"X001", 4, "private key"}}},
		{"cloud-config with a tab", "#cloud-config\nusers:\n\t- x\n", []finding{{"Y001", 3, "tabs"}}},
		{"cloud-config with a key twice", "#cloud-config\nusers: []\nusers: []\n", []finding{{"Y001", 3, "already defined"}}},
		{"cloud-config that is a list", "#cloud-config\n- a\n", []finding{{"Y001", 2, "a map"}}},
		{"cloud-config with an unknown key", "#cloud-config\nruncmds: []\n", []finding{{"Y002", 2, "runcmds"}}},
		{"cloud-config with a password", "#cloud-config\npassword: x\n", []finding{{"C001", 2, "password"}}},
		{"too large", "#cloud-config\n#" + strings.Repeat("x", 17000) + "\n", []finding{{"Z001", 0, "EC2"}}},
		{"nobody's text", "hello\n", []finding{{"M004", 1, "no agent"}}},
		{"ignored rules", "# mica:ignore I009 C001\n" + cernvm("users=u:u:p", "config_url=http://x/", "screenres=1"), []finding{{"I008", 7, "resolution"}}},
	}
}

func TestExamples(t *testing.T) {
	for _, tc := range examples(t) {
		t.Run(tc.name, func(t *testing.T) {
			got := slices.DeleteFunc(check(t, tc.text, Options{}), func(p usercontext.Problem) bool { return p.Severity == usercontext.Note })
			left := slices.Clone(got)
			for _, w := range tc.want {
				i := slices.IndexFunc(left, func(p usercontext.Problem) bool {
					return p.Rule == w.rule && p.Line == w.line && strings.Contains(p.Text, w.words)
				})
				if i < 0 {
					t.Errorf("no finding %v", w)
					continue
				}
				left = slices.Delete(left, i, i+1)
			}
			for _, p := range left {
				t.Errorf("unexpected: %v", p)
			}
			if t.Failed() {
				t.Logf("context:\n%s\nfindings: %v", tc.text, got)
			}
		})
	}
}

// TestEveryRuleHasAnExample keeps rule table, examples and code together.
func TestEveryRuleHasAnExample(t *testing.T) {
	shown := map[string]bool{"S006": true} // a note, see TestCloudInit
	for _, tc := range examples(t) {
		for _, f := range tc.want {
			shown[f.rule] = true
		}
	}
	known := map[string]bool{}
	for _, r := range Rules() {
		if known[r.ID] {
			t.Errorf("rule %s is there twice", r.ID)
		}
		known[r.ID] = true
		if !shown[r.ID] && r.ID != "P001" { // which contexts cannot break; see TestMedia
			t.Errorf("rule %s has no example", r.ID)
		}
	}
	for id := range shown {
		if !known[id] {
			t.Errorf("rule %s is not in the table", id)
		}
	}
}

// TestRulesInUse finds codes in the sources that the table lacks.
func TestRulesInUse(t *testing.T) {
	known := map[string]bool{}
	for _, r := range Rules() {
		known[r.ID] = true
	}
	code := regexp.MustCompile(`"([A-Z]00[0-9]|[A-Z]01[0-9])"`)
	for _, pattern := range []string{"*.go", "../*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range code.FindAllStringSubmatch(string(text), -1) {
				if !known[m[1]] {
					t.Errorf("%s: rule %s is not in the table", file, m[1])
				}
			}
		}
	}
}

func TestCloudInit(t *testing.T) {
	text := "#!/bin/sh\nexit 0\n"
	for _, cloudInit := range []bool{false, true} {
		got := check(t, text, Options{CloudInit: cloudInit})
		want := usercontext.Note
		if cloudInit {
			want = usercontext.Warning
		}
		if len(got) != 1 || got[0].Rule != "S006" || got[0].Severity != want {
			t.Errorf("CloudInit %v: %v, want one S006 of severity %v", cloudInit, got, want)
		}
	}
}

func TestTarget(t *testing.T) {
	text := "#cloud-config\n#" + strings.Repeat("x", 20000) + "\n"
	for target, want := range map[string]int{"ec2": 1, "gce": 0, "openstack": 0} {
		if got := check(t, text, Options{Target: target}); len(got) != want {
			t.Errorf("%s: %v, want %d findings", target, got, want)
		}
	}
}

// TestNoSecrets puts a marked secret wherever one can be, and looks for it.
func TestNoSecrets(t *testing.T) {
	const secret = "Tr0ub4dor"
	for _, text := range []string{
		cernvm("users=u:u:" + secret), cernvm("users=u:u:a:" + secret), cernvm("users=" + secret), cernvm("users=u:u:$5$" + secret), cernvm("users=u:u:x," + secret),
		cernvm("users=u:u:x # " + secret), cernvm("users=u:u:x ;" + secret), cernvm("x509-cert=" + secret), cernvm("contextualization_key=id:" + secret),
		"[amiconfig]\nplugins=condor noip\n[condor]\ncondor_secret=" + secret + "\n[noip]\nusername=a\npassword=" + secret + "\nhostname=x\n",
		"#cloud-config\npassword: " + secret + "\nchpasswd: {expire: " + secret + "}\n",
	} {
		for _, p := range check(t, text, Options{}) {
			if strings.Contains(fmt.Sprintf("%+v", p), secret) {
				t.Errorf("context %q: the finding shows the secret: %+v", text, p)
			}
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"abc", "acb", 1}, {"cvmfs_brnach", "cvmfs_branch", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

// TestTraps accounts for every trap of the original agents that is known: it has
// an example here, or it does not show in a context.
func TestTraps(t *testing.T) {
	elsewhere := map[string]string{
		"T26": "what openvpn takes as ca, cert and key: the plugin openvpn accepts all of them",
		"T30": "two meanings of ROOT_PUBKEY: package source reads the one, package online the other",
		"T31": "media that only one agent reads: package delivery writes both trees",
		"T32": "device names that amiconfig does not look at: package source looks at all",
		"T33": "a metadata service's error page as a key: package source",
		"T34": "a failed first run counts as done: package amiconfig",
		"T35": "a constant instance identifier: package delivery",
		"T36": "a guard that needs procps: package amiconfig",
		"T39": "leftovers of getopts in a program that Mica does not have",
		"T43": "secrets in logs: TestNoSecrets here and in package explain",
	}
	shown := map[string]bool{}
	for _, e := range examples(t) {
		if e.name[0] == 'T' && e.name[1] >= '0' && e.name[1] <= '9' {
			shown[e.name[:3]] = true
		}
	}
	for n := 1; n <= 45; n++ {
		id := fmt.Sprintf("T%02d", n)
		if _, named := elsewhere[id]; !shown[id] && !named {
			t.Errorf("trap %s has no example", id)
		}
	}
}

// TestLargeInputs checks that nothing takes quadratic time.
func TestLargeInputs(t *testing.T) {
	tier.Full(t)
	many := func(line func(i int) string) string {
		var out strings.Builder
		for i := 0; out.Len() < usercontext.MaxSize-100; i++ {
			out.WriteString(line(i))
		}
		return out.String()
	}
	for name, text := range map[string]string{
		"sections":    many(func(i int) string { return fmt.Sprintf("[s%d]\n", i) }),
		"options":     "[cernvm]\n" + many(func(i int) string { return fmt.Sprintf("k%d=1\n", i) }),
		"environment": "[cernvm]\nenvironment=" + many(func(i int) string { return fmt.Sprintf("v%d=1,", i) }) + "\n",
		"keys":        "[ucernvm-begin]\n" + many(func(i int) string { return fmt.Sprintf("k%d=1\n", i) }),
		"blocks":      many(func(int) string { return "[ucernvm-begin]\n" }),
	} {
		start := time.Now()
		check(t, text, Options{})
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
}

func BenchmarkCheck16KiB(b *testing.B) {
	text := "#!/bin/sh.after\n" + strings.Repeat("echo \"line\" >> /var/log/lines\n", 480) + "exit 0\n\n" + cernvm("users=u:u:"+hash) + block("cvmfs_branch=x.cern.ch")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		check(b, text, Options{})
	}
}

func FuzzCheck(f *testing.F) {
	for _, e := range examples(f) {
		f.Add([]byte(e.text))
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		c, _ := usercontext.Parse("fuzz", data)
		Check(c, Options{})
	})
}
