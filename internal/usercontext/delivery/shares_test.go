package delivery

import (
	"testing"

	"github.com/micavm/mica/internal/fail"
)

func TestSharesRefused(t *testing.T) {
	fine := Share{Name: "data", Type: "9p"}
	for name, shares := range map[string][]Share{
		"path":     {{Name: "../x", Type: "9p"}},
		"letters":  {{Name: "ü", Type: "9p"}},
		"no name":  {{Type: "9p"}},
		"tag":      {{Name: "x", Type: "9p", Tag: "a,b"}},
		"type":     {{Name: "x", Type: "nfs"}},
		"twice":    {fine, {Name: "data", Type: "vboxsf"}},
		"too many": make([]Share, maxShares+1),
	} {
		if _, err := (Meta{Shares: shares}).Complete(nil); !fail.Is(err, fail.Usage) {
			t.Errorf("%s: Complete = %v, want class Usage", name, err)
		}
	}
	if _, err := (Meta{Shares: []Share{fine}}).Complete(nil); err != nil {
		t.Errorf("Complete = %v", err)
	}
}

// TestSharesAreOfTheIdentity: another list is to be read by the guest, and none
// at all leaves the identity as it has always been.
func TestSharesAreOfTheIdentity(t *testing.T) {
	id := func(shares []Share) string {
		m, err := Meta{Hostname: "h", Shares: shares}.Complete([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return m.InstanceID
	}
	none, one := id(nil), id([]Share{{Name: "a", Type: "9p"}})
	if none == one || one == id([]Share{{Name: "a", Type: "9p", ReadOnly: true}}) || id([]Share{}) != none {
		t.Errorf("identities %s %s", none, one)
	}
}
