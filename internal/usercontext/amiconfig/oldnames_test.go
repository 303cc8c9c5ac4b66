package amiconfig

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/online"
)

// What Python 2.7.18's optparse says to the same arguments.
func TestAmiconfigFlags(t *testing.T) {
	tests := []struct {
		args string
		want flags
		err  string
	}{
		{"", flags{}, ""},
		{"-f", flags{}, "-f option requires an argument"},
		{"--config", flags{}, "--config option requires an argument"},
		{"--nonsense=1", flags{}, "no such option: --nonsense"},
		{"--fo=a,b", flags{only: []string{"a", "b"}}, ""},
		{"-dfa,b", flags{only: []string{"a", "b"}}, ""},
		{"-dpc x", flags{probe: true, config: "x"}, ""},
		{"-c -p", flags{config: "-p"}, ""},
		{"hepix -p", flags{probe: true}, ""},
		{"--probe=1", flags{}, "--probe option does not take a value"},
		{"--=x", flags{}, "ambiguous option: -- (--config, --debug, --force, --help, --probe?)"},
		{"-- -p", flags{}, ""},
		{"-p-", flags{}, "no such option: --"},
		{"--h", flags{help: true}, ""},
		{"-", flags{}, ""},
		{"-x", flags{}, "no such option: -x"},
	}
	for _, test := range tests {
		got, err := parseFlags(strings.Fields(test.args))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !reflect.DeepEqual(got, test.want) || text != test.err {
			t.Errorf("amiconfig %s: %+v, %q, want %+v, %q", test.args, got, text, test.want, test.err)
		}
	}
}

// Which of several contexts the old programs take: the place they are told of, what
// CernVM Online gave, what the boot left, what an earlier run left.
func TestOldNamesOrder(t *testing.T) {
	given := t.TempDir()
	for name, user := range map[string]string{"user-data": "url", "local": "local"} {
		if err := os.WriteFile(filepath.Join(given, name), []byte("[cernvm]\nusers="+user+":users:p\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := map[string]string{
		onlineCopy[1:]:              "[cernvm]\nusers=online:users:p\n",
		"mnt/.rw/context/user-data": "[cernvm]\nusers=boot:users:p\n",
		userDataCopy[1:]:            "[cernvm]\nusers=earlier:users:p\n",
	}
	url, local := "AMICONFIG_CONTEXT_URL", "AMICONFIG_LOCAL_USER_DATA"
	tests := []struct {
		args    string
		env     map[string]string
		without []string
		more    map[string]string
		want    string
	}{
		{"amiconfig", map[string]string{local: given + "/local", url: "file:" + given}, nil, nil, "local"},
		{"amiconfig", map[string]string{local: "relative", url: "file:" + given}, nil, nil, "url"},
		{"amiconfig", map[string]string{url: given}, nil, nil, "url"},
		{"amiconfig.sh user", map[string]string{local: given + "/local", url: "file://" + given}, nil, nil, "url"},
		{"amiconfig.sh user", map[string]string{url: "/nonexistent"}, nil, nil, "online"},
		{"amiconfig.sh user", nil, nil, map[string]string{"etc/sysconfig/amiconfig": "export AMICONFIG_CONTEXT_URL=\"file:" + given + "\"\n"}, "url"},
		{"amiconfig.sh user", nil, nil, nil, "online"},
		{"amiconfig.sh user", nil, []string{onlineCopy[1:]}, nil, "boot"},
		{"amiconfig.sh user", nil, []string{onlineCopy[1:], "mnt/.rw/context/user-data"}, nil, "earlier"},
	}
	for _, test := range tests {
		files := map[string]string{}
		for name, text := range all {
			files[name] = text
		}
		for name, text := range test.more {
			files[name] = text
		}
		for _, name := range test.without {
			delete(files, name)
		}
		dir := tree(t, files)
		if code, _, errs := old(t, dir, test.env, strings.Fields(test.args)...); code != 0 {
			t.Errorf("%s with %v = %d, %q", test.args, test.env, code, errs)
		}
		if passwd := read(t, dir, "etc/passwd"); !strings.Contains(passwd, "\n"+test.want+":x:") {
			t.Errorf("%s with %v: passwd = %q, want user %s", test.args, test.env, passwd, test.want)
		}
	}
}

// The run-once rules: amiconfig.sh has them, amiconfig has none.
func TestOldNamesOnce(t *testing.T) {
	const done = "var/lib/amiconfig/user.done"
	script := "#!/bin/sh\necho ran >>f\nexit 0\n"
	tests := []struct {
		context, args string
		done          bool // before
		code          int
		ran, after    bool
	}{
		{script + "[cernvm]\nusers=u:u:p\n", "amiconfig", false, 0, false, false},
		{script + "[cernvm]\nusers=u:u:p\n", "amiconfig", true, 0, false, true},
		{script + "[cernvm]\nusers=broken\n", "amiconfig.sh user", false, 0, true, true}, // a failure counts as done
		{script, "amiconfig.sh user", true, 0, false, true},
		{script, "amiconfig.sh --force user", true, 0, true, true},
		{script, "amiconfig.sh user hepix -x --force", true, 0, true, true}, // the first word is the mode
		{script, "amiconfig.sh hepix user", false, 0, false, false},
	}
	for _, test := range tests {
		files := map[string]string{"mnt/.rw/context/user-data": test.context}
		if test.done {
			files[done] = ""
		}
		dir := tree(t, files)
		code, out, errs := old(t, dir, nil, strings.Fields(test.args)...)
		_, ranErr := os.Stat(filepath.Join(dir, "f"))
		_, doneErr := os.Stat(filepath.Join(dir, done))
		if code != test.code || (ranErr == nil) != test.ran || (doneErr == nil) != test.after || out != "" {
			t.Errorf("%s, done before %v: code %d, ran %v, done %v, %q, %q; want %+v", test.args, test.done, code, ranErr == nil, doneErr == nil, out, errs, test)
		}
	}
}

func TestContextFromAddress(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/ctx/user-data" {
			t.Errorf("asked for %s", r.URL)
		}
		if asked == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("[cernvm]\nusers=far:users:p\n"))
	}))
	defer server.Close()
	dir := tree(t, map[string]string{"mnt/.rw/context/user-data": "[cernvm]\nusers=boot:users:p\n"})
	var out, errs bytes.Buffer
	env := map[string]string{"AMICONFIG_CONTEXT_URL": server.URL + "/ctx/"}
	p := program{
		out: &out, err: &errs, env: func(name string) string { return env[name] }, dir: dir, consoles: func() []string { return nil },
		open: func(o guest.Options) (*guest.Root, error) {
			o.Owners, o.Volatile = false, true
			return guest.Open(o)
		},
	}
	if code := p.main(t.Context(), []string{"amiconfig"}); code != 0 || asked != 2 {
		t.Errorf("amiconfig = %d, %q, asked %d times", code, errs.String(), asked)
	}
	if got := read(t, dir, customCopy[1:]); got != "[cernvm]\nusers=far:users:p\n" {
		t.Errorf("kept %q", got)
	}
	if fi, err := os.Stat(filepath.Join(dir, customCopy)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("kept as %v, %v, want 0600", fi, err)
	}
	if passwd := read(t, dir, "etc/passwd"); !strings.Contains(passwd, "far:x:") || strings.Contains(passwd, "boot:x:") {
		t.Errorf("passwd = %q", passwd)
	}
	// Over a network that anybody may be on, only https will do; the boot's context
	// is taken instead.
	env["AMICONFIG_CONTEXT_URL"] = "http://192.0.2.1/ctx"
	if code := p.main(t.Context(), []string{"amiconfig"}); code != 0 || !strings.Contains(errs.String(), "no https address") {
		t.Errorf("amiconfig with http = %d, %q", code, errs.String())
	}
}

