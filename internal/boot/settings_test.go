package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/boot/cmdline"
	"github.com/micavm/mica/internal/usercontext"
)

func TestResolve(t *testing.T) {
	const image = "cvmfs_repos=os.example.org cvmfs_server=s1.example.org cvmfs_cdn=cdn1.example.org;cdn2.example.org,cdn3.example.org cvmfs_repository_tag=HEAD4 cernvm_path=cvm4"
	cdn := []string{"http://cdn1.example.org/cvmfs/os.example.org", "http://cdn2.example.org/cvmfs/os.example.org", "http://cdn3.example.org/cvmfs/os.example.org"}
	s1 := []string{"http://s1.example.org/cvmfs/os.example.org"}
	base := Settings{Repository: "os.example.org", Servers: cdn, Proxies: "DIRECT", Tag: "HEAD4", Path: "cvm4", Fresh: true}
	with := func(change func(*Settings)) Settings { s := base; change(&s); return s }
	for _, tc := range []struct {
		name string
		cmd  string
		keys usercontext.BootKeys
		pin  Pin
		want Settings
	}{
		{"nothing said", "quiet", usercontext.BootKeys{}, Pin{}, Settings{
			Repository: "cernvm-devel.cern.ch", Servers: []string{"http://hepvm.cern.ch/cvmfs/cernvm-devel.cern.ch"}, Proxies: "DIRECT", Fresh: true,
		}},
		{"image", image, usercontext.BootKeys{}, Pin{}, base},
		{"last word wins", image + " cernvm_path=cvm3 cernvm_path=/cvm5/", usercontext.BootKeys{}, Pin{}, with(func(s *Settings) { s.Path = "cvm5" })},
		{"url beats servers and CDN", image + " cvmfs_url=http://a:8000/cvmfs/os.example.org;http://b/x/@fqrn@", usercontext.BootKeys{}, Pin{}, with(func(s *Settings) {
			s.Servers = []string{"http://a:8000/cvmfs/os.example.org", "http://b/x/os.example.org"}
		})},
		{"proxy of the context switches the CDN off", image, usercontext.BootKeys{HTTPProxy: "http://squid:3128;DIRECT"}, Pin{}, with(func(s *Settings) {
			s.Proxies, s.Servers = "http://squid:3128;DIRECT", s1
		})},
		{"server of the context beats CDN and url", image + " cvmfs_url=http://a/", usercontext.BootKeys{Servers: []string{"s2.example.org", "s3.example.org"}}, Pin{}, with(func(s *Settings) {
			s.Servers = []string{"http://s2.example.org/cvmfs/os.example.org", "http://s3.example.org/cvmfs/os.example.org"}
		})},
		{"CDN of the context beats its proxy's rule", image, usercontext.BootKeys{HTTPProxy: "http://p:1", CDN: []string{"c.example.org"}}, Pin{}, with(func(s *Settings) {
			s.Proxies, s.Servers = "http://p:1", []string{"http://c.example.org/cvmfs/os.example.org"}
		})},
		{"CDN switched off", image, usercontext.BootKeys{NoCDN: true}, Pin{}, with(func(s *Settings) { s.Servers = s1 })},
		{"branch, tag and path of the context", image, usercontext.BootKeys{Branch: "other.example.org", Tag: "v7", Path: "x/y", WaitOnSquid: 5 * time.Second}, Pin{}, Settings{
			Repository: "other.example.org", Proxies: "DIRECT", Tag: "v7", Path: "x/y", Wait: 5 * time.Second, Fresh: true,
			Servers: []string{"http://cdn1.example.org/cvmfs/other.example.org", "http://cdn2.example.org/cvmfs/other.example.org", "http://cdn3.example.org/cvmfs/other.example.org"},
		}},
		{"auto is dropped", image + " cvmfs_proxy=auto;http://p:1|auto|http://q:1;DIRECT", usercontext.BootKeys{}, Pin{}, with(func(s *Settings) { s.Proxies = "http://p:1|http://q:1;DIRECT" })},
		{"auto alone is DIRECT", image + " cvmfs_proxy=auto", usercontext.BootKeys{}, Pin{}, base},
		{"pinned", image, usercontext.BootKeys{Tag: "v9"}, Pin{RootHash: "abc", Tag: "v1"}, with(func(s *Settings) { s.RootHash, s.Tag, s.Fresh = "abc", "v1", false })},
		{"forced tag beats the pin", image, usercontext.BootKeys{}, Pin{RootHash: "abc", Tag: "v1", Force: "v0"}, with(func(s *Settings) { s.Tag = "v0" })},
	} {
		got, _, err := resolve(cmdline.Parse(tc.cmd), tc.keys, tc.pin)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	for _, cmd := range []string{"cvmfs_repos=../x", "cvmfs_repos=a/b", "cvmfs_repos=-x", `cernvm_path=a:b`, `cernvm_path="a,b"`} {
		if got, _, err := resolve(cmdline.Parse(cmd), usercontext.BootKeys{}, Pin{}); err == nil {
			t.Errorf("resolve(%q) = %+v, want an error", cmd, got)
		}
	}
	got, _, err := resolve(cmdline.Parse("cernvm_path=../../../etc/../x"), usercontext.BootKeys{}, Pin{})
	if err != nil || got.Path != "x" {
		t.Errorf("path with dots = %q, %v; want x", got.Path, err)
	}
}

func TestReadPin(t *testing.T) {
	aux := t.TempDir()
	if p, err := readPin(aux); err != nil || p != (Pin{}) {
		t.Errorf("readPin of an empty folder = %+v, %v", p, err)
	}
	for text, want := range map[string]Pin{
		"abc\nHEAD4\n": {RootHash: "abc", Tag: "HEAD4"},
		"abc\n":        {RootHash: "abc"},
		"abc":          {RootHash: "abc"},
		"abc\nx\ny\n":  {RootHash: "abc", Tag: "y"},
	} {
		if err := os.WriteFile(filepath.Join(aux, "cvmfs_snapshot"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := readPin(aux); err != nil || p != want {
			t.Errorf("readPin(%q) = %+v, %v; want %+v", text, p, err, want)
		}
	}
}

func TestQuota(t *testing.T) {
	for size, want := range map[int64]int64{2e9: 1e9, 4e9: 2e9, 5e9: 2e9, 8e9: 2e9, 40e9: 10e9} {
		if got := quota(size); got != want {
			t.Errorf("quota(%d) = %d, want %d", size, got, want)
		}
	}
}

func TestMasterKeys(t *testing.T) {
	dir := t.TempDir()
	put := func(name string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := masterKeys(dir, "os.example.org"); err == nil || remedy(err) == "" {
		t.Errorf("masterKeys without keys = %v, want an error with a remedy", err)
	}
	put("all.pub")
	put("example.org/a.pub")
	put("os.example.org/a.pub")
	put("os.example.org/b.pub")
	for name, want := range map[string][]string{
		"os.example.org":    {"os.example.org/a.pub", "os.example.org/b.pub"},
		"other.example.org": {"example.org/a.pub"},
		"else.where":        {"all.pub"},
	} {
		got, err := masterKeys(dir, name)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("masterKeys(%s): %v (-want +got):\n%s", name, err, diff)
		}
	}
}

func TestUcontext(t *testing.T) {
	c, err := usercontext.Parse("x", []byte("[ucernvm-begin]\nuse_boothd=yes\ncvmfs_http_proxy=\"http://a:1;DIRECT\"\n[ucernvm-end]\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := "_UCONTEXT_CVMFS_HTTP_PROXY=http://a:1;DIRECT\n_UCONTEXT_USE_BOOTHD=1\n"
	if got := string(ucontext(c)); got != want {
		t.Errorf("ucontext = %q, want %q", got, want)
	}
}

func TestWithExtraWins(t *testing.T) {
	c, err := usercontext.Parse("x", []byte("[ucernvm-begin]\ncvmfs_tag=v1\ncernvm_path=a\n[ucernvm-end]\n"))
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := withExtra(c.Block(), []byte("[ucernvm-begin]\ncvmfs_tag=v2\n[ucernvm-end]\n")).BootKeys()
	if keys.Tag != "v2" || keys.Path != "a" {
		t.Errorf("keys = %q, %q; want v2, a", keys.Tag, keys.Path)
	}
	if again, _ := c.Block().BootKeys(); again.Tag != "v1" {
		t.Errorf("the context itself was changed: %q", again.Tag)
	}
}

func TestEscapeOption(t *testing.T) {
	if got := escapeOption(`/a:b,c\d`); got != `/a\:b\,c\\d` {
		t.Errorf("escapeOption = %q", got)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("cvmfs_repos=a.b cvmfs_proxy=auto;x cvmfs_cdn=a;b,c cernvm_path=/x/../y")
	f.Fuzz(func(t *testing.T, cmd string) {
		got, _, err := resolve(cmdline.Parse(cmd), usercontext.BootKeys{}, Pin{})
		if err != nil {
			return
		}
		if strings.Contains(got.Path, "..") && strings.Contains("/"+got.Path+"/", "/../") || strings.ContainsAny(got.Path, ":,\n") {
			t.Errorf("resolve(%q) has the path %q", cmd, got.Path)
		}
		if strings.Contains(got.Repository, "/") || got.Proxies == "" {
			t.Errorf("resolve(%q) = %+v", cmd, got)
		}
	})
}
