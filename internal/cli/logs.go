package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/stage"
)

func newLogs(a *app) *cobra.Command {
	var raw, follow bool
	var output string
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Show what a machine's boot did, stage by stage",
		Long: `Show the stages of the machine's boot with how long each took. With --raw show
everything that the machine wrote to its console since it was switched on.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, name := cmd.Context(), args[0]
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			switch {
			case raw:
				return fleet.CopyLog(ctx, name, a.Out, follow)
			case follow:
				return a.followStages(ctx, fleet, name)
			}
			m, err := fleet.Get(ctx, name)
			if err != nil {
				return err
			}
			events, err := fleet.Stages(ctx, m)
			if err != nil {
				return err
			}
			return stageListing(events).print(a.Out, output)
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "the whole console, as it is")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more comes: stages until the context is applied, --raw until the machine is off")
	outputFlag(cmd, &output)
	return cmd
}

// followStages prints stages to standard output: here they are the result.
func (a *app) followStages(ctx context.Context, fleet *machine.Fleet, name string) error {
	var werr error
	err := fleet.Follow(ctx, name, func(e stage.Event) {
		if e.State != stage.Started && werr == nil {
			_, werr = fmt.Fprintln(a.Out, stageLine(e))
		}
	})
	if ctx.Err() != nil {
		return fail.New(fail.Interrupted, "no longer following %q", name)
	}
	if err == nil {
		err = werr
	}
	return err
}

func stageListing(events []stage.Event) listing[stage.Event] {
	col := func(head string, cell func(stage.Event) string) column[stage.Event] {
		return column[stage.Event]{head: head, cell: cell}
	}
	seconds := func(s float64) string {
		if s == 0 {
			return "-"
		}
		return strconv.FormatFloat(s, 'f', 2, 64)
	}
	l := listing[stage.Event]{
		Schema: 1,
		name:   stageName,
		columns: []column[stage.Event]{
			col("STAGE", stageName),
			col("RESULT", func(e stage.Event) string { return clean(string(e.State)) }),
			col("SECONDS", func(e stage.Event) string { return seconds(e.Seconds) }),
			col("UPTIME", func(e stage.Event) string { return seconds(e.Uptime) }),
			col("DETAIL", func(e stage.Event) string {
				text := clean(e.Detail)
				if e.Remedy != "" {
					text += " (" + clean(e.Remedy) + ")"
				}
				return text
			}),
		},
	}
	// A stage that ended shows its end only; one that did not shows its start.
	for i, e := range events {
		if e.State == stage.Started && ended(events[i+1:], e.Stage) {
			continue
		}
		l.Items = append(l.Items, e)
	}
	return l
}

// ended reports whether the stage ends before it starts again.
func ended(rest []stage.Event, name string) bool {
	for _, e := range rest {
		if e.Stage == name {
			return e.State != stage.Started
		}
	}
	return false
}
