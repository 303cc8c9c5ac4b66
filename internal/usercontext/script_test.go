package usercontext

import (
	"bytes"
	"strings"
	"testing"
)

func TestParseScript(t *testing.T) {
	for _, tc := range []struct {
		name, in               string
		present, before, after bool
		originally             string // phases in which the original runs it
		text                   string // "" = all of in
		bounded                bool
	}{
		{name: "none", in: "[amiconfig]\n#!/bin/sh\n"},
		{name: "empty", in: ""},
		{"sh", "#!/bin/sh\nexit\n", true, false, true, "after", "", false},
		{"blank", "#! /bin/sh\nexit\n", true, false, true, "after", "", false},
		{"bash", "#!/bin/bash\nexit\n", true, false, true, "after", "", false},
		{"env", "#!/usr/bin/env bash\nexit\n", true, false, true, "after", "", false},
		{"before", "#!/bin/sh.before\nexit\n", true, true, false, "before", "", false},
		{"before with an option", "#!/bin/sh.before -x\nexit\n", true, true, false, "before", "", false},
		{"after", "#!/bin/sh.after\nexit\n", true, false, true, "after", "", false},
		{"option", "#!/bin/bash -e\nexit\n", true, false, true, "", "", false},
		{"trailing blank", "#!/bin/sh \nexit\n", true, false, true, "", "", false},
		{"carriage return", "#!/bin/sh\r\nexit\r\n", true, false, true, "", "#!/bin/sh\nexit\n", false},
		{"carriage return, before", "#!/bin/sh.before\r\nexit\r\n", true, true, false, "", "#!/bin/sh.before\nexit\n", false},
		{"python", "#!/usr/bin/python\nexit\n", true, false, false, "", "", false},
		{"python with a shell in it", "#!/usr/bin/python\nx='''\n#!/bin/sh\n'''\n", true, false, false, "after", "", false},
		{"two", "#!/bin/sh.before\ncat >x <<E\n#!/bin/sh\nE\nexit\n", true, true, false, "before after", "", false},
		{"leading blank lines", "\n  \n#!/bin/sh\nexit\n", true, false, true, "after", "#!/bin/sh\nexit\n", false},
		{"sections", "#!/bin/sh\na\n\nexit 0\n\n# note\n[amiconfig]\nplugins=x\n", true, false, true, "after", "#!/bin/sh\na\n\nexit 0\n", true},
		{"block", "#!/bin/sh\nexit;\n[ucernvm-begin]\nx=y\n", true, false, true, "after", "#!/bin/sh\nexit;\n", true},
		{"no exit", "#!/bin/sh\na\n[amiconfig]\nplugins=x\n", true, false, true, "after", "", false},
		{"exit that is none", "#!/bin/sh\nexit_code=1\n[amiconfig]\nplugins=x\n", true, false, true, "after", "", false},
		{"exit inside", "#!/bin/sh\nif x; then\nexit 1\nfi\n[amiconfig]\n", true, false, true, "after", "", false},
		{"section nobody knows", "#!/bin/sh\ncat <<E\nexit\n[stuff]\nE\nexit\n[cernvm]\n", true, false, true, "after", "#!/bin/sh\ncat <<E\nexit\n[stuff]\nE\nexit\n", true},
	} {
		s := ParseScript([]byte(tc.in))
		phases := strings.Join(strings.Fields(phase(s.Original.Before, "before")+" "+phase(s.Original.After, "after")), " ")
		if s.Present != tc.present || s.Before != tc.before || s.After != tc.after || phases != tc.originally || s.Bounded != tc.bounded {
			t.Errorf("%s: ParseScript = present %v, before %v, after %v, bounded %v, originally %q", tc.name, s.Present, s.Before, s.After, s.Bounded, phases)
		}
		if want := tc.text; tc.present {
			if want == "" {
				want = tc.in
			}
			if string(s.Text) != want {
				t.Errorf("%s: Text = %q, want %q", tc.name, s.Text, want)
			}
		}
	}
}

func phase(on bool, name string) string {
	if on {
		return name
	}
	return ""
}

func TestOriginalScriptText(t *testing.T) {
	s := ParseScript([]byte("\n#!/bin/sh\na\n   \n\t\nexit\n\n[amiconfig]\nplugins=x"))
	if got, want := string(s.Original.Text), "#!/bin/sh\na\n\t\nexit\n[amiconfig]\nplugins=x\n"; got != want || s.Original.Line != 2 {
		t.Errorf("original executes %q from line %d, want %q", got, s.Original.Line, want)
	}
}

func FuzzScript(f *testing.F) {
	f.Add([]byte("#!/bin/sh\nexit\n[cernvm]\n"))
	f.Add([]byte("\n\n#!/bin/sh.before\r\n[ucernvm-begin]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := ParseScript(data)
		if s.Present && (s.Line < 1 || s.End < s.Line || !bytes.HasPrefix(s.Text, []byte("#!"))) {
			t.Errorf("ParseScript(%q) = %+v", data, s)
		}
	})
}
