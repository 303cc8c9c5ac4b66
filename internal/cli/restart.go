package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newRestart(a *app) *cobra.Command {
	var powerOff, wait bool
	var patience, timeout time.Duration
	cmd := &cobra.Command{
		Use:   "restart NAME...",
		Short: "Shut machines down and start them again",
		Long: `Ask the guest to shut down, power it off if it does not within --patience, and
start it again.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if powerOff {
				patience = 0
			}
			return a.each(args, func(name string) error {
				if err := fleet.Restart(cmd.Context(), name, patience); err != nil {
					return err
				}
				if wait {
					if err := waitSSH(cmd.Context(), fleet, name, timeout); err != nil {
						return err
					}
				}
				_, err := fmt.Fprintf(a.Out, "%s has started\n", name)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&powerOff, "power-off", false, "do not ask the guest")
	cmd.Flags().DurationVar(&patience, "patience", 2*time.Minute, "how long the guest may take to shut down")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until SSH answers")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait with --wait")
	return cmd
}
