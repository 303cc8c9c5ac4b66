package client

import (
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs/catalog"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "x", "EMPTY": "", "B": "$(A)"}
	for target, want := range map[string]string{
		"plain":                   "plain",
		"$(A)":                    "x",
		"/p/$(A)/q":               "/p/x/q",
		"$(A)$(A)":                "xx",
		"$(NONE)":                 "",
		"$(NONE:-/cvmfs/default)": "/cvmfs/default",
		"$(A:-unused)":            "x",
		"$(EMPTY:-unused)":        "",
		"$(B)":                    "$(A)",
		"$(A":                     "$(A",
		"x$(":                     "x$(",
		"$(A)/$(B":                "x/$(B",
		"$A)":                     "$A)",
		"$()":                     "",
		"$(NONE:-)":               "",
	} {
		if got := expand(target, vars); got != want {
			t.Errorf("expand(%q) = %q, want %q", target, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"", "$(A)", "$(", "$(A:-b)", "$($(A))", "a)b$(A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got := expand(target, map[string]string{"A": ""})
		if len(got) > len(target) {
			t.Errorf("expand(%q) = %q, longer than its input", target, got)
		}
		if !strings.Contains(target, "$(") && got != target {
			t.Errorf("expand(%q) = %q, without a variable", target, got)
		}
	})
}

func TestBreadcrumb(t *testing.T) {
	const sha1 = "6dbbb8b9d178f811e278804874ca6efdf98f846a"
	for _, text := range []string{sha1 + "T1700000000R5", sha1 + "-shake128T0R18446744073709551615"} {
		b, err := parseBreadcrumb(text)
		if err != nil || b.String() != text {
			t.Errorf("parseBreadcrumb(%q) = %q, %v", text, b, err)
		}
	}
	// Old clients wrote no revision.
	if b, err := parseBreadcrumb(sha1 + "T7\n"); err != nil || b.revision != 0 || b.published != 7 {
		t.Errorf("old form: %+v, %v", b, err)
	}
	for _, text := range []string{"", sha1, sha1 + "T", sha1 + "TxR1", sha1 + "T1R", sha1 + "T1R-1", "xT1R1", sha1 + "T1R1R1"} {
		if b, err := parseBreadcrumb(text); err == nil {
			t.Errorf("parseBreadcrumb(%q) = %+v, want an error", text, b)
		}
	}
}

func FuzzBreadcrumb(f *testing.F) {
	f.Add("6dbbb8b9d178f811e278804874ca6efdf98f846aT1700000000R5")
	f.Add("T1R2")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := parseBreadcrumb(text)
		if err != nil {
			return
		}
		again, err := parseBreadcrumb(b.String())
		if err != nil || again != b {
			t.Errorf("%q reads as %+v, which is written as %q and reads as %+v, %v", text, b, b, again, err)
		}
	})
}

func TestClean(t *testing.T) {
	for p, want := range map[string]string{"": "", "/": "", "a": "/a", "/a/": "/a", "/a//b": "/a/b", "/a/../b": "/b", "/..": "", ".": ""} {
		if got := clean(p); got != want {
			t.Errorf("clean(%q) = %q, want %q", p, got, want)
		}
	}
}

func TestPathCacheIsBounded(t *testing.T) {
	c := newPathCache(100)
	c.put("/kept", nil)
	for i := range 10000 {
		c.put(strings.Repeat("x", i%997)+string(rune('a'+i%26)), &catalog.Entry{})
		c.get("/kept") // in use, so it survives
	}
	if _, known := c.get("/kept"); !known {
		t.Error("an entry in use was forgotten")
	}
	if n := len(c.young) + len(c.old); n > 100 {
		t.Errorf("%d entries, want 100 at most", n)
	}
}

func TestLineage(t *testing.T) {
	group := catalog.Entry{Mode: catalog.ModeRegular, HardlinkGroup: 7}
	if Lineage("/d/a", group) != Lineage("/d/b", group) || Lineage("/d/a", group) == Lineage("/e/a", group) {
		t.Error("members of a group in one directory must have one lineage, in two directories two")
	}
	if got := Lineage("/d/a", catalog.Entry{Mode: catalog.ModeRegular}); got != "/d/a" {
		t.Errorf("Lineage of a single file = %q", got)
	}
}

// What is read of tags is what was written of them, and of anything else at most
// as many as are remembered.
func FuzzTags(f *testing.F) {
	const root = "6dbbb8b9d178f811e278804874ca6efdf98f846a"
	line := root + " 3 trunk\n"
	f.Add(line)
	f.Add(line + "x\n" + root + "-shake128 18446744073709551615 @2026-01-01T00:00:00Z")
	f.Add(strings.Repeat(line, 100))
	f.Add(strings.Repeat("0", 32) + " 0 0") // a hash that names nothing
	f.Fuzz(func(t *testing.T, text string) {
		known := parseTags(text)
		if len(known) > maxTags || len(known) > strings.Count(text, "\n")+1 {
			t.Errorf("%d tags", len(known))
		}
		for tag, v := range known {
			again := parseTags(tagLine(tag, v))
			if len(again) != 1 || again[tag] != v {
				t.Errorf("tag %q, %+v is read again as %+v", tag, v, again)
			}
		}
	})
}
