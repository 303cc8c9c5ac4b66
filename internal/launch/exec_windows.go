package launch

import (
	"context"
	"errors"
	"os"
	"os/exec"
)

// Exec runs the program on this console, since a process cannot be replaced
// here; it is a Program's SSH.
func Exec(ctx context.Context, path string, argv []string) (int, error) {
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