func TestCernVMOnlineProgram(t *testing.T) {
	site := &cernvmOnline{t: t, key: online.Key{ID: "abcd"}, userData: "[cernvm]\nusers=far:users:p\n"}
	run := func(dir string, args ...string) (int, string) {
		var errs bytes.Buffer
		p := program{
			out: &errs, err: &errs, env: func(string) string { return "" }, dir: dir, consoles: func() []string { return nil },
			open: func(o guest.Options) (*guest.Root, error) {
				o.Owners, o.Volatile, o.Runner = false, true, nil
				if o.HTTP != nil {
					o.HTTP = site
				}
				return guest.Open(o)
			},
		}
		return p.main(t.Context(), append([]string{"/usr/sbin/cernvm-online.sh"}, args...)), errs.String()
	}
	tests := []struct {
		args []string
		conf string
		code int
		made bool
	}{
		{nil, "", 2, false},
		{[]string{"login"}, "", 2, false},
		{[]string{"site"}, "", 0, false}, // nothing to fetch
		{[]string{"site"}, "CERNVM_CONTEXTUALIZATION_KEY=abcd\n", 0, true},
		{[]string{"apply", "abcd"}, "", 0, true},
		{[]string{"apply", "other"}, "", 1, false},
		{[]string{"pair", "12345"}, "", 2, false},
		{[]string{"pair", "123455"}, "", 2, false}, // encrypted, no secret
		{[]string{"pair", "123456"}, "", 1, false}, // the imitation knows no number
	}
	for _, test := range tests {
		dir := tree(t, map[string]string{"etc/cernvm/site.conf": test.conf, "mnt/.rw/context/user-data": "[cernvm]\nusers=boot:users:p\n"})
		code, errs := run(dir, test.args...)
		passwd := read(t, dir, "etc/passwd")
		if code != test.code || strings.Contains(passwd, "far:x:") != test.made || strings.Contains(passwd, "boot:x:") {
			t.Errorf("cernvm-online.sh %v = %d, %q, passwd %q; want %d, user %v", test.args, code, errs, passwd, test.code, test.made)
		}
	}
}
