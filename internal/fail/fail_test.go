package fail_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
)

func TestClassOf(t *testing.T) {
	inner := fail.New(fail.NotFound, "no such tag %q", "v1")
	for _, tc := range []struct {
		name string
		err  error
		want fail.Class
	}{
		{"plain", errors.New("x"), fail.Failed},
		{"classed", inner, fail.NotFound},
		{"wrapped", fmt.Errorf("opening: %w", inner), fail.NotFound},
		{"outermost wins", fail.New(fail.Refused, "server: %w", inner), fail.Refused},
		{"cancelled", fmt.Errorf("copying: %w", context.Canceled), fail.Interrupted},
		{"deadline", fmt.Errorf("copying: %w", context.DeadlineExceeded), fail.TimedOut},
		{"joined", errors.Join(errors.New("a"), inner), fail.NotFound},
	} {
		if got := fail.ClassOf(tc.err); got != tc.want {
			t.Errorf("%s: ClassOf = %d, want %d", tc.name, got, tc.want)
		}
	}
	if fail.Is(nil, fail.Failed) {
		t.Error("Is(nil, Failed) = true, want false")
	}
}

func TestHints(t *testing.T) {
	a := fail.New(fail.HostLacks, "no qemu").Hint("install %s", "qemu-system-x86")
	b := fail.New(fail.Failed, "no disk").Hint("free some space")
	err := fail.New(fail.Failed, "creating: %w", errors.Join(a, b)).Hint("try again")
	want := []string{"try again", "install qemu-system-x86", "free some space"}
	if diff := cmp.Diff(want, fail.Hints(err)); diff != "" {
		t.Errorf("Hints (-want +got):\n%s", diff)
	}
}
