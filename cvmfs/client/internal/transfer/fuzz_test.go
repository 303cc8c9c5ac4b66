package transfer

import (
	"slices"
	"strings"
	"testing"
)

// An order that a server gives has each server once, or is refused.
func FuzzOrder(f *testing.F) {
	f.Add("2,1,3\n", uint8(3))
	f.Add("1,1", uint8(2))
	f.Add("0,+1,-2,9999999999999999999", uint8(4))
	f.Add("", uint8(0))
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		order, err := parseOrder(text, int(n))
		if err != nil {
			if order != nil {
				t.Errorf("parseOrder = %v, %v", order, err)
			}
			return
		}
		sorted := slices.Sorted(slices.Values(order))
		for i, at := range sorted {
			if i != at {
				t.Fatalf("parseOrder(%q, %d) = %v", text, n, order)
			}
		}
		if len(order) != int(n) {
			t.Errorf("parseOrder(%q, %d) has %d", text, n, len(order))
		}
	})
}

// What a proxy script answers gives groups of one proxy that can be used, each.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{"PROXY a:1; DIRECT", "HTTPS a:1;SOCKS b:2;;", "PROXY", "proxy a b|c", "PROXY [::1]:x", "DIRECT x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		for _, group := range readAnswer(answer) {
			if len(group) != 1 || strings.TrimSpace(group[0]) == "" {
				t.Fatalf("readAnswer(%q) has the group %q", answer, group)
			}
			if group[0] == Direct {
				continue
			}
			if p, err := parseProxy(group[0]); err != nil || p == nil {
				t.Errorf("readAnswer(%q) has %q: %v", answer, group[0], err)
			}
		}
	})
}
