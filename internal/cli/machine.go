package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

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
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = fmt.Fprintf(a.Err, format+"\n", args...)
}

// print writes a line of the result. Machines that are worked on at the same
// time share standard output.
func (a *app) print(format string, args ...any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := fmt.Fprintf(a.Out, format+"\n", args...)
	return err
}

// chooser is the flags of commands that take one machine or many.
type chooser struct {
	labels   []string
	all      bool
	parallel int
}

// add puts the flags on a command; live says that --all means those that run.
func (c *chooser) add(cmd *cobra.Command, all string) {
	cmd.Flags().StringArrayVar(&c.labels, "label", nil, "the machines that have this label (may be repeated: those that have all)")
	cmd.Flags().IntVar(&c.parallel, "parallel", 0, "how many at the same time; default: by processors")
	if all != "" {
		cmd.Flags().BoolVar(&c.all, "all", false, all)
	}
}

// each runs do for every machine that is meant.
func (c *chooser) each(ctx context.Context, fleet *machine.Fleet, names []string, live bool, do func(ctx context.Context, name string) error) error {
	names, err := fleet.Choose(ctx, machine.Choice{Names: names, Labels: c.labels, All: c.all, Live: live})
	if err != nil || len(names) == 0 {
		return err
	}
	parallel := c.parallel
	if parallel <= 0 {
		parallel = machine.AtOnce(machine.Spec{})
	}
	return machine.Each(ctx, names, parallel, do)
}

// ask puts a question to a person; without one at the terminal the answer is no.
func (a *app) ask(question string) (yes, asked bool) {
	if !isTerminal(a.In) || !isTerminal(a.Err) {
		return false, false
	}
	a.mu.Lock() // one question at a time
	defer a.mu.Unlock()
	_, _ = fmt.Fprintf(a.Err, "%s [y/N] ", question)
	line, _ := bufio.NewReader(a.In).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, true
	}
	return false, true
}
