package lint

import (
	"bytes"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/usercontext"
)

func TestFix(t *testing.T) {
	guard := "grep -q amiconfig /proc/1/cmdline || exit 0\n"
	for _, tc := range []struct {
		name, text, want string
		rules            string // of the findings that are gone, in order
	}{
		{"clean", cernvm("services=a"), cernvm("services=a"), ""},
		{"key of another place", block("cvmfs_repos=x.cern.ch"), block("cvmfs_branch=x.cern.ch"), "U001"},
		{"a guess stays", block("cernvm_pth=x"), block("cernvm_pth=x"), ""},
		{"blanks in the block", block("cvmfs_branch = x.cern.ch"), block("cvmfs_branch=x.cern.ch"), "U002"},
		{"value for a shell", block("cvmfs_http_proxy=http://a:1;DIRECT"), block(`cvmfs_http_proxy="http://a:1;DIRECT"`), "U003"},
		{"value that quotes do not help", block("cvmfs_http_proxy=http://a:1;$(b)"), block("cvmfs_http_proxy=http://a:1;$(b)"), ""},
		{"marker with blanks", "[ucernvm-begin] \ncvmfs_branch=x.cern.ch\n[ucernvm-end]\n", block("cvmfs_branch=x.cern.ch"), "U004"},
		{"section in capitals", "[amiconfig]\nplugins=cernvm\n[CernVM]\nservices=a\n", cernvm("services=a"), "I001"},
		{"commas", "[amiconfig]\nplugins=cernvm, squid\n[cernvm]\nservices=a\n", "[amiconfig]\nplugins=cernvm squid\n[cernvm]\nservices=a\n", "I003"},
		{"renamed plugin", "[amiconfig]\nplugins=cernvm ldap\n[cernvm]\nservices=a\n", "[amiconfig]\nplugins=cernvm amildap\n[cernvm]\nservices=a\n", "I003"},
		{"scheme", cernvm("eos-server=root://eos.cern.ch/", "x509-cert=YQ=="), cernvm("eos-server=eos.cern.ch", "x509-cert=YQ=="), "C006"},
		{"proxy", cernvm("proxy=http://a:1;DIRECT") + block("cvmfs_http_proxy=DIRECT"), cernvm(`proxy="http://a:1;DIRECT"`) + block("cvmfs_http_proxy=DIRECT"), "C007"},
		{"no exit", "#!/bin/sh\n" + guard + "touch /a\n" + cernvm("services=a"), "#!/bin/sh\n" + guard + "touch /a\nexit 0\n" + cernvm("services=a"), "S001"},
		{"blank behind #!", "#!/bin/sh \n" + guard + "exit 0\n", "#!/bin/sh\n" + guard + "exit 0\n", "S002"},
		{"options behind #! stay", "#!/bin/bash -e\n" + guard + "exit 0\n", "#!/bin/bash -e\n" + guard + "exit 0\n", ""},
		{"header", "# cloud-config\nruncmd: []\n", "#cloud-config\nruncmd: []\n", "Y001"},
		{"Windows", "\xef\xbb\xbf[amiconfig]\r\nplugins=cernvm\r\n[cernvm]\r\nservices=a", cernvm("services=a"), "Z002"},
		{"passwords stay", cernvm("users=u:u:secret"), cernvm("users=u:u:secret"), ""},
	} {
		got, gone := Fix("test", []byte(tc.text), Options{})
		var rules []string
		for _, p := range gone {
			rules = append(rules, p.Rule)
		}
		if string(got) != tc.want || strings.Join(rules, " ") != tc.rules {
			t.Errorf("%s: Fix = %q (%v), want %q (%s)", tc.name, got, rules, tc.want, tc.rules)
		}
	}
}

// TestFixHelps runs over every example: what it changes it must not make worse, and
// a second run must find nothing to do.
func TestFixHelps(t *testing.T) {
	for _, e := range examples(t) {
		text := []byte(e.text)
		fixed, gone := Fix("test", text, Options{})
		before, after := check(t, e.text, Options{}), check(t, string(fixed), Options{})
		if len(gone) == 0 != bytes.Equal(fixed, text) || errorCount(after) > errorCount(before) {
			t.Errorf("%s: %d fixes, errors %d, then %d\n%s", e.name, len(gone), errorCount(before), errorCount(after), fixed)
		}
		if again, more := Fix("test", fixed, Options{}); len(more) > 0 || !bytes.Equal(again, fixed) {
			t.Errorf("%s: a second run fixes %v", e.name, more)
		}
	}
}

func errorCount(found []usercontext.Problem) int {
	n := 0
	for _, p := range found {
		if p.Severity == failure {
			n++
		}
	}
	return n
}
