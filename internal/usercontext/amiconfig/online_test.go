package amiconfig

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/online"
)

// cernvmOnline imitates the site for one key. It refuses what the original would.
type cernvmOnline struct {
	t        *testing.T
	key      online.Key
	userData string
	down     bool
	asked    int
	uuids    []string
}

func (s *cernvmOnline) Do(r *http.Request) (*http.Response, error) {
	s.asked++
	if s.down {
		return nil, errors.New("no route to host")
	}
	q := r.URL.Query()
	if r.URL.Scheme != "https" || r.URL.Path != "/api/context" || q.Get("ver") == "" {
		s.t.Errorf("asked for %s", r.URL)
	}
	s.uuids = append(s.uuids, q.Get("uuid"))
	text := "VM_CONTEXT_UUID=" + s.key.ID + "\nVM_CONTEXT_NAME=\"Worker\"\nEC2_USER_DATA=" + base64.StdEncoding.EncodeToString([]byte(s.userData)) +
		"\nROOT_PUBKEY=" + base64.StdEncoding.EncodeToString([]byte(testKey+"\n")) + "\n"
	switch {
	case q.Get("context_id") != s.key.ID:
		text = "not-found"
	case q.Get("checksum") != s.key.Checksum():
		text = "invalid-checksum"
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(text))}, nil
}

// withServices runs the context's script, and takes services for started.
type withServices struct{ shellOnly }

func (w withServices) Run(ctx context.Context, c guest.Command) (guest.Result, error) {
	if c.Name == "service" {
		return guest.Result{}, nil
	}
	return w.shellOnly.Run(ctx, c)
}

