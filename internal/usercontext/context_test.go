package usercontext

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func zip(t testing.TB, data string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func b64(data string) string { return base64.StdEncoding.EncodeToString([]byte(data)) }

const sample = "[amiconfig]\nplugins=cernvm\n"

func TestUnwrap(t *testing.T) {
	nested := zip(t, string(zip(t, b64(sample))))
	deep := zip(t, string(zip(t, string(zip(t, string(zip(t, sample)))))))
	for _, tc := range []struct {
		name   string
		in     []byte
		want   string
		layers []string
		err    string
	}{
		{"plain", []byte(sample), sample, nil, ""},
		{"empty", nil, "", nil, ""},
		{"gzip", zip(t, sample), sample, []string{"gzip"}, ""},
		{"base64", []byte(b64(sample)), sample, []string{"base64"}, ""},
		{"base64 in lines", []byte(b64(sample)[:12] + "\n" + b64(sample)[12:] + "\n"), sample, []string{"base64"}, ""},
		{"base64 of something else", []byte(b64("hello world")), b64("hello world"), nil, ""},
		{"three layers", nested, sample, []string{"gzip", "gzip", "base64"}, ""},
		{"four layers", deep, "", []string{"gzip", "gzip", "gzip"}, "more than 3 layers"},
		{"trailing bytes", append(zip(t, sample), "xyz"...), sample, []string{"gzip (3 bytes behind it ignored)"}, ""},
		{"broken gzip", zip(t, sample)[:20], "", nil, "decompressing gzip"},
		{"bomb", zip(t, strings.Repeat("\x00", 4<<20)), "", nil, "larger than 1 MiB"},
		{"too large", bytes.Repeat([]byte("a"), MaxSize+1), "", nil, "larger than 1 MiB"},
	} {
		got, layers, err := Unwrap(tc.in)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: Unwrap error = %v, want %q in it", tc.name, err, tc.err)
			}
			continue
		}
		if err != nil || string(got) != tc.want || !cmp.Equal(layers, tc.layers) {
			t.Errorf("%s: Unwrap = %q, %q, %v, want %q, %q", tc.name, got, layers, err, tc.want, tc.layers)
		}
	}
}

