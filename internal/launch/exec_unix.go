//go:build !windows

package launch

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// Exec replaces this process; it is a Program's SSH.
func Exec(_ context.Context, path string, argv []string) (int, error) {
	return 0, unix.Exec(path, argv, os.Environ())
}
