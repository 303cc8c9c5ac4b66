package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

// install writes files below a new directory and returns it.
func install(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// value reads one parameter of a configuration with a single file.
func value(t testing.TB, text, name string) (string, error) {
	t.Helper()
	dir := install(t, map[string]string{"default.conf": text + "\nCVMFS_SERVER_URL=http://s\n"})
	c, err := Read("sw.example.org", Options{Dir: dir, PID: 4711, Env: func(n string) string {
		return map[string]string{"HOME": "/root", "BLANKS": "a b"}[n]
	}})
	if err != nil {
		return "", err
	}
	v, _ := c.Lookup(name)
	return v.Value, nil
}

func TestLanguage(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`X=a`, "a"},
		{`X="a b"  # comment`, "a b"},
		{`X='$HOME "q"'`, `$HOME "q"`},
		{`X=a\ b`, "a b"},
		{`X="a\"b\$c\d"`, `a"b$c\d`},
		{"X=a\\\nb", "ab"},
		{`X="http://a/@fqrn@;http://b#c"`, "http://a/@fqrn@;http://b#c"},
		{`export X=a`, "a"},
		{`readonly X=a`, "a"},
		{`A=1 X=$A`, "1"},
		{`A=1; X=$A$A`, "11"},
		{`X=$HOME/x`, "/root/x"},
		{`X=${HOME}y`, "/rooty"},
		{`X=$NONE`, ""},
		{`X=${NONE:-d}`, "d"},
		{`X=${NONE-d}`, "d"},
		{`A=; X=${A-d}.${A:-e}`, ".e"},
		{`X=${HOME:+set}${NONE:+set}`, "set"},
		{`X=a; X+=b`, "ab"},
		{`X=$CVMFS_FQRN`, "sw.example.org"},
		{`X=$BLANKS`, "a b"},
		{`if [ "$NONE" = "" ]; then X=a; else X=b; fi`, "a"},
		{`if [ "x$NONE" != "x" ]; then X=a; elif [ -n "$HOME" ]; then X=b; else X=c; fi`, "b"},
		{`if [ -z $NONE ] || [ $NONE -lt 5 ]; then X=a; fi`, "a"},
		{`N=7; if [ -z $N ] || [ $N -lt 5 ]; then X=a; else X=b; fi`, "b"},
		{`if ! [ a = b ] && test c; then X=a; fi`, "a"},
		{`X=a; if [ ! -z "$HOME" ]; then X=b; fi`, "b"},
		{`if [ "$(($$ % 2))" == 1 ]; then X=odd; else X=even; fi`, "odd"},
		{`A=4; X=$(( (A + 2) * 3 - 10 / 5 ))`, "16"},
		{`X=a; if true; then return; fi; X=b`, "a"},
		{`X=a; false && X=b`, "a"},
		{`if [ -d / ]; then X=dir; fi`, "dir"},
		{`{ X=a; }`, "a"},
		// A word that divides makes a test of three words out of one.
		{`if [ $BLANKS = "" ]; then X=a; fi; X=`, "!"},
	} {
		got, err := value(t, test.text, "X")
		if test.want == "!" {
			if !errors.Is(err, ErrSyntax) {
				t.Errorf("%s: %q, %v, want %v", test.text, got, err, ErrSyntax)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%s: X = %q, %v, want %q", test.text, got, err, test.want)
		}
	}
}

// Whatever would take a shell is an error that says where it is.
func TestNothingIsRun(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	for _, text := range []string{
		"X=$(touch MARK)", "X=`touch MARK`", "touch MARK", "X=1 touch MARK", "eval touch MARK", "eval X=1", "echo a > MARK", "touch MARK &",
		"true | touch MARK", "X=$(( $(touch MARK) ))", "X=<(touch MARK)", "f() { touch MARK; }", "for i in 1; do X=$i; done",
		"while true; do X=1; done", "case a in a) X=1;; esac", "(X=1)", "X=(a b)", "X=${HOME%/}", "X=${#HOME}", "X=$'a'", `X=$"a"`,
		"local X=1", "[[ a == b ]]", "unset X", "trap x EXIT", ". /nonesuch", "X=$1", "X=$?", "X=$((1/0))", "X=$((a b))", "[ a -foo b ]",
		"if [ a ]; then", `X="unclosed`, "exec X", "cd /", "set -e", "X=$(<MARK)", "X=$((X++))", "X=$((1 << 70))", "[ a", "export -p",
	} {
		got, err := value(t, "\n\n"+strings.ReplaceAll(text, "MARK", mark), "X")
		if !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: X = %q, %v, want %v", text, got, err, ErrSyntax)
		} else if !strings.Contains(err.Error(), "default.conf:") {
			t.Errorf("%s: error %q does not say where", text, err)
		}
	}
	if _, err := os.Stat(mark); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was run: %v", err)
	}
}

