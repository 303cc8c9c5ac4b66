package units

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/tier"
)

var someShares = []Share{
	{Name: "data", Type: "9p"},
	{Name: "a=b+c@d.e_f-g", Type: "9p", Tag: "share1", ReadOnly: true},
	{Name: "fast", Type: "virtiofs"},
	{Name: "vm_sf", Type: "vboxsf", ReadOnly: true},
}

// TestUnitNames compares with systemd's own: a mount unit under another name is
// refused.
func TestUnitNames(t *testing.T) {
	program := tier.Tool(t, "systemd-escape")
	for _, s := range append(someShares, Share{Name: "X.y"}, Share{Name: "0--"}) {
		out, err := exec.CommandContext(t.Context(), program, "--path", "--suffix=mount", s.Where()).Output() //nolint:gosec // a test
		if want := strings.TrimSpace(string(out)); err != nil || s.unit() != want {
			t.Errorf("unit of %q = %q, want %q (%v)", s.Name, s.unit(), want, err)
		}
	}
}
