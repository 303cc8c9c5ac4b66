package undo_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/undo"
)

func TestRunIsNewestFirstAndOutlivesCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got []string
	s := undo.New(nil)
	for _, name := range []string{"a", "b", "c"} {
		s.Add(name, func(ctx context.Context) error {
			if ctx.Err() != nil {
				t.Errorf("%s: context is cancelled", name)
			}
			got = append(got, name)
			return errors.New("stuck")
		})
	}
	s.Run(ctx)
	s.Run(ctx) // a second run has nothing left to do
	if diff := cmp.Diff([]string{"c", "b", "a"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestReleaseKeeps(t *testing.T) {
	s := undo.New(nil)
	s.Add("x", func(context.Context) error { t.Error("released step was undone"); return nil })
	s.Release()
	s.Run(t.Context())
}
