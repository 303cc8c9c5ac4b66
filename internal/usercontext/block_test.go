package usercontext

import (
	"encoding/base64"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
)

func rules(problems []Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Rule)
	}
	return out
}

func TestParseBlock(t *testing.T) {
	type keys = map[string]string
	for _, tc := range []struct {
		name, in string
		found    bool
		want     keys
		original []string
		rules    []string
	}{
		{name: "none", in: "x=1\n", want: keys{}},
		{
			"plain", "a\n[ucernvm-begin]\ncvmfs_branch=x.cern.ch\n[ucernvm-end]\nb=2\n", true,
			keys{"cvmfs_branch": "x.cern.ch"},
			[]string{"CVMFS_BRANCH=x.cern.ch"},
			nil,
		},
		{
			"words become digits", "[ucernvm-begin]\na=On\nb=FALSE\nc=\"TRUE\"\n[ucernvm-end]\n", true,
			keys{"a": "On", "b": "FALSE", "c": "TRUE"},
			[]string{"A=1", "B=0", `C="TRUE"`},
			nil,
		},
		{"last wins", "[ucernvm-begin]\na=1\nA=2\n[ucernvm-end]\n", true, keys{"a": "2"}, []string{"A=1", "A=2"}, nil},
		{"end first", "[ucernvm-end]\n[ucernvm-begin]\na=1\n", false, keys{}, nil, []string{"U004", "U004"}},
		{
			"second block", "[ucernvm-begin]\na=1\n[ucernvm-end]\n[ucernvm-begin]\nb=2\n[ucernvm-end]\n", true,
			keys{"a": "1"},
			[]string{"A=1"},
			[]string{"U004"},
		},
		{
			"no end marker", "[ucernvm-begin]\na=1\n[cernvm]\nproxy=x\n", true,
			keys{"a": "1", "proxy": "x"},
			[]string{"A=1", "PROXY=x"},
			[]string{"U004"},
		},
		{"no line end", "[ucernvm-begin]\na=1\nb=2", true, keys{"a": "1", "b": "2"}, []string{"A=1", ""}, []string{"U002", "U004"}},
		{"blanks", "[ucernvm-begin]\na = 1\n[ucernvm-end]\n", true, keys{"a": "1"}, []string{"A = 1"}, []string{"U002"}},
		{"comment", "[ucernvm-begin]\n# a=b\n#c\n[ucernvm-end]\n", true, keys{}, nil, []string{"U002"}},
		{"no separator", "[ucernvm-begin]\nfoo\n\n[ucernvm-end]\n", true, keys{}, nil, []string{"U002"}},
		{"carriage returns", "[ucernvm-begin]\r\na=1\r\n[ucernvm-end]\r\n", true, keys{"a": "1"}, []string{""}, []string{"U004", "U004"}},
		{"begin again", "[ucernvm-begin]\n[ucernvm-begin]\na=1\n[ucernvm-end]\n", true, keys{"a": "1"}, []string{"A=1"}, []string{"U004"}},
		{
			"quotes", "[ucernvm-begin]\na=\"x|y;z\"\nb='q'\nc=\"\n[ucernvm-end]\n", true,
			keys{"a": "x|y;z", "b": "q", "c": `"`},
			[]string{`A="x|y;z"`, "B='q'", `C="`},
			nil,
		},
	} {
		b := ParseBlock([]byte(tc.in))
		var original []string
		for _, s := range b.Settings {
			original = append(original, s.Original)
		}
		if b.Found != tc.found || !cmp.Equal(b.Keys, tc.want) || !cmp.Equal(original, tc.original) || !cmp.Equal(rules(b.Problems), tc.rules) {
			t.Errorf("%s: ParseBlock(%q) = found %v, %v, original %q, rules %v\nwant %v, %v, %q, %v",
				tc.name, tc.in, b.Found, b.Keys, original, rules(b.Problems), tc.found, tc.want, tc.original, tc.rules)
		}
	}
}