func TestParseForms(t *testing.T) {
	mixed := "Content-Type: multipart/mixed; boundary=\"XX\"\nMIME-Version: 1.0\n\npreamble\n--XX\nContent-Type: text/cloud-config\n\n#cloud-config\nusers: []\n--XX\n" +
		"Content-Type: text/amiconfig-user-data\nContent-Transfer-Encoding: 7bit\n\n[amiconfig]\nplugins=cernvm\n--XX\nContent-Type: text/ucernvm\n\n[ucernvm-begin]\ncvmfs_tag=t\n[ucernvm-end]\n--XX--\n"
	encoded := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=XX\n\n--XX\nContent-Type: text/amiconfig-user-data\nContent-Transfer-Encoding: base64\n\n" +
		b64("#!/bin/sh\nexit\n[amiconfig]\nplugins=cernvm\n") + "\n--XX\nContent-Type: text/ucernvm\nContent-Transfer-Encoding: quoted-printable\n\n[ucernvm-begin=5D\ncvmfs_tag=3Dt\n[ucernvm-end]\n--XX--\n"
	for _, tc := range []struct {
		name, in        string
		kinds           []Kind
		layers          []string
		tag, plugins    string
		pluginsLine     int
		originalPlugins string
		originallySeen  bool // the original boot loader sees the tag
	}{
		{"plain", sample, []Kind{Plain}, nil, "", "cernvm", 2, "cernvm", false},
		{"cloud-config", "#cloud-config\nusers: []\n", []Kind{CloudConfig}, nil, "", "", 0, "", false},
		{"nothing", " \n", []Kind{Empty}, nil, "", "", 0, "", false},
		{"text", "hello\n", []Kind{Unknown}, nil, "", "", 0, "", false},
		{"MIME", mixed, []Kind{CloudConfig, Plain, Plain}, nil, "t", "cernvm", 15, "cernvm", true},
		{"MIME with carriage returns", strings.ReplaceAll(mixed, "\n", "\r\n"), []Kind{CloudConfig, Plain, Plain}, nil, "t", "cernvm", 15, "cernvm", false},
		{"MIME with encoded parts", encoded, []Kind{Plain, Plain}, nil, "t", "cernvm", 8, "", false},
		{"gzip", string(zip(t, sample)), []Kind{Plain}, []string{"gzip"}, "", "cernvm", 2, "", false},
		{"byte order mark", "\xef\xbb\xbf" + sample, []Kind{Plain}, nil, "", "cernvm", 2, "", false},
		{"context.sh", "# OpenNebula\nROOT_PUBKEY=root.pub\nexport EC2_USER_DATA=\"" + b64(sample) + "\"\n", []Kind{Plain}, []string{"context.sh EC2_USER_DATA"}, "", "cernvm", 2, "cernvm", false},
		{"context.sh, plain", "USER_DATA='" + sample + "'\nX=1\n", []Kind{Plain}, []string{"context.sh USER_DATA"}, "", "cernvm", 2, "cernvm", false},
	} {
		c, err := Parse("x", []byte(tc.in))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var kinds []Kind
		for _, p := range c.Parts {
			kinds = append(kinds, p.Kind)
		}
		if !cmp.Equal(kinds, tc.kinds) || !cmp.Equal(c.Layers, tc.layers) {
			t.Errorf("%s: kinds %v, layers %q", tc.name, kinds, c.Layers)
		}
		if tag := c.Block().Keys["cvmfs_tag"]; tag != tc.tag {
			t.Errorf("%s: tag = %q, want %q", tc.name, tag, tc.tag)
		}
		plugins, _ := c.Amiconfig().Get("amiconfig", "plugins")
		line := 0
		for _, o := range c.Amiconfig().Options {
			if o.Key == "plugins" {
				line = o.Line
			}
		}
		if plugins != tc.plugins || line != tc.pluginsLine {
			t.Errorf("%s: plugins = %q in line %d, want %q, %d", tc.name, plugins, line, tc.plugins, tc.pluginsLine)
		}
		if got, _ := c.Original().Amiconfig.Get("amiconfig", "plugins"); got != tc.originalPlugins {
			t.Errorf("%s: original plugins = %q, want %q", tc.name, got, tc.originalPlugins)
		}
		seen := false
		for _, s := range c.Original().Block.Settings {
			seen = seen || s.Original != ""
		}
		if seen != tc.originallySeen {
			t.Errorf("%s: the original boot loader sees the tag: %v, want %v", tc.name, seen, tc.originallySeen)
		}
	}
}

