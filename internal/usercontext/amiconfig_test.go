package usercontext

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
)

// flat is a reading in a form that can be compared: section to key to value.
func flat(a *Amiconfig) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, s := range a.Sections {
		out[s.Name] = map[string]string{}
		for _, o := range s.Options {
			out[s.Name][o.Key] = o.Value
		}
	}
	return out
}

func TestParseAmiconfig(t *testing.T) {
	type sections = map[string]map[string]string
	for _, tc := range []struct {
		name, in string
		want     sections
	}{
		{"empty", "", sections{}},
		{"plain", "[cernvm]\nusers=a:b:c\nshell = /bin/bash\n", sections{"cernvm": {"users": "a:b:c", "shell": "/bin/bash"}}},
		{"text before the first header", "x=1\nhello\n[a]\ny=2\n", sections{"a": {"y": "2"}}},
		{"rest of a header line", "[a] b=c\nd=e\n", sections{"a": {"d": "e"}}},
		{"header not at column 1", " [a]\nb=c\n[d]\n", sections{"d": {}}},
		{"unclosed header is an option", "[a]\n[b=c\n", sections{"a": {"[b": "c"}}},
		{"empty brackets are an option", "[a]\n[]b=c\n", sections{"a": {"[]b": "c"}}},
		{"sections merge", "[a]\nx=1\n[b]\ny=2\n[a]\nz=3\nx=4\n", sections{"a": {"x": "4", "z": "3"}, "b": {"y": "2"}}},
		{"DEFAULT is nobody's", "[DEFAULT]\nx=1\n[a]\ny=2\n", sections{"a": {"y": "2"}}},
		{"keys are lower-cased", "[a]\nScreenRes=1x1\n", sections{"a": {"screenres": "1x1"}}},
		{"blanks in a name stay", "[ a b ]\nx=1\n", sections{" a b ": {"x": "1"}}},
		{"colon first", "[a]\nhttp://x/y=z\n", sections{"a": {"http": "//x/y=z"}}},
		{"rem", "[a]\nrem x=1\nREM\ty=2\nremember=3\nrem=4\n", sections{"a": {"remember": "3", "rem": "4"}}},
		{"comments", "[a]\n#x=1\n;y=2\n", sections{"a": {}}},
		{"indented", "[a]\nx=1,\n  2\n y=3\n", sections{"a": {"x": "1,"}}},
		{"no separator", "[a]\nfoo\nx=1\n=5\n:6\n", sections{"a": {"x": "1"}}},
		{"quotes stay, an empty pair goes", "[a]\nx=\"1\"\ny=\"\"\n", sections{"a": {"x": `"1"`, "y": ""}}},
		{"semicolon after a blank", "[a]\nx=1 ;2\ny=1;2\nz=1;2 ;3\n", sections{"a": {"x": "1", "y": "1;2", "z": "1;2 ;3"}}},
		{"semicolon first", "[a]\nx=;D\ny=;D \nz= ;D\nw=;D\r\n", sections{"a": {"x": ";D", "y": "", "z": ";D", "w": ""}}},
		{"carriage returns", "[a]\r\nx=1\r\n", sections{"a": {"x": "1"}}},
		{"number sign inside", "[a]\nx=1 # 2\n", sections{"a": {"x": "1 # 2"}}},
		{"percent", "[a]\nx=%(y)s%\n", sections{"a": {"x": "%(y)s%"}}},
		{"byte order mark hides the header", "\xef\xbb\xbf[a]\nx=1\n[b]\ny=2\n", sections{"b": {"y": "2"}}},
		{"no final line end", "[a]\nx=1", sections{"a": {"x": "1"}}},
	} {
		if diff := cmp.Diff(tc.want, flat(ParseAmiconfig([]byte(tc.in)))); diff != "" {
			t.Errorf("%s: ParseAmiconfig(%q) (-want +got):\n%s", tc.name, tc.in, diff)
		}
	}
}

