package launch_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/launch"
)

func TestParseSettings(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       map[string]string
	}{
		{"empty", "", map[string]string{}},
		{"plain", "a=1\nb=2", map[string]string{"a": "1", "b": "2"}},
		{"blanks and CR", "  a \t=  1 \r\n", map[string]string{"a": "1"}},
		{"comment in the first column", "#a=1\nb=2\n", map[string]string{"b": "2"}},
		{"no comment further in", "  #a=1\n", map[string]string{"#a": "1"}},
		{"no trailing comment", "a=1 # one\n", map[string]string{"a": "1 # one"}},
		{"the first equals sign", "a=b=c\n", map[string]string{"a": "b=c"}},
		{"nothing said", "a\n=1\nb=\nc=  \n[d]\n", map[string]string{}},
		{"an empty value erases nothing", "a=1\na=\n", map[string]string{"a": "1"}},
		{"the last counts", "a=1\na=2\n", map[string]string{"a": "2"}},
		{"quotes", "a=\"1 \"\nb='2'\nc='3\"\nd=\"\"\ne=\"\nf=''4''\n", map[string]string{"a": "1 ", "b": "2", "c": "'3\"", "e": "\"", "f": "'4'"}},
		{"no escapes", `a=1\n2` + "\n", map[string]string{"a": `1\n2`}},
	} {
		if diff := cmp.Diff(tc.want, launch.ParseSettings(tc.text)); diff != "" {
			t.Errorf("%s: parseSettings(%q) (-want +got):\n%s", tc.name, tc.text, diff)
		}
	}
}

func TestRecordFormat(t *testing.T) {
	values := map[string]string{
		"name": "x", "userData": "[a]\nb=\\n\r\n", "local/apiPort": "2222", "machine/IDE (0, 0)": "/a b.iso (UUID: 1)", "Z": "first",
	}
	text := launch.FormatRecord(values)
	want := "Z=first\nlocal/apiPort=2222\nmachine/IDE (0, 0)=/a b.iso (UUID: 1)\nname=x\nuserData=[a]\\nb=\\\\n\\r\\n\n"
	if text != want {
		t.Errorf("formatRecord = %q, want %q", text, want)
	}
	if diff := cmp.Diff(values, launch.ParseRecord(text)); diff != "" {
		t.Errorf("parseRecord (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"b": `\x\`, "a": " 1"}, launch.ParseRecord("a= 1\nb=\\x\\\nc=\nno value\n")); diff != "" {
		t.Errorf("parseRecord (-want +got):\n%s", diff)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("name=x\nuserData=a\\nb\\\\\\r\n")
	f.Add("=\n=a\n\\=\\\\\\")
	f.Fuzz(func(t *testing.T, text string) {
		once := launch.ParseRecord(text)
		for key := range once { // a key with a line break cannot come out of a file
			if strings.ContainsAny(key, "=\n") {
				t.Fatalf("key %q", key)
			}
			if strings.Contains(key, "\r") {
				return
			}
		}
		if diff := cmp.Diff(once, launch.ParseRecord(launch.FormatRecord(once))); diff != "" {
			t.Errorf("read, written and read again (-once +again):\n%s", diff)
		}
		launch.ParseSettings(text)
	})
}

func TestFolders(t *testing.T) {
	for _, tc := range []struct {
		system, appdata, base, name string
	}{
		{"linux", "", "/home/me", ".cernvm"},
		{"darwin", "", "/home/me/Library/Application Support", "CernVM"},
		{"windows", "/roaming", "/roaming", "CernVM"},
		{"windows", "", "/home/me/AppData/Roaming", "CernVM"},
	} {
		p := &launch.Program{Getenv: func(name string) string { return map[string]string{"APPDATA": tc.appdata}[name] }}
		p.On(tc.system)
		if base, name := p.Folders("/home/me"); base != tc.base || name != tc.name {
			t.Errorf("on %s: %q and %q, want %q and %q", tc.system, base, name, tc.base, tc.name)
		}
	}
}

// TestRecordIsPrivate looks at what other users may read.
func TestRecordIsPrivate(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	for path, want := range map[string]os.FileMode{
		d.records()[0]: 0o600, d.path(".cernvm"): 0o700, d.path(".cernvm/run"): 0o700, d.record()["local/baseFolder"]: 0o700,
	} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %v", path, info.Mode().Perm(), err, want)
		}
	}
}

// TestRecordForTheOriginal looks for the keys the original goes on with.
func TestRecordForTheOriginal(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	d.write("c.conf", "someKey=some value\ndaemonFlags=3\n")
	d.must("create", "--no-start", "--name", "x", d.path("UD"), d.path("c.conf"))
	got := d.record()
	id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d.records()[0]), "vbsess-"), ".conf")
	for key, want := range map[string]string{
		"name": "x", "uuid": id, "vboxid": id, "initialized": "1", "cpus": "1", "memory": "64", "disk": "64", "apiPort": "22", "flags": "5",
		"executionCap": "100", "cernvmVersion": version, "sharedFolder": d.home, "userData": `[amiconfig]\nplugins=cernvm\n`,
		"local/vmapi_contents": `[amiconfig]\nplugins=cernvm\n`, "local/baseFolder": d.path(".cernvm/run/" + id), "local/apiHost": "127.0.0.1",
		"local/sharedFolderAdded": "1", "someKey": "some value", "daemonFlags": "3", "mica/driver": "virtualbox",
	} {
		if got[key] != want {
			t.Errorf("%s = %q, want %q", key, got[key], want)
		}
	}
	if _, there := got["mica/phase"]; there {
		t.Error("the record is still of a machine being made")
	}
}

// TestStrangeFiles puts into the run folder what is no record.
func TestStrangeFiles(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	files := map[string]string{
		"vbsess-00000000-0000-4000-8000-000000000001.conf": "uuid=00000000-0000-4000-8000-000000000001\n", // no name
		"vbsess-00000000-0000-4000-8000-000000000002.conf": "name=y\n",
		"vbsess-00000000-0000-4000-8000-000000000003.conf": "name=y\nuuid=00000000-0000-4000-8000-000000000001\n", // another's
		"vbsess-...conf": "name=y\nuuid=..\n",
		"vbsess-00000000-0000-4000-8000-000000000004.conf": "",
		"notes.txt": "name=y\n",
	}
	for name, text := range files {
		d.write(".cernvm/run/"+name, text)
	}
	if r := d.must("list"); strings.Count(r.out, "\n") != 1 {
		t.Errorf("list said %q", r.out)
	}
	d.fails(4, "Unable to find", "destroy", "y")
	for name, text := range files {
		if got := d.read(d.path(".cernvm/run/" + name)); got != text {
			t.Errorf("%s was %q, is %q", name, text, got)
		}
	}
	for name := range files { // for the clean-up of the desk
		_ = os.Remove(d.path(".cernvm/run/" + name))
	}
}

// TestDestroyRemovesOnlyItsOwn puts a link in the place of a machine's folder.
func TestDestroyRemovesOnlyItsOwn(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	folder := d.record()["local/baseFolder"]
	elsewhere := filepath.Dir(d.write("elsewhere/file", "precious"))
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, folder); err != nil {
		t.Fatal(err)
	}
	d.must("destroy", "x")
	if got := d.read(filepath.Join(elsewhere, "file")); got != "precious" {
		t.Errorf("the file is %q", got)
	}
}
