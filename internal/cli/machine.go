package cli

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/all"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/run"
)

// fleet opens the user's machines.
func (a *app) fleet(sink progress.Sink) (*machine.Fleet, error) {
	home, err := machine.HomeOf(a.Env)
	if err != nil {
		return nil, err
	}
	return &machine.Fleet{
		Home:     home,
		Drivers:  all.Drivers(machine.Env{Run: run.Host{Log: a.log}, Log: a.log, Getenv: a.Env}),
		Log:      a.log,
		Progress: sink,
		Say:      func(text string) { a.tell("note: %s", text) },
	}, nil
}

// tell writes a line that is not the result.
func (a *app) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Err, format+"\n", args...)
}

// each runs do for every name. It goes on past failures; the error says which
// names they belong to, and is Partial where others succeeded.
func (a *app) each(names []string, do func(name string) error) error {
	if len(names) == 1 {
		return do(names[0])
	}
	var failed []string
	var errs []error
	for _, name := range names {
		if err := do(name); err != nil {
			failed, errs = append(failed, name), append(errs, err)
			if fail.Is(err, fail.Interrupted) {
				break
			}
		}
	}
	switch {
	case len(errs) == 0:
		return nil
	case len(errs) == len(names):
		return fail.New(fail.ClassOf(errs[0]), "%w", errors.Join(errs...))
	}
	return fail.New(fail.Partial, "not done for %s: %w", strings.Join(failed, ", "), errors.Join(errs...))
}

// ask puts a question to a person; without one at the terminal the answer is no.
func (a *app) ask(question string) (yes, asked bool) {
	if !isTerminal(a.In) || !isTerminal(a.Err) {
		return false, false
	}
	_, _ = fmt.Fprintf(a.Err, "%s [y/N] ", question)
	line, _ := bufio.NewReader(a.In).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, true
	}
	return false, true
}
