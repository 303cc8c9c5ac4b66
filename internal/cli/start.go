package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newStart(a *app) *cobra.Command {
	var wait bool
	var which chooser
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "start NAME...",
		Short: "Start machines, or go on where they were stopped",
		Long: `Start machines that are off, and let saved and paused ones go on at the point
where they were. One that runs already is left alone.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			return which.each(cmd.Context(), fleet, args, false, func(ctx context.Context, name string) error {
				before, err := fleet.Start(ctx, name)
				if err != nil {
					return err
				}
				if wait {
					if err := waitSSH(ctx, fleet, name, timeout); err != nil {
						return err
					}
				}
				how := map[machine.State]string{
					machine.Running: "%s runs already", machine.Saved: "%s goes on where it was saved", machine.Paused: "%s goes on",
				}[before]
				if how == "" {
					how = "%s has started"
				}
				return a.print(how, name)
			})
		},
	}
	which.add(cmd, "")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until SSH answers")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait with --wait")
	return cmd
}

func waitSSH(ctx context.Context, fleet *machine.Fleet, name string, timeout time.Duration) error {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := fleet.WaitSSH(within, name)
	if err != nil && ctx.Err() == nil && within.Err() != nil {
		return fail.New(fail.TimedOut, "%w", err).Hint("it goes on; 'mica logs --raw %s' shows what it says", name)
	}
	return err
}
