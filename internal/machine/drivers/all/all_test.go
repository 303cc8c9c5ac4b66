package all_test

import (
	"slices"
	"testing"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/all"
)

// TestDrivers makes every driver, which panics if two have one name.
func TestDrivers(t *testing.T) {
	r := all.Drivers(machine.Env{})
	if !slices.Contains(r.Names(), all.Default) {
		t.Errorf("drivers %q lack the default one, %q", r.Names(), all.Default)
	}
	for _, name := range r.Names() {
		if _, err := r.Get(name); err != nil {
			t.Errorf("Get(%q): %v", name, err)
		}
	}
}
