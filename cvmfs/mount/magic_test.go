package mount

import (
	"fmt"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs/client"
)

// Pages hold what the value held, each with the heading, none too long.
func TestPages(t *testing.T) {
	var body strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&body, "%040x,%d,1\n", i, i)
	}
	list := pages(chunkHeader + body.String())
	if len(list) < 2 {
		t.Fatalf("%d pages of %d bytes", len(list), body.Len())
	}
	var joined strings.Builder
	for i, p := range list {
		rest, ok := strings.CutPrefix(p, chunkHeader)
		if !ok || len(p) > pageSize || rest == "" {
			t.Errorf("page %d has %d bytes, and begins with %.20q", i, len(p), p)
		}
		joined.WriteString(rest)
	}
	if joined.String() != body.String() {
		t.Error("the pages are not the value")
	}
	for _, whole := range []string{"", "x", chunkHeader, "no end\nof line", strings.Repeat("x", 2*pageSize)} {
		if got := pages(whole); len(got) != 1 || got[0] != whole {
			t.Errorf("%.20q became %d pages", whole, len(got))
		}
	}
}

func TestRates(t *testing.T) {
	s := client.Stats{Objects: 1, CacheHits: 2, Sliced: 1, Bytes: 3 << 20, Transfer: 1500e6}
	if got := hitRate(s); got != "75.000" {
		t.Errorf("hit rate %s", got)
	}
	if got := speed(s); got != "2048" {
		t.Errorf("speed %s", got)
	}
	if hitRate(client.Stats{}) != "n/a" || speed(client.Stats{}) != "n/a" {
		t.Error("rates of nothing")
	}
	if got, want := counterList(map[string]int64{"self_dir": 1, "subtree_dir": 2, "self_file_size": 5}), "dir,3\nfile_size,5\n"; got != want {
		t.Errorf("counters %q, want %q", got, want)
	}
}
