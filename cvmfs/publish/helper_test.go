package publish_test

import (
	"context"
	"testing"
)

// cancelled returns a context that has ended, and the error it ended with.
func cancelled(t testing.TB) (context.Context, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, ctx.Err()
}
