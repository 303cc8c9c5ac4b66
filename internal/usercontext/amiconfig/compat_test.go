package amiconfig

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// old runs one of the old names over a tree.
func old(t *testing.T, dir string, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	p := program{
		out: &o, err: &e, env: func(name string) string { return env[name] }, dir: dir, consoles: func() []string { return nil },
		open: func(options guest.Options) (*guest.Root, error) {
			if options.Live || options.Dir != dir {
				t.Errorf("opened %+v, want the tree only", options)
			}
			if options.Runner != nil {
				options.Runner = shellOnly{t, dir}
			}
			options.Owners, options.Volatile = false, true
			if _, ok := options.HTTP.(*http.Client); ok {
				options.HTTP = nil
			}
			return guest.Open(options)
		},
	}
	code = p.main(t.Context(), args)
	return code, o.String(), e.String()
}

// Options, exit codes and output of the original programs.
func TestOldNames(t *testing.T) {
	const context = "#!/bin/sh\necho ran >>f\nexit 0\n[amiconfig]\nplugins=cernvm\n[cernvm]\nusers=u:u:p\n[hepix]\ncontext=../x\n"
	dir := tree(t, map[string]string{"mnt/.rw/context/user-data": context})
	empty := tree(t, nil)
	other := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(other, []byte("[cernvm]\nusers=broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		dir, args string
		env       map[string]string
		code      int
		out, err  string
	}{
		{dir, "amiconfig.sh", map[string]string{"AMILOGECHO": "1"}, 2, ":: Invalid mode: must be either user or hepix\n", ""},
		{dir, "amiconfig.sh other --force", map[string]string{"AMILOGECHO": "0"}, 2, "", ""},
		{empty, "amiconfig.sh user", map[string]string{"AMILOGECHO": "1"}, 1, ":: No user data found\n", ""},
		{dir, "amiconfig -p", nil, 0, "", ""},
		{empty, "amiconfig --probe", nil, 1, "", ""},
		{dir, "amiconfig --nonsense", nil, 2, "", "Usage: amiconfig [options]\n\namiconfig: error: no such option: --nonsense\n"},
		{dir, "amiconfig -c /nonexistent/config", nil, 1, "", "does not exist"},
		{dir, "amiconfig -f", nil, 2, "", "Usage: amiconfig [options]\n\namiconfig: error: -f option requires an argument\n"},
		{dir, "amiconfig -d -f hostname,rootsshkeys", nil, 0, "", ""},
		{dir, "amiconfig", map[string]string{"AMICONFIG_LOCAL_USER_DATA": other}, 1, "", "instead of user:group:password"},
		{dir, "amiconfig", map[string]string{"AMICONFIG_CONTEXT_URL": "file:" + filepath.Dir(other)}, 1, "", "instead of user:group:password"},
		{dir, "amiconfig -f hepix", nil, 1, "", "not the name of an archive"},
		{dir, "/usr/sbin/amiconfig.sh user --force", nil, 0, "", ""},
		{dir, "amiconfig.sh user", nil, 0, "", ""}, // done before
		{dir, "amiconfig.sh --force user", nil, 0, "", ""},
		{dir, "amiconfig.sh hepix", nil, 0, "", ""},
	}
	for _, test := range tests {
		code, out, errs := old(t, test.dir, test.env, strings.Fields(test.args)...)
		if code != test.code || out != test.out || !strings.Contains(errs, test.err) || test.err == "" && errs != "" {
			t.Errorf("%s = %d, %q, %q, want %d, %q, %q", test.args, code, out, errs, test.code, test.out, test.err)
		}
	}
	if got := read(t, dir, "f"); got != "ran\nran\n" {
		t.Errorf("the script ran %q, want twice: it was forced twice", got)
	}
	for _, marker := range []string{"var/lib/amiconfig/user.done", "var/lib/amiconfig/hepix.done"} {
		read(t, dir, marker)
	}
}

func TestApplyCommand(t *testing.T) {
	dir := tree(t, map[string]string{"mnt/.rw/context/user-data": "[cernvm]\nusers=u:u:topsecret\nservices=nosuch\n"})
	code, out, errs := old(t, dir, nil, "apply", "--root", dir, "--dry-run")
	if code != 0 || !strings.Contains(out, `"name": "u"`) || strings.Contains(out, "topsecret") || errs != "" {
		t.Errorf("apply --dry-run = %d, %q, %q", code, out, errs)
	}
	if strings.Contains(read(t, dir, "etc/passwd"), "u:x:") {
		t.Error("the dry run made a user")
	}
	code, out, errs = old(t, dir, nil, "mica-guest", "apply", "--root="+dir)
	if code != 0 || !strings.Contains(out, "plugin cernvm: done") || errs != "" {
		t.Errorf("apply = %d, %q, %q", code, out, errs)
	}
	code, out, _ = old(t, dir, nil, "apply", "--root", dir, "--json")
	if code != 0 || !strings.Contains(out, `"first": false`) {
		t.Errorf("apply --json again = %d, %q", code, out)
	}
	for _, args := range []string{"apply --nonsense", "apply extra"} {
		if code, _, errs := old(t, dir, nil, strings.Fields(args)...); code != 2 || errs == "" {
			t.Errorf("%s = %d, %q, want 2", args, code, errs)
		}
	}
	if code, _, errs := old(t, dir, nil, "apply", "--root", dir, "--context", "/nonexistent"); code != 1 || errs == "" {
		t.Errorf("apply of a missing file = %d, %q, want 1", code, errs)
	}
}
