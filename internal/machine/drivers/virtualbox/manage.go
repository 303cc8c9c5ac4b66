package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/run"
)

// How long VBoxManage may take: it hangs for ever when VirtualBox's service
// does, or when a dialog that nobody sees waits for an answer.
const (
	queryPatience  = 30 * time.Second
	changePatience = 60 * time.Second
	startPatience  = 180 * time.Second
	longPatience   = 10 * time.Minute // what moves memory or disks
	settlePatience = 60 * time.Second // for a machine to come out of a passing state
)

// Error is a VBoxManage that failed.
type Error struct {
	Command string // its first word: createvm, startvm, ...
	Code    string // VirtualBox's name of the error, where it says one
	Text    string // its own words, without the technical lines
	err     error
}

func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = e.err.Error()
	}
	if e.Code != "" && !strings.Contains(text, e.Code) {
		text += " (" + e.Code + ")"
	}
	return "VBoxManage " + e.Command + ": " + text
}

// Unwrap returns what the runner said.
func (e *Error) Unwrap() error { return e.err }

func (e *Error) says(words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return e.Code == w || strings.Contains(e.Text, w) })
}

// says reports whether err is VBoxManage's and has one of the words as its code
// or in its text.
func says(err error, words ...string) bool {
	var e *Error
	return errors.As(err, &e) && e.says(words...)
}

// unregistered reports whether VirtualBox knows no such machine.
func unregistered(err error) bool {
	return says(err, "VBOX_E_OBJECT_NOT_FOUND", "Could not find a registered machine")
}

// limited is what VirtualBox says of a machine whose settings it cannot read,
// and for a moment of one whose session ends.
const limited = "object functionality is limited"

// passing reports whether err is one of those that VirtualBox gives for a
// moment: while a session ends, and while its service starts. In all of them
// nothing has been done.
func passing(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.says("already locked", "being locked or unlocked", "The session is not locked", "The object is not ready", limited,
		"console object from the direct session", "ailed to create the VirtualBox object")
}

// syntax reports whether VBoxManage did not know an option or a command.
func syntax(err error) bool {
	var e *Error
	return errors.As(err, &e) && regexp.MustCompile(`(?i)unknown option|unknown (sub)?command|syntax error|invalid (parameter|command|option)|unrecogni[sz]ed`).MatchString(e.Text)
}

var (
	errorLine = regexp.MustCompile(`(?m)^(?:VBoxManage(?:\.exe)?: )?(?i:error|syntax error): *(.*)$`)
	codeWord  = regexp.MustCompile(`\bcode (\w+) \(0x`)
)

// explain reads what VBoxManage left. It can fail with exit code 0, too.
func explain(args []string, r run.Result, err error) error {
	var exit *run.Error
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	stderr := strings.ReplaceAll(string(r.Stderr), "\r", "")
	if exit != nil {
		stderr = strings.ReplaceAll(string(exit.Result.Stderr), "\r", "")
	}
	e := &Error{Command: args[0], err: err}
	var words []string
	for _, m := range errorLine.FindAllStringSubmatch(stderr, -1) {
		switch {
		case strings.HasPrefix(m[1], "Details: "), strings.HasPrefix(m[1], "Context: "):
			if code := codeWord.FindStringSubmatch(m[1]); code != nil && e.Code == "" {
				e.Code = code[1]
			}
		case m[1] != "":
			words = append(words, strings.TrimSuffix(m[1], "."))
		}
	}
	if err == nil && len(words) == 0 {
		return nil
	}
	e.Text = strings.Join(words, "; ")
	if e.Text == "" {
		e.Text = strings.TrimSpace(stderr)
		if len(e.Text) > 500 {
			e.Text = e.Text[len(e.Text)-500:]
		}
	}
	if e.err == nil {
		e.err = errors.New("it reports an error and exit code 0")
	}
	if e.says("VERR_DISK_FULL", "VERR_FILE_TOO_BIG") {
		return fmt.Errorf("%w: %w", e, syscall.ENOSPC)
	}
	return e
}

// vbox runs VBoxManage, again where that helps, and returns what it wrote.
func (d *Driver) vbox(ctx context.Context, patience time.Duration, args ...string) (string, error) {
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return "", fmt.Errorf("VBoxManage %s: %w", args[0], err)
		}
		out, err := d.once(ctx, patience, args...)
		if !passing(err) || try >= len(d.backoff) {
			return out, err
		}
		d.log.Debug("VBoxManage fails for the moment", "command", args[0], "error", err)
		if err := sleep(ctx, d.backoff[try]); err != nil {
			return "", fmt.Errorf("VBoxManage %s: %w", args[0], err)
		}
	}
}

// once runs VBoxManage one time.
func (d *Driver) once(ctx context.Context, patience time.Duration, args ...string) (string, error) {
	if d.limit > 0 {
		patience = min(patience, d.limit)
	}
	r, err := d.run.Run(ctx, run.Command{Name: d.program, Args: args, Timeout: patience})
	err = explain(args, r, err)
	switch {
	case err == nil:
		return strings.ReplaceAll(string(r.Stdout), "\r", ""), nil
	case notFound(err):
		return "", unusable(ctx, err)
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return "", fail.New(fail.TimedOut, "VBoxManage %s gave no answer within %s: %w", args[0], patience, err).
			Hint("see whether 'VBoxManage list vms' answers; if not, end the process VBoxSVC when no machine runs")
	}
	return "", err
}

func notFound(err error) bool {
	return fail.Is(err, fail.HostLacks) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

func sleep(ctx context.Context, t time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t):
		return nil
	}
}
