package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"
)

// commandTimeout is how long a program may take that no one gave a time.
const commandTimeout = 5 * time.Minute

// maxOutput bounds how much of a program's output is kept.
const maxOutput = 1 << 20

// searchPath is where programs are looked for, as init scripts do.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// PATH is the value of that variable for everything the agent runs.
func PATH() string { return strings.Join(searchPath, ":") }

// Command is one program to run. Arguments are visible to every user of the
// system, so secrets go through Stdin.
type Command struct {
	Name    string   // looked up in PATH unless it has a slash
	Args    []string // without the name
	Env     []string // NAME=value, the whole environment besides PATH, HOME and LANG
	Dir     string   // "" is /
	Stdin   []byte
	Output  *os.File      // where both outputs go; nil keeps them in the result
	Timeout time.Duration // zero is 5 minutes, negative is none
}

// Line is the command as a person reads it.
func (c Command) Line() string {
	words := append([]string{c.Name}, c.Args...)
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$&|;<>()*?`#~") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// Result is what a finished program left.
type Result struct {
	Output []byte // both outputs, at most 1 MiB
	Code   int    // as a shell reports it: 128+n for signal n
}

// Runner runs programs. Exec is the real one.
type Runner interface {
	// Run waits for the program to end. The error is nil whatever the exit code;
	// it says that the program was not started, or was stopped for taking too long.
	Run(ctx context.Context, c Command) (Result, error)
}

// Exec runs programs of this system.
type Exec struct{}

// Run implements Runner. The program gets a session of its own, without a
// terminal; when its time is over the whole process group is killed.
func (Exec) Run(ctx context.Context, c Command) (Result, error) {
	if c.Timeout == 0 {
		c.Timeout = commandTimeout
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, c.Name, c.Args...) //nolint:gosec // an argument list, chosen by the caller
	if !strings.Contains(c.Name, "/") {
		for _, dir := range searchPath {
			if found, err := exec.LookPath(path.Join(dir, c.Name)); err == nil {
				cmd.Path, cmd.Err = found, nil
				break
			}
		}
	}
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append([]string{"PATH=" + PATH(), "HOME=/root", "LANG=C.UTF-8"}, c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	var out tail
	if c.Output != nil {
		// A file, not a pipe: a daemon that a script leaves behind keeps it open,
		// and waiting for that would never end.
		cmd.Stdout, cmd.Stderr = c.Output, c.Output
	} else {
		cmd.Stdout = &out
		cmd.Stderr = &out
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Result{Output: out.data, Code: -1}, fmt.Errorf("%s: %w", c.Name, ctx.Err())
	case errors.As(err, &exit):
		code := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		return Result{Output: out.data, Code: code}, nil
	case errors.Is(err, exec.ErrWaitDelay): // ended, but a child holds its output
		return Result{Output: out.data}, nil
	case err != nil:
		return Result{Output: out.data, Code: 127}, fmt.Errorf("running %s: %w", c.Name, err)
	}
	return Result{Output: out.data}, nil
}

// tail keeps the first maxOutput bytes and swallows the rest.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p[:min(len(p), maxOutput-len(t.data))]...)
	return len(p), nil
}

var _ io.Writer = (*tail)(nil)

// Has reports whether the system has a program of that name.
func (r *Root) Has(name string) bool {
	if r.options.Pretend {
		return true
	}
	if strings.Contains(name, "/") {
		return r.executable(name)
	}
	for _, dir := range searchPath {
		if r.executable(path.Join(dir, name)) {
			return true
		}
	}
	return false
}

func (r *Root) executable(name string) bool {
	info, err := r.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Run runs a program and returns what it printed. Another exit code than zero is
// an error that ends in the last line of the output.
func (r *Root) Run(ctx context.Context, name string, args ...string) (string, error) {
	res, err := r.RunCommand(ctx, Command{Name: name, Args: args})
	if err != nil {
		return "", err
	}
	if res.Code != 0 {
		err := fmt.Errorf("%s: exit code %d", Command{Name: name, Args: args}.Line(), res.Code)
		if lines := Lines(bytes.TrimSpace(res.Output)); len(lines) > 0 {
			err = fmt.Errorf("%w: %s", err, lines[len(lines)-1])
		}
		return string(res.Output), err
	}
	return string(res.Output), nil
}

// RunCommand runs a program. Only a program that could not be run is an error.
func (r *Root) RunCommand(ctx context.Context, c Command) (Result, error) {
	r.Note(Action{Kind: KindCommand, Target: c.Line()})
	return r.start(ctx, c)
}

// start runs a program without recording it.
func (r *Root) start(ctx context.Context, c Command) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{Code: -1}, err
	}
	if r.options.Runner == nil {
		return Result{}, nil
	}
	return r.options.Runner.Run(ctx, c)
}

// Start runs a program as RunCommand does, for a caller that records it itself.
func (r *Root) Start(ctx context.Context, c Command) (Result, error) { return r.start(ctx, c) }