func openOnline(t *testing.T, dir string, site guest.Doer) *guest.Root {
	t.Helper()
	root, err := guest.Open(guest.Options{Dir: dir, Volatile: true, Runner: withServices{shellOnly{t, dir}}, HTTP: site})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestOnlineContext(t *testing.T) {
	dir := tree(t, map[string]string{"etc/init.d/first": "", "etc/init.d/second": "", "usr/sbin/service": ""})
	site := &cernvmOnline{
		t: t, key: online.Key{ID: "a1b2c3d4", Secret: "s3cret"},
		userData: "#!/bin/sh\necho $AMICONFIG_CONTEXT_URL >where\nexit 0\n[amiconfig]\nplugins=cernvm nss\n[cernvm]\nusers=v:v:p\nservices=second\n[nss]\npasswd=files\n",
	}
	in := Input{UserData: []byte("[cernvm]\nusers=u:u:p\nservices=first\ncontextualization_key=a1b2c3d4:s3cret\n"), InstanceID: "i-1"}

	// The site is down: the machine is not what it should be, and asks again.
	site.down = true
	rep := apply(t, openOnline(t, dir, site), in, Options{})
	if rep.State != stage.Failed || !strings.Contains(rep.Detail, "cernvm-online") || code(rep, "cernvm-online") != CodeMetadata {
		t.Errorf("with the site down: %s, %q, want a failure of cernvm-online", rep.State, rep.Detail)
	}
	if text := rep.Log() + string(rep.JSON()); strings.Contains(text, "s3cret") || !strings.Contains(text, "no route to host") {
		t.Errorf("the report shows the secret, or no reason: %s", text)
	}

	site.down = false
	root := openOnline(t, dir, site)
	rep = apply(t, root, in, Options{})
	if rep.State != stage.Done || rep.First || site.asked != 2 {
		t.Errorf("at the next boot: %s, %q, %v, asked %d times", rep.State, rep.Detail, rep.Warnings, site.asked)
	}
	for _, name := range []string{"u", "v"} {
		if !strings.Contains(read(t, dir, "etc/passwd"), "\n"+name+":x:") {
			t.Errorf("user %s was not made", name)
		}
	}
	if got := read(t, dir, "where"); got != "file:"+onlineRoot+"\n" {
		t.Errorf("the script was told %q", got)
	}
	if got := read(t, dir, "root/.ssh/authorized_keys"); got != testKey+"\n" {
		t.Errorf("authorized_keys = %q, want the key of the fetched context", got)
	}
	if got := read(t, dir, onlineCopy[1:]); got != site.userData {
		t.Errorf("kept %q", got)
	}
	if conf := read(t, dir, onlineConf[1:]); !strings.Contains(conf, "VM_CONTEXT_ID=a1b2c3d4\nVM_CONTEXT_NAME=\"Worker\"\n") || strings.Contains(conf, "s3cret") {
		t.Errorf("online.conf = %q", conf)
	}
	services := func(root *guest.Root) (names []string) {
		for _, a := range root.Actions() {
			if a.Kind == guest.KindService {
				names = append(names, a.Target)
			}
		}
		return names
	}
	if got := services(root); !slices.Equal(got, []string{"second"}) {
		t.Errorf("services %v, want those of the fetched context alone", got)
	}

	// Later boots neither ask nor apply again, but start what it names.
	root = openOnline(t, dir, site)
	rep = apply(t, root, in, Options{})
	if rep.State != stage.Done || site.asked != 2 || len(rep.Scripts) > 0 || code(rep, "nss") != CodeDone {
		t.Errorf("at a later boot: %s, %q, asked %d times, scripts %v", rep.State, rep.Detail, site.asked, rep.Scripts)
	}
	if got := services(root); !slices.Equal(got, []string{"second"}) {
		t.Errorf("at a later boot: services %v", got)
	}

	// A new machine from the same disk asks again, as the same or another one.
	in.InstanceID = "i-2"
	rep = apply(t, openOnline(t, dir, site), in, Options{})
	if !rep.First || site.asked != 3 || !slices.Equal(rep.Users, []string{"u", "v"}) {
		t.Errorf("as another machine: first %v, asked %d times, users %v", rep.First, site.asked, rep.Users)
	}
	if !guest.IsUUID(site.uuids[0]) || site.uuids[0] != site.uuids[1] {
		t.Errorf("asked as %q, want one identifier", site.uuids)
	}
}

func TestOnlineContextRefused(t *testing.T) {
	for key, want := range map[string]string{"a1b2:wrong": "wrong password", "other": "no such context", "../x": "ID of a context"} {
		site := &cernvmOnline{t: t, key: online.Key{ID: "a1b2", Secret: "s3cret"}}
		rep := apply(t, openOnline(t, tree(t, nil), site), Input{UserData: []byte("[cernvm]\nusers=u:u:p\ncontextualization_key=" + key + "\n")}, Options{})
		if rep.State != stage.Failed || !strings.Contains(rep.Log(), want) || strings.Contains(rep.Log(), "wrong\n") {
			t.Errorf("%s: %s, %q, want a failure that says %q", key, rep.State, rep.Log(), want)
		}
		if code(rep, "cernvm") != CodeDone {
			t.Errorf("%s: the machine did not get its own context: %+v", key, rep.Plugins)
		}
	}
}

// What comes from the boot medium is laid over the user data.
func TestExtraUserData(t *testing.T) {
	dir := tree(t, map[string]string{
		"mnt/.rw/context/user-data":       "#!/bin/sh\necho main >ran\nexit 0\n[amiconfig]\nplugins=cernvm\n[cernvm]\nusers=u:u:p\nkeyboard=us",
		"mnt/.rw/context/extra-user-data": "#!/bin/sh\necho extra >>ran\nexit 0\n[amiconfig]\nplugins=nss\n[cernvm]\nkeyboard=de\n[nss]\npasswd=files\n",
	})
	in, err := readInput(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	rep := apply(t, open(t, dir, shellOnly{t, dir}), in, Options{})
	if code(rep, "cernvm") != CodeDone || code(rep, "nss") != CodeDone {
		t.Errorf("plugins %+v, want those of both lists", rep.Plugins)
	}
	if got := read(t, dir, "etc/vconsole.conf"); got != "KEYMAP=de\n" {
		t.Errorf("vconsole.conf = %q, want the extra option to win", got)
	}
	if read(t, dir, "ran") != "main\n" || !slices.ContainsFunc(rep.Warnings, func(w string) bool { return strings.Contains(w, "extra user data is not run") }) {
		t.Errorf("ran %q, warnings %v, want the script of the user data alone", read(t, dir, "ran"), rep.Warnings)
	}
	if got := read(t, dir, "var/lib/amiconfig/2007-12-15/user-data"); !strings.Contains(got, "keyboard=us\n#!/bin/sh\necho extra") {
		t.Errorf("the copy is %q, want a line end between the two", got)
	}
}

// Services start when the script has run, at the first boot, too.
func TestServicesComeLast(t *testing.T) {
	dir := tree(t, map[string]string{"etc/init.d/mine": "", "usr/sbin/service": ""})
	root := open(t, dir, withServices{shellOnly{t, dir}})
	apply(t, root, Input{UserData: []byte("#!/bin/sh\nexit 0\n[cernvm]\nservices=mine\n")}, Options{})
	var order []string
	for _, a := range root.Actions() {
		if a.Kind == guest.KindService || a.Target == "the context's script" {
			order = append(order, a.Target)
		}
	}
	if want := []string{"the context's script", "mine"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

// The platform's further values are where plugins look for them.
func TestMetaValues(t *testing.T) {
	dir := tree(t, map[string]string{
		"mnt/.rw/context/meta.json": `{"instance_id":"i-1","values":{"ami-launch-index":"4","block-device-mapping/ephemeral0":"sdb","../../../etc/x":"y"}}`,
		"dev/sdb":                   "",
	})
	in, err := readInput(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	in.UserData = []byte("[amiconfig]\nplugins=storage\n")
	root := open(t, dir, nil)
	apply(t, root, in, Options{})
	if got := read(t, dir, "var/lib/amiconfig/2007-12-15/meta-data/ami-launch-index"); got != "4" {
		t.Errorf("ami-launch-index = %q", got)
	}
	mounted := slices.ContainsFunc(root.Actions(), func(a guest.Action) bool {
		return a.Kind == guest.KindMount && a.Target == "/ephemeral/0" && a.Detail == "/dev/sdb"
	})
	if !mounted {
		t.Errorf("the disk was not mounted: %v", root.Actions())
	}
	if root.Exists("/etc/x") || root.Exists("/var/etc/x") {
		t.Error("a value was written elsewhere")
	}
}
