package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
)

// Command is one program to run.
type Command struct {
	Name    string        // looked up in PATH unless it has a slash
	Args    []string      // without the name
	Dir     string        // working directory; empty is the current one
	Env     []string      // added to the environment, NAME=value
	Stdin   io.Reader     // nil is the null device
	Stdout  io.Writer     // where standard output goes as it comes, besides Result.Stdout
	Timeout time.Duration // zero is no limit beyond the context's
	Secrets []string      // masked in logs and errors
}

// Result is what a finished program left.
type Result struct {
	Stdout []byte
	Stderr []byte
	Code   int
}

// Error is a program that ended with another code than zero.
type Error struct {
	Command string // the command line, secrets masked
	Result  Result
}

func (e *Error) Error() string {
	msg := fmt.Sprintf("%s: exit code %d", e.Command, e.Result.Code)
	if text := lastLine(e.Result.Stderr); text != "" {
		msg += ": " + text
	}
	return msg
}

// Runner runs commands. Host is the real one; Replay plays a transcript.
type Runner interface {
	// Run waits for the command to end. The error is nil only if it ended with
	// code zero; a *Error carries the output of one that did not.
	Run(ctx context.Context, c Command) (Result, error)
}

// Host runs programs on this computer. The zero value is ready to use.
type Host struct {
	Log *slog.Logger // hears of every command at debug level; nil discards
}

// Run implements Runner.
func (h Host) Run(ctx context.Context, c Command) (Result, error) {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, c.Name, c.Args...) //nolint:gosec // an argument list, chosen by the caller
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	// Plain "C" makes some programs (VBoxManage 7) print nothing outside ASCII.
	cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8"), c.Env...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if c.Stdout != nil {
		cmd.Stdout = io.MultiWriter(&stdout, c.Stdout)
	}
	began := time.Now()
	err := cmd.Run()
	r := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Code: cmd.ProcessState.ExitCode()}
	if h.Log != nil {
		h.Log.Debug("ran", "command", c.line(), "code", r.Code, "seconds", time.Since(began).Seconds())
	}
	return r, c.explain(ctx, r, err)
}

func (c Command) explain(ctx context.Context, r Result, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return fail.New(fail.HostLacks, "%s: no such program on this computer", c.Name)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", c.line(), context.Cause(ctx))
	case errors.As(err, &exit):
		return &Error{Command: c.line(), Result: r}
	}
	return fmt.Errorf("%s: %w", c.line(), err)
}

// line is the command as a person reads it, secrets masked.
func (c Command) line() string {
	line := strings.Join(append([]string{c.Name}, c.Args...), " ")
	for _, secret := range c.Secrets {
		if secret != "" {
			line = strings.ReplaceAll(line, secret, "********")
		}
	}
	return line
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
