package fakevbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/micavm/mica/internal/run"
)

// Runner runs the fake's VBoxManage inside this process, which is ten times as
// fast as a process of its own; other programs it runs as they are. A command
// whose context ends is left where it is, as if it had been killed.
type Runner struct{ run.Host }

// Run implements run.Runner.
func (r Runner) Run(ctx context.Context, c run.Command) (run.Result, error) {
	if _, err := os.Stat(c.Name); err != nil || filepath.Base(c.Name) != Program {
		return r.Host.Run(ctx, c)
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	line := strings.Join(append([]string{c.Name}, c.Args...), " ")
	var stdout, stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		f := open(c.Name)
		f.ctx, f.stdout, f.stderr, f.english = ctx, &stdout, &stderr, true // run.Host sees to the language
		ended <- f.main(c.Args)
	}()
	select {
	case code := <-ended:
		if err := ctx.Err(); err != nil && code != 0 {
			return run.Result{Code: -1}, fmt.Errorf("%s: %w", line, context.Cause(ctx))
		}
		result := run.Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Code: code}
		if code != 0 {
			return result, &run.Error{Command: line, Result: result}
		}
		return result, nil
	case <-ctx.Done():
		return run.Result{Code: -1}, fmt.Errorf("%s: %w", line, context.Cause(ctx))
	}
}

// errEnded is a command that was killed.
var errEnded = errors.New("killed")