func TestAmiconfigPositions(t *testing.T) {
	a := ParseAmiconfig([]byte("#!/bin/sh\nexit\n[cernvm]\n  lost=1\nUsers =  a:b:c\nnothing\n"))
	options, _ := a.Section("cernvm")
	want := []Option{{Section: "cernvm", Key: "users", RawKey: "Users", Separator: '=', Value: "a:b:c", RawValue: "a:b:c", Line: 5, ValueColumn: 10}}
	if diff := cmp.Diff(want, options); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Dropped{{4, "  lost=1", DroppedIndented}, {6, "nothing", DroppedNoSeparator}}, a.Dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	if v, ok := a.Get("cernvm", "users"); v != "a:b:c" || !ok {
		t.Errorf("Get = %q, %v", v, ok)
	}
	if _, ok := a.Get("CernVM", "users"); ok {
		t.Error("Get finds a section in another case")
	}
}

// The original's two passes, on the ConfigParser they were written for.
const original = `
import sys, json, re, ConfigParser, StringIO
header = re.compile(r'\[[^]]+\]')
option = re.compile(r'[^:=\s][^:=]*\s*[:=]\s*.*$')
out = []
for text in json.load(sys.stdin):
    text = text.encode('latin-1')
    kept, inside = [], False
    for l in text.split('\n'):
        if header.match(l):
            inside = True
            kept.append(l)
        elif inside and option.match(l):
            kept.append(l)
    p = ConfigParser.ConfigParser()
    p.readfp(StringIO.StringIO('\n'.join(kept)))
    got = {}
    for name, section in p._sections.items():
        got[name.decode('latin-1')] = dict((k.decode('latin-1'), v.decode('latin-1')) for k, v in section.items() if k != '__name__')
    out.append(got)
json.dump(out, sys.stdout)
`

// TestAmiconfigAgainstPython compares with Python 2.7's ConfigParser on texts
// made of everything that matters to it.
func TestAmiconfigAgainstPython(t *testing.T) {
	tier.Full(t)
	python := tier.Tool(t, "python2.7")
	if err := exec.CommandContext(t.Context(), python, "-c", "import ConfigParser").Run(); err != nil {
		t.Skipf("%s does not run: %v", python, err) // a launcher without its interpreter
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"[", "]", "a", "B", "rem", "REM ", "=", ":", ";", " ;", "#", " ", "\t", "\r", "\n", "\n", "\n[s]\n", "\n[t]", "\v", "\f", "\x00", "\x85", "\xa0", `"`, `""`, "%", "x=1", "DEFAULT", "\nk=", "\nk = ;"}
	texts := make([]string, 8000)
	for i := range texts {
		var b strings.Builder
		for range rnd.IntN(24) {
			b.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		texts[i] = b.String()
	}
	// Latin-1 text carries bytes through JSON.
	wide := make([]string, len(texts))
	for i, text := range texts {
		wide[i] = latin1(text)
	}
	in, err := json.Marshal(wide)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", original)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []map[string]map[string]string
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		got := map[string]map[string]string{}
		for name, section := range flat(ParseAmiconfig([]byte(text))) {
			got[latin1(name)] = map[string]string{}
			for k, v := range section {
				got[latin1(name)][latin1(k)] = latin1(v)
			}
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Fatalf("ParseAmiconfig(%q) (-python +got):\n%s", text, diff)
		}
	}
}

func latin1(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

func FuzzAmiconfig(f *testing.F) {
	f.Add([]byte("[a]\nb=c\n"))
	f.Add([]byte("[a]\nb=;c \r\nrem\n[DEFAULT]\n="))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := ParseAmiconfig(data)
		for _, o := range a.Options {
			if o.Key == "" || o.Line < 1 || o.ValueColumn < 1 {
				t.Errorf("option %+v of %q", o, data)
			}
		}
	})
}
