package cmdline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/boot/cmdline"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []cmdline.Word
	}{
		{"", nil},
		{" \n", nil},
		{"quiet root=first\n", []cmdline.Word{{"quiet", "", false}, {"root", "first", true}}},
		{`cvmfs_proxy="http://a:3128;DIRECT" x`, []cmdline.Word{{"cvmfs_proxy", "http://a:3128;DIRECT", true}, {"x", "", false}}},
		{`a="b c" "d=e f" g`, []cmdline.Word{{"a", "b c", true}, {"d", "e f", true}, {"g", "", false}}},
		{`a="open to the end`, []cmdline.Word{{"a", "open to the end", true}}},
		{`=nokey ""`, nil},
		{"a=b=c", []cmdline.Word{{"a", "b=c", true}}},
		{"empty=", []cmdline.Word{{"empty", "", true}}},
	} {
		if diff := cmp.Diff(tc.want, cmdline.Parse(tc.text).Words()); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tc.text, diff)
		}
	}
}

func TestLastWins(t *testing.T) {
	l := cmdline.Parse("cernvm_path=cvm3 cernvm_path cernvm_path=cvm4 cvmdebug cvm_ramroot=no")
	if got, ok := l.Get("cernvm_path"); got != "cvm4" || !ok {
		t.Errorf("Get(cernvm_path) = %q, %v; want cvm4", got, ok)
	}
	for key, want := range map[string]bool{"cvmdebug": true, "cvm_ramroot": false, "absent": false} {
		if got := l.Flag(key); got != want {
			t.Errorf("Flag(%q) = %v, want %v", key, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	l := cmdline.Parse("a=12 b=-1 c=x d=99999999999999999999 e=999999999")
	for key, want := range map[string]time.Duration{
		"a": 12 * time.Second, "b": time.Minute, "c": time.Minute, "d": time.Minute, "e": 24 * time.Hour, "f": time.Minute,
	} {
		if got := l.Seconds(key, time.Minute); got != want {
			t.Errorf("Seconds(%q) = %v, want %v", key, got, want)
		}
	}
}

func TestConsoles(t *testing.T) {
	l := cmdline.Parse("console=ttyS0,115200n8 console=tty0 console=ttyS0 console=null console=../etc")
	if diff := cmp.Diff([]string{"ttyS0", "tty0"}, l.Consoles()); diff != "" {
		t.Errorf("Consoles (-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a=b", `a="b c`, `"`, "=", "console=ttyS0,9600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := cmdline.Parse(text)
		total := 0
		for _, w := range l.Words() {
			if w.Key == "" {
				t.Errorf("Parse(%q) has a word without a key", text)
			}
			total += len(w.Key) + len(w.Value)
		}
		if total > len(text) {
			t.Errorf("Parse(%q) made %d bytes of %d", text, total, len(text))
		}
		for _, c := range l.Consoles() {
			if strings.Contains(c, "/") {
				t.Errorf("Consoles(%q) has %q, which is not a device name", text, c)
			}
		}
	})
}
