package machine_test

import (
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// TestSupports sees that no wish is dropped in silence.
func TestSupports(t *testing.T) {
	plain := machine.Report{Driver: "d"}
	rich := machine.Report{
		Driver: "d", Options: map[string]string{"firmware": "bios or uefi"},
		Features: []machine.Feature{
			machine.Networks, machine.VNC, machine.GUI, machine.SharedFolders, machine.ExecutionCaps, machine.Clipboards, machine.DiskImages,
		},
	}
	for _, tc := range []struct {
		spec machine.Spec
		want string // in the refusal of a plain driver
	}{
		{machine.Spec{}, ""},
		{machine.Spec{Network: "nat", ExecutionCap: 100}, ""},
		{machine.Spec{Network: "bridge0"}, "--network bridge0"},
		{machine.Spec{Display: "vnc"}, "--display vnc"},
		{machine.Spec{Display: "gui"}, "--display gui"},
		{machine.Spec{Shares: []machine.Share{{Name: "x", Path: "/x"}}}, "--share"},
		{machine.Spec{ExecutionCap: 50}, "--execution-cap"},
		{machine.Spec{Clipboard: true}, "--clipboard"},
		{machine.Spec{Image: machine.Image{Format: "qcow2"}}, "format qcow2"},
		{machine.Spec{Options: map[string]string{"firmware": "uefi"}}, `option "firmware"`},
	} {
		err := plain.Supports(tc.spec)
		if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || !fail.Is(err, fail.Usage)) {
			t.Errorf("Supports(%+v) = %v, want %q", tc.spec, err, tc.want)
		}
		if err := rich.Supports(tc.spec); err != nil {
			t.Errorf("Supports(%+v) of a driver that can = %v, want nil", tc.spec, err)
		}
	}
	err := rich.Supports(machine.Spec{Options: map[string]string{"firmwre": "uefi"}})
	if hints := fail.Hints(err); len(hints) != 1 || hints[0] != `did you mean "firmware"?` {
		t.Errorf("hints of an unknown option = %q, want the nearest one", hints)
	}
}
