package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func newRestart(a *app) *cobra.Command {
	var powerOff, wait bool
	var which chooser
	var patience, timeout time.Duration
	cmd := &cobra.Command{
		Use:   "restart NAME...",
		Short: "Shut machines down and start them again",
		Long: `Ask the guest to shut down, power it off if it does not within --patience, and
start it again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if powerOff {
				patience = 0
			}
			return which.each(cmd.Context(), fleet, args, true, func(ctx context.Context, name string) error {
				if err := fleet.Restart(ctx, name, patience); err != nil {
					return err
				}
				if wait {
					if err := waitSSH(ctx, fleet, name, timeout); err != nil {
						return err
					}
				}
				return a.print("%s has started", name)
			})
		},
	}
	which.add(cmd, "")
	cmd.Flags().BoolVar(&powerOff, "power-off", false, "do not ask the guest")
	cmd.Flags().DurationVar(&patience, "patience", 2*time.Minute, "how long the guest may take to shut down")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until SSH answers")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait with --wait")
	return cmd
}