func TestMIMEProblems(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"wrong boundary", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=A\n\n--B\n\nx\n--B--\n", "never occurs"},
		{"no boundary", "MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n--B\n\nx\n--B--\n", "names no boundary"},
		{"not closed", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\n#!/bin/sh\n", "final boundary is missing"},
		{"mailbox line", "From nobody Thu Jan  1 00:00:00 1970\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\nx\n--B--\n", "mailbox line"},
		{"bad base64", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Transfer-Encoding: base64\n\n@@@\n--B--\n", "is not"},
		{"long boundary", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=" + strings.Repeat("b", 71) + "\n\n", "longer than 70"},
		{"nested too deep", nested(6), "nested more than"},
		{"path in file name", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Disposition: attachment; filename=\"../x\"\n\nx\n--B--\n", "path in it"},
		{"no blank line", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n[amiconfig]\nplugins=cernvm\n--B--\n", "no blank line"},
	} {
		c, err := Parse("x", []byte(tc.in))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		found := false
		for _, p := range c.Problems {
			found = found || strings.Contains(p.Text, tc.want)
		}
		if !found {
			t.Errorf("%s: problems %v, want one with %q", tc.name, c.Problems, tc.want)
		}
	}
}

func nested(depth int) string {
	text := "Content-Type: text/plain\n\nx\n"
	for i := range depth {
		b := strings.Repeat("b", i+1)
		text = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=" + b + "\n\n--" + b + "\n" + text + "--" + b + "--\n"
	}
	return text
}

func TestCloudInit(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		types    []string
		handled  []bool
	}{
		{"empty", "", nil, nil},
		{"sections", sample, []string{"text/x-not-multipart"}, []bool{false}},
		{"script", "#!/bin/sh\nexit\n", []string{"text/x-shellscript"}, []bool{true}},
		{"blanks first", "\n  #cloud-config\n", []string{"text/cloud-config"}, []bool{true}},
		{"blank inside", "# cloud-config\n", []string{"text/x-not-multipart"}, []bool{false}},
		{"archive", "#cloud-config-archive\n", []string{"text/cloud-config-archive"}, []bool{true}},
		{"include", "#include-once\nhttp://x/\n", []string{"text/x-include-once-url"}, []bool{true}},
		{"template", "## template: jinja\n#cloud-config\n", []string{"text/jinja2"}, []bool{true}},
		{
			"MIME", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--B\nContent-Type: text/ucernvm\n\n[ucernvm-begin]\n--B--\n",
			[]string{"text/x-shellscript", "text/ucernvm"},
			[]bool{true, false},
		},
		{"header mentioned", "#!/bin/sh\n# MIME-Version: 1.0\nexit\n", []string{"text/x-shellscript"}, []bool{true}},
	} {
		c, err := Parse("x", []byte(tc.in))
		if err != nil {
			t.Fatal(err)
		}
		var types []string
		var handled []bool
		for _, p := range c.CloudInit() {
			types, handled = append(types, p.Type), append(handled, p.Handled)
		}
		if !cmp.Equal(types, tc.types) || !cmp.Equal(handled, tc.handled) {
			t.Errorf("%s: CloudInit = %q %v, want %q %v", tc.name, types, handled, tc.types, tc.handled)
		}
	}
}

func TestTextProblems(t *testing.T) {
	for _, tc := range []struct {
		in, want  string
		line, col int
	}{
		{"\xef\xbb\xbf[a]\n", "byte order mark", 1, 1},
		{"[a]\nx=\x00\n", "NUL", 2, 3},
		{"[a]\nx=\xff\n", "not UTF-8", 2, 3},
		{"[a]\nx=1\r\n", "mixed line ends", 2, 4},
		{"[a]\nx=1", "no line end", 2, 4},
	} {
		c, err := Parse("x", []byte(tc.in))
		if err != nil || len(c.Problems) != 1 {
			t.Errorf("Parse(%q) = %v, %v, want one problem", tc.in, c.Problems, err)
			continue
		}
		if p := c.Problems[0]; !strings.Contains(p.Text, tc.want) || p.Line != tc.line || p.Column != tc.col {
			t.Errorf("Parse(%q) = %v, want %q at %d:%d", tc.in, p, tc.want, tc.line, tc.col)
		}
	}
}

func TestParseEncrypted(t *testing.T) {
	if _, err := Parse("x", []byte("ENCRYPTED:U2FsdGVkX18BAgME\n")); !errors.Is(err, ErrEncrypted) {
		t.Errorf("Parse = %v, want ErrEncrypted", err)
	}
}

func TestGlidein(t *testing.T) {
	args := b64("x=y\nargs = -a -param_CERNVM_CMS_PROXY http.colon,//a.dot,b.colon,3128.semicolon,DIRECT -param_CERNVM_CMS_SITE T2.minus,X\n")
	c, err := Parse("x", []byte(args+"#### -cluster 12 -subcluster 3####\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Glidein{Proxy: "http://a.b:3128;DIRECT", Site: "T2-X"}, c.Glidein); diff != "" {
		t.Errorf("Glidein (-want +got):\n%s", diff)
	}
	if got := c.Block().Keys["cvmfs_http_proxy"]; got != "http://a.b:3128;DIRECT" {
		t.Errorf("proxy = %q", got)
	}
	if _, ok := ParseGlidein([]byte(sample)); ok {
		t.Error("a plain context is taken for a pilot's")
	}
}

func TestParseAssignments(t *testing.T) {
	in := "# comment=1\nA=1\nexport B='x\ny' C=9\nD=\"a\\\"b\\$c\\d\"\nnot an assignment\nE=a\\ b\n  F=\nG=\"open"
	want := []Assignment{{"A", "1", 2}, {"B", "x\ny", 3}, {"D", `a"b$c\d`, 5}, {"E", "a b", 7}, {"F", "", 8}, {"G", "open", 9}}
	if diff := cmp.Diff(want, ParseAssignments([]byte(in))); diff != "" {
		t.Errorf("ParseAssignments (-want +got):\n%s", diff)
	}
}

func TestStrict(t *testing.T) {
	c, err := Parse("x", []byte("#!/bin/sh\ncat >f <<E\n[cernvm]\nusers=x:x:x\nE\nexit\n[AMIConfig]\nplugins=cernvm\n  more\n[amiconfig]\nplugins=squid,ganglia\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, problems := c.Strict()
	if diff := cmp.Diff(map[string]map[string]string{"amiconfig": {"plugins": "cernvm squid ganglia"}}, flat(a)); diff != "" {
		t.Errorf("Strict (-want +got):\n%s", diff)
	}
	if got := rules(problems); !cmp.Equal(got, []string{"I001", "I005"}) {
		t.Errorf("problems = %v", problems)
	}
	if _, ok := c.Amiconfig().Get("cernvm", "users"); !ok {
		t.Error("the compatible reading does not see the section in the script, the original does")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add(zip(f, sample))
	f.Add([]byte("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Transfer-Encoding: base64\n\n" + b64(sample) + "\n--B--\n"))
	f.Add([]byte("EC2_USER_DATA=\"" + b64(sample) + "\"\n"))
	f.Add([]byte(b64("args -param_CERNVM_CMS_PROXY x\n") + "#### -cluster 1 -subcluster 1####"))
	f.Add([]byte("#!/bin/sh\nexit\n[CernVM]\n x\n[ucernvm-begin]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz", data)
		if c == nil {
			t.Fatalf("Parse(%q) = nil, %v", data, err)
		}
		if len(c.Text) > MaxSize {
			t.Errorf("Parse(%q) grew to %d bytes", data, len(c.Text))
		}
		for _, p := range c.Problems {
			if p.Line < 0 || p.Text == "" {
				t.Errorf("problem %+v", p)
			}
		}
		_, _ = c.Block().BootKeys()
		c.Script()
		c.Original()
		c.CloudInit()
		_, _ = c.Strict()
	})
}

func FuzzUnwrap(f *testing.F) {
	f.Add(zip(f, sample))
	f.Add([]byte(b64(sample)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if plain, layers, _ := Unwrap(data); len(plain) > MaxSize || len(layers) > maxLayers {
			t.Errorf("Unwrap(%q) = %d bytes, layers %q", data, len(plain), layers)
		}
	})
}

func FuzzAssignments(f *testing.F) {
	f.Add([]byte("export A=\"x\\\"\nB='y\n'\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, a := range ParseAssignments(data) {
			if a.Name == "" || a.Line < 1 {
				t.Errorf("ParseAssignments(%q) has %+v", data, a)
			}
		}
	})
}

func FuzzGlidein(f *testing.F) {
	f.Add([]byte(b64("args -param_CERNVM_CMS_PROXY x\n") + "#### -cluster 1 -subcluster 1####"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = ParseGlidein(data) })
}