// TestSourceAgainstShell compares the model of a shell with a shell.
func TestSourceAgainstShell(t *testing.T) {
	sh := tier.Tool(t, "sh")
	for _, value := range []string{
		"plain", "a,b:c/d@e%f+g=h-i.j", `"http://a:1|http://b:1;DIRECT"`, "http://a:1;DIRECT", "http://a|http://b;DIRECT", "a b", "a ", "a #b", "a#b", `'x "y" z'`,
		`"a\"b"`, `"a\qb"`, `a\ b`, "x&", "x&&true", "x||true", "a>/dev/null", "a<b", "(", "a)b", `"open`, "'open", `a"b"'c'`, "", `""`, "*?", "a ;b", "x;", "a[b]", "{a,b}", "!x", "a~b",
	} {
		got := source("V", value)
		cmd := exec.CommandContext(t.Context(), sh, "-c", `PATH=; V=unset; . /dev/stdin; printf '<%s>' "$V"`)
		cmd.Dir = t.TempDir()
		cmd.Stdin = strings.NewReader("V=" + value + "\n")
		out, _ := cmd.Output() // a syntax error ends the shell, and V was not set
		shell := string(out)
		if shell == "" {
			shell = "<unset>"
		}
		want := "<" + got.Value + ">"
		if got.Kind == Lost {
			want = "<unset>"
		}
		if shell != want {
			t.Errorf("source(%q) = %+v, a shell has %s", value, got, shell)
		}
	}
	for _, value := range []string{"$x", "`x`", `"$x"`, "~", "a:~"} {
		if got := source("V", value); got.Kind != Expands {
			t.Errorf("source(%q) = %+v, want Expands", value, got)
		}
	}
}

func TestBootKeys(t *testing.T) {
	no, yes := false, true
	archive := "\x1f\x8bxx"
	block := func(lines ...string) Block {
		return ParseBlock([]byte(BlockBegin + "\n" + strings.Join(lines, "\n") + "\n" + BlockEnd + "\n"))
	}
	for _, tc := range []struct {
		name  string
		block Block
		want  BootKeys
		rules []string
	}{
		{"nothing", ParseBlock(nil), BootKeys{UseGlideinWMS: true}, nil},
		{
			"all", block("resize_rootfs=off", "use_boothd=TRUE", `cvmfs_http_proxy="a|b;DIRECT"`, "cvmfs_pac_urls=u", "cvmfs_server=h1, h2,", "cvmfs_cdn=c", "cvmfs_branch=r.x",
				"cvmfs_tag=t", "cernvm_path=/cvm4/", "cvmfs_wait_on_squid=5", "cernvm_inject="+base64.StdEncoding.EncodeToString([]byte(archive)), "useglideinWMS=no",
				"cvm_cluster_pin=p", "cvm_service_url=s", "cvm_cluster_master=1", "swap_size=auto"),
			BootKeys{
				ResizeRootfs: &no, UseBootHD: &yes, HTTPProxy: "a|b;DIRECT", PACURLs: "u", Servers: []string{"h1", "h2"}, CDN: []string{"c"}, Branch: "r.x", Tag: "t", Path: "cvm4",
				WaitOnSquid: 5 * time.Second, Inject: []byte(archive), ClusterPin: "p", ServiceURL: "s", ClusterMaster: true, SwapSize: "auto",
			},
			nil,
		},
		{"no CDN", block("cvmfs_cdn=None"), BootKeys{NoCDN: true, UseGlideinWMS: true}, nil},
		{"a name that looks like a boolean", block("cernvm_path=on"), BootKeys{Path: "on", UseGlideinWMS: true}, nil},
		{
			"bad values", block("resize_rootfs=maybe", "cvmfs_wait_on_squid=soon", "cernvm_inject=@@", "cvmfs_branch=r"),
			BootKeys{Branch: "r", UseGlideinWMS: true},
			[]string{"U005", "U005", "U006"},
		},
	} {
		got, problems := tc.block.BootKeys()
		if diff := cmp.Diff(tc.want, got); diff != "" || !cmp.Equal(tc.rules, rules(problems)) {
			t.Errorf("%s: BootKeys (-want +got), problems %v:\n%s", tc.name, problems, diff)
		}
	}
	_, problems := block("a=b", "resize_rootfs=maybe").BootKeys()
	if p := problems[0]; p.Line != 3 || p.Column != 15 {
		t.Errorf("position = %d:%d, want 3:15", p.Line, p.Column)
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("[ucernvm-begin]\na=b\n[ucernvm-end]\n"))
	f.Add([]byte("[ucernvm-begin]\r\n =\"\\\n'=$\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := ParseBlock(data)
		_, _ = b.BootKeys()
		for _, s := range b.Settings {
			if s.Column < 1 || s.ValueColumn < 1 {
				t.Errorf("setting %+v of %q", s, data)
			}
		}
	})
}