func TestBounds(t *testing.T) {
	double := "A=aaaaaaaaaa\n" + strings.Repeat("A=$A$A\n", 1000)
	for name, files := range map[string]map[string]string{
		"value":      {"default.conf": double},
		"quoted":     {"default.conf": strings.ReplaceAll(double, "$A$A", `"$A$A"`)},
		"file":       {"default.conf": strings.Repeat("#", maxFile+1)},
		"itself":     {"default.conf": ". default.conf"},
		"many":       {"default.conf": strings.Repeat(". x\n", maxFiles+1), "x": "X=1"},
		"each other": {"default.conf": ". a", "a": ". b\n. b", "b": ". a\n. a"},
	} {
		start := time.Now()
		if _, err := Read("sw.example.org", Options{Dir: install(t, files)}); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: error %v, want %v", name, err, ErrSyntax)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// The order of the files, with the one that wins last.
func TestOrder(t *testing.T) {
	mnt := t.TempDir()
	files := []string{
		"default.conf", "default.d/10-a.conf", "default.d/20-b.conf", "REPO/default.conf", "default.local",
		"REPO/domain.d/example.org.conf", "domain.d/example.org.conf", "domain.d/example.org.local",
		"REPO/config.d/sw.example.org.conf", "config.d/sw.example.org.conf", "config.d/sw.example.org.local",
	}
	all := map[string]string{"default.d/30-c.notconf": "CVMFS_SEEN=wrong"}
	repo := filepath.Join(mnt, "config.example.org", "etc", "cvmfs")
	for i, f := range files {
		text := fmt.Sprintf("CVMFS_SEEN=\"$CVMFS_SEEN %d\"\nCVMFS_LAST=%d\n", i, i)
		if i == 0 {
			text += "CVMFS_MOUNT_DIR=" + mnt + "\nCVMFS_CONFIG_REPOSITORY=config.example.org\nCVMFS_SERVER_URL=http://a;\n"
		}
		if inside, ok := strings.CutPrefix(f, "REPO/"); ok {
			f = filepath.Join(repo, inside)
			if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		all[f] = text
	}
	all["default.local"] += "CVMFS_CONFIG_REPOSITORY=other.example.org\n"
	dir := install(t, all)
	c, err := Read("sw.example.org", Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := c.Lookup("CVMFS_SEEN"); v.Value != " 0 1 2 3 4 5 6 7 8 9 10" {
		t.Errorf("files were read in the order %q", v.Value)
	}
	if v, _ := c.Lookup("CVMFS_LAST"); v.Value != "10" || v.Origin != filepath.Join(dir, "config.d/sw.example.org.local")+":2" {
		t.Errorf("CVMFS_LAST = %+v", v)
	}
	if v, _ := c.Lookup("CVMFS_CONFIG_REPOSITORY"); v.Value != "config.example.org" || len(c.Warnings) != 1 {
		t.Errorf("CVMFS_CONFIG_REPOSITORY = %+v, warnings %q; it is fixed after default.d", v, c.Warnings)
	}
	// The configuration repository itself is not configured by itself.
	c, err = Read("config.example.org", Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := c.Lookup("CVMFS_SEEN"); v.Value != " 0 1 2 4 6 7" {
		t.Errorf("of the configuration repository: %q", v.Value)
	}
}

func TestMissingConfigRepository(t *testing.T) {
	files := map[string]string{"default.conf": "CVMFS_MOUNT_DIR=/nonesuch\nCVMFS_CONFIG_REPOSITORY=config.example.org\nCVMFS_SERVER_URL=http://a\n"}
	c, err := Read("sw.example.org", Options{Dir: install(t, files)})
	if err != nil || len(c.Warnings) != 1 {
		t.Errorf("warnings %q, %v, want one", c.Warnings, err)
	}
	files["default.conf"] += "CVMFS_CONFIG_REPO_REQUIRED=yes\n"
	if _, err := Read("sw.example.org", Options{Dir: install(t, files)}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a required one: error %v", err)
	}
}

// A variable that a file read in sets counts if the outer file assigns it too.
func TestFilesReadIn(t *testing.T) {
	dir := install(t, map[string]string{
		"default.conf":              "CVMFS_SERVER_URL=http://a\nCVMFS_HTTP_PROXY=DIRECT\n",
		"common.conf":               "if [ \"$CVMFS_HTTP_PROXY\" = DIRECT ]; then\n  CVMFS_USE_CDN=yes\nfi\nCVMFS_OTHER=1\nreturn\nCVMFS_USE_CDN=no\n",
		"domain.d/example.org.conf": "CVMFS_USE_CDN=\"$CVMFS_USE_CDN\"\n. ../common.conf\nif [ \"$CVMFS_USE_CDN$CVMFS_OTHER\" = yes1 ]; then CVMFS_SERVER_URL=http://cdn; fi\nif false; then CVMFS_NEVER=1; fi\n",
	})
	c, err := Read("sw.example.org", Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := c.Lookup("CVMFS_SERVER_URL"); v.Value != "http://cdn" {
		t.Errorf("CVMFS_SERVER_URL = %+v", v)
	}
	if v, _ := c.Lookup("CVMFS_USE_CDN"); v.Value != "yes" || v.Origin != filepath.Join(dir, "common.conf")+":2" {
		t.Errorf("CVMFS_USE_CDN = %+v", v)
	}
	for _, name := range []string{"CVMFS_OTHER", "CVMFS_NEVER"} {
		if v, ok := c.Lookup(name); ok {
			t.Errorf("%s = %+v, want it unset", name, v)
		}
	}
}

func TestKnown(t *testing.T) {
	empty := t.TempDir()
	for _, test := range []struct {
		name    string
		servers int
		first   string
		keys    int
		geo     bool
	}{
		{"cernvm-prod.cern.ch", 8, "http://s1cern-cvmfs.openhtc.io/cvmfs/cernvm-prod.cern.ch", 3, true},
		{"cernvm-four.cern.ch", 8, "http://s1cern-cvmfs.openhtc.io/cvmfs/cernvm-four.cern.ch", 3, true},
		{"cernvm-sl7.cern.ch", 1, "http://hepvm.cern.ch/cvmfs/cernvm-sl7.cern.ch", 1, false},
		{"cernvm-devel.cern.ch", 1, "http://hepvm.cern.ch/cvmfs/cernvm-devel.cern.ch", 1, false},
		{"cernvm-testing.cern.ch", 1, "http://hepvm.cern.ch/cvmfs/cernvm-testing.cern.ch", 1, false},
		{"dteam.egi.eu", 5, "http://s1nikhef-cvmfs.openhtc.io/cvmfs/dteam.egi.eu", 1, true},
		{"oasis.opensciencegrid.org", 7, "http://s1nikhef-cvmfs.openhtc.io/cvmfs/oasis.opensciencegrid.org", 1, true},
		{"ilc.desy.de", 3, "http://s1desy-cvmfs.openhtc.io/cvmfs/ilc.desy.de", 2, false},
		{"software.eessi.io", 2, "http://aws-eu-central-s1.eessi.science/cvmfs/software.eessi.io", 1, true},
	} {
		c, err := Read(test.name, Options{Dir: empty})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		r, err := c.Repository()
		if err != nil || !c.Known {
			t.Errorf("%s: known %v, %v", test.name, c.Known, err)
			continue
		}
		if len(r.Servers) != test.servers || r.Servers[0] != test.first || len(r.Keys) != test.keys || r.GeoOrder != test.geo || r.Proxies != "DIRECT" {
			t.Errorf("%s: servers %q, %d keys, by place %v, proxies %q", test.name, r.Servers, len(r.Keys), r.GeoOrder, r.Proxies)
		}
	}
	// Behind a proxy the servers themselves are asked, not the delivery network.
	c, err := Read("atlas.cern.ch", Options{Dir: install(t, map[string]string{"default.local": "CVMFS_HTTP_PROXY=http://squid:3128"})})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Repository(); err != nil || r.Servers[0] != "http://cvmfs-stratum-one.cern.ch:8000/cvmfs/atlas.cern.ch" || r.Proxies != "http://squid:3128" {
		t.Errorf("behind a proxy: %q through %q, %v", r.Servers, r.Proxies, err)
	}
	// A key of CERN's as published by others.
	if k := mustRead(t, "atlas.cern.ch", empty).Keys[0]; k.Fingerprint != "56d801f7d6b756433a2dd8493001d4abcdba810bf59369464fd7ab9325add74b" {
		t.Errorf("key %s has the fingerprint %s", k.File, k.Fingerprint)
	}
	if _, err := must(t, "sw.example.org", empty).Repository(); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown repository: error %v, want %v", err, ErrUnknown)
	}
	for _, name := range []string{"cern", "../x.y", "", "a b.c"} {
		if _, err := Read(name, Options{Dir: empty}); err == nil {
			t.Errorf("Read(%q) succeeded", name)
		}
	}
}

func must(t testing.TB, name, dir string) *Config {
	t.Helper()
	c, err := Read(name, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustRead(t testing.TB, name, dir string) Repository {
	t.Helper()
	r, err := must(t, name, dir).Repository()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Installed files that name a server leave the table out, whole.
func TestFilesWinOverTable(t *testing.T) {
	key, err := os.ReadFile(cvmfstest.Data(t, "small.peer.example.pub"))
	if err != nil {
		t.Fatal(err)
	}
	dir := install(t, map[string]string{"keys/mine.pub": string(key), "keys/note.txt": "x"})
	text := "CVMFS_SERVER_URL='http://mirror/cvmfs/@fqrn@, http://other/@org@/ ;'\nCVMFS_KEYS_DIR=" + dir + "/keys\n"
	if err := os.WriteFile(filepath.Join(dir, "default.local"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := must(t, "atlas.cern.ch", dir)
	r, err := c.Repository()
	if err != nil || c.Known {
		t.Fatalf("known %v, %v", c.Known, err)
	}
	if diff := cmp.Diff([]string{"http://mirror/cvmfs/atlas.cern.ch", "http://other/atlas"}, r.Servers); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
	if len(r.Keys) != 1 || r.Keys[0].File != dir+"/keys/mine.pub" || r.GeoOrder || r.Proxies != "" {
		t.Errorf("repository %+v", r)
	}
	// CVMFS_PUBLIC_KEY wins over CVMFS_KEYS_DIR, and has to be there.
	if err := os.WriteFile(filepath.Join(dir, "default.local"), []byte(text+"CVMFS_PUBLIC_KEY="+dir+"/keys/mine.pub:/nonesuch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := must(t, "atlas.cern.ch", dir).Repository(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing key: error %v", err)
	}
	// The files behind the table in the order win over it.
	dir = install(t, map[string]string{"domain.d/cern.ch.local": "CVMFS_USE_GEOAPI=no", "default.conf": "CVMFS_KEYS_DIR=/etc/cvmfs/keys\nCVMFS_USE_CDN=no"})
	if r := mustRead(t, "atlas.cern.ch", dir); r.GeoOrder || len(r.Keys) != 3 || !strings.Contains(r.Servers[0], "stratum-one") {
		t.Errorf("by place %v, %d keys, servers %q", r.GeoOrder, len(r.Keys), r.Servers)
	}
}

func TestMeaning(t *testing.T) {
	hash := strings.Repeat("ab", 20)
	dir := install(t, map[string]string{"default.local": `
CVMFS_SERVER_URL=http://a
CVMFS_HTTP_PROXY="http://p:1|q:2;DIRECT"
CVMFS_FALLBACK_PROXY=http://f:3
CVMFS_PAC_URLS="http://wpad/wpad.dat; auto"
CVMFS_USE_GEOAPI=YES CVMFS_FOLLOW_REDIRECTS=on CVMFS_PROXY_SHARD=1 CVMFS_FAILOVER_INDEFINITELY=True
CVMFS_MAX_SERVERS=3 CVMFS_TIMEOUT=7 CVMFS_TIMEOUT_DIRECT=8 CVMFS_MAX_RETRIES=0
CVMFS_BACKOFF_INIT=3 CVMFS_BACKOFF_MAX=9 CVMFS_PROXY_RESET_AFTER=0 CVMFS_HOST_RESET_AFTER=60
CVMFS_DNS_TIMEOUT=2 CVMFS_DNS_RETRIES=4 CVMFS_LOW_SPEED_LIMIT=512 CVMFS_MAX_IPADDR_PER_PROXY=2
CVMFS_IPFAMILY_PREFER=6 CVMFS_DNS_SERVER=192.0.2.1 CVMFS_PROXY_TEMPLATE=here
CVMFS_CACHE_BASE=/var/lib/cvmfs CVMFS_SHARED_CACHE=yes CVMFS_QUOTA_LIMIT=2000
CVMFS_NFILES=65536 CVMFS_CHECK_PERMISSIONS=no CVMFS_HIDE_MAGIC_XATTRS=no CVMFS_INSTRUMENT_FUSE=yes
CVMFS_REPOSITORY_TAG=stable CVMFS_ROOT_HASH=` + hash})
	h, err := cvmfs.ParseHash(hash)
	if err != nil {
		t.Fatal(err)
	}
	want := Repository{
		Name: "sw.example.org", Servers: []string{"http://a"}, Proxies: "http://p:1|q:2;DIRECT", FallbackProxies: "http://f:3",
		PACURLs: []string{"http://wpad/wpad.dat", "auto"}, GeoOrder: true, GeoName: "here", MaxServers: 3, FollowRedirects: true,
		ShardProxies: true, Indefinite: true, Timeout: 7 * time.Second, TimeoutDirect: 8 * time.Second, Backoff: 3 * time.Second,
		BackoffMax: 9 * time.Second, HostResetAfter: time.Minute, DNSTimeout: 2 * time.Second, DNSRetries: 4, LowSpeed: 512,
		AddressesPerProxy: 2, PreferIPv6: true, Nameserver: "192.0.2.1", CacheDir: "/var/lib/cvmfs/shared", Quota: 2000 << 20,
		Tag: "stable", RootHash: h, Files: 65536, Unchecked: true, MagicListed: ListedEverywhere, Timed: true,
	}
	if diff := cmp.Diff(want, mustRead(t, "sw.example.org", dir)); diff != "" {
		t.Errorf("repository (-want +got):\n%s", diff)
	}
	for _, text := range []string{
		"CVMFS_TIMEOUT=soon", "CVMFS_TIMEOUT=-1", "CVMFS_USE_GEOAPI=maybe", "CVMFS_QUOTA_LIMIT=much", "CVMFS_ROOT_HASH=xyz",
		"CVMFS_SERVER_URL=ftp://a", "CVMFS_SERVER_URL=a", "CVMFS_IPFAMILY_PREFER=5", "CVMFS_NFILES=all", "CVMFS_MAGIC_XATTRS_VISIBILITY=often", "CVMFS_CACHE_BASE=/a CVMFS_CACHE_DIR=/b",
	} {
		dir := install(t, map[string]string{"default.conf": "CVMFS_SERVER_URL=http://a\n" + text})
		if _, err := must(t, "sw.example.org", dir).Repository(); !errors.Is(err, ErrValue) || !strings.Contains(err.Error(), "default.conf:2") {
			t.Errorf("%s: error %v, want %v with its line", text, err, ErrValue)
		}
	}
	for text, want := range map[string]Listing{
		"": ListedAsUsual, "CVMFS_HIDE_MAGIC_XATTRS=yes": ListedNever, "CVMFS_MAGIC_XATTRS_VISIBILITY=RootOnly": ListedOnRoot,
		"CVMFS_HIDE_MAGIC_XATTRS=yes CVMFS_MAGIC_XATTRS_VISIBILITY=always": ListedEverywhere,
	} {
		dir := install(t, map[string]string{"default.conf": "CVMFS_SERVER_URL=http://a\n" + text})
		if r := mustRead(t, "sw.example.org", dir); r.MagicListed != want || r.Unchecked {
			t.Errorf("%q: attributes are listed %q, want %q; modes are unchecked: %v", text, r.MagicListed, want, r.Unchecked)
		}
	}
	for text, want := range map[string]int64{"-1": 0, "0": 0, "10": 10 << 20} {
		dir := install(t, map[string]string{"default.conf": "CVMFS_SERVER_URL=http://a\nCVMFS_QUOTA_LIMIT=" + text})
		if r := mustRead(t, "sw.example.org", dir); r.Quota != want {
			t.Errorf("CVMFS_QUOTA_LIMIT=%s: %d bytes, want %d", text, r.Quota, want)
		}
	}
}

// A device or a pipe in a file's place holds up nobody.
func TestSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "default.conf")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read("sw.example.org", Options{Dir: dir}); err == nil {
		t.Error("a device was read")
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"X=a", `if [ "x$A" = "x" ]; then readonly A=1; fi`, ". ../x", `X="${A:-$B}"`, "X=$((1+2))", "return", "[ a -a b ]", "X=a\\\nb", "X=`x`",
		`CVMFS_SERVER_URL="http://a/@fqrn@;b"`, "CVMFS_QUOTA_LIMIT=-1", "CVMFS_KEYS_DIR=known:keys/cern.ch", "CVMFS_PUBLIC_KEY=known:../known:x",
		"CVMFS_CONFIG_REPOSITORY=../..", "{ { { X=1; }; }; }",
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(filepath.Join(dir, "default.conf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := Read("sw.example.org", Options{Dir: dir})
		if err != nil {
			return
		}
		for _, v := range c.Values() {
			if v.Origin == "" || len(v.Value) > maxValue {
				t.Errorf("%q gives %+v", text, v)
			}
		}
		_, _ = c.Repository()
	})
}
