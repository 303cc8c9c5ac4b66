package image_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
)

var line = image.CommandLine{
	Repository: "os.example.org", Servers: []string{"s1.example.org", "s2.example.org"}, CDN: []string{"cdn.example.org"},
	Path: "cvm4", Tag: "v2", Proxy: "http://p1:3128|http://p2:3128;DIRECT", Append: []string{"extra"},
}

func TestWords(t *testing.T) {
	const common = "initrd=/cernvm/initrd.img cernvm_path=cvm4 cvmfs_repos=os.example.org cvmfs_server=s1.example.org,s2.example.org cvmfs_cdn=cdn.example.org " +
		"cvmfs_repository_tag=v2 cvmfs_proxy=http://p1:3128|http://p2:3128;DIRECT net.ifnames=0 selinux=0 consoleblank=0 "
	want := map[string]string{
		"generic normal": common + "quiet systemd.show_status=1 loglevel=3 lastarg console=tty0 console=ttyS0,115200 extra",
		"generic debug":  common + "cvmdebug lastarg console=tty0 console=ttyS0,115200 extra",
		"azure normal":   common + "systemd.show_status=1 earlyprintk=ttyS0 rootdelay=300 numa=off console=ttyS0,115200 extra",
		"azure debug":    common + "cvmdebug earlyprintk=ttyS0 rootdelay=300 numa=off console=ttyS0,115200 extra",
		"gce normal":     common + "quiet systemd.show_status=1 loglevel=3 lastarg console=ttyS0,115200 extra",
		"gce debug":      common + "cvmdebug lastarg console=ttyS0,115200 extra",
	}
	want["ec2 normal"], want["ec2 debug"] = want["gce normal"], want["gce debug"]
	got := map[string]string{}
	for _, p := range image.Platforms() {
		for _, e := range []image.Entry{image.Normal, image.Debug} {
			words, err := line.Words(p, e)
			if err != nil {
				t.Fatal(err)
			}
			got[p.Name+" "+string(e)] = strings.Join(words, " ")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command lines (-want +got):\n%s", diff)
	}
}

// TestWordsOfARM has ARM's serial line besides, as the last.
func TestWordsOfARM(t *testing.T) {
	words, err := image.CommandLine{Arch: image.ARM, Repository: "r"}.Words(image.Platforms()[0], image.Debug)
	if err != nil {
		t.Fatal(err)
	}
	want := "initrd=/cernvm/initrd.img cvmfs_repos=r net.ifnames=0 selinux=0 consoleblank=0 cvmdebug lastarg console=tty0 console=ttyS0,115200 console=ttyAMA0,115200"
	if got := strings.Join(words, " "); got != want {
		t.Errorf("Words = %q, want %q", got, want)
	}
}

func TestWordsRefused(t *testing.T) {
	for name, c := range map[string]image.CommandLine{
		"injection": {Repository: "x init=/bin/sh"},
		"quote":     {Repository: "x", Tag: `"`},
		"line":      {Repository: "x", Append: []string{"a\nlabel b"}},
		"too long":  {Repository: "x", Servers: []string{strings.Repeat("s", 2000)}},
	} {
		if _, err := c.Words(image.Platforms()[0], image.Normal); !fail.Is(err, fail.Usage) {
			t.Errorf("%s: Words = %v, want a usage error", name, err)
		}
	}
}
