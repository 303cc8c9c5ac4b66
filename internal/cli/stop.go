package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
)

func newStop(a *app) *cobra.Command {
	var powerOff, shutdown, dryRun bool
	var which chooser
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop NAME...",
		Short: "Stop machines; 'start' goes on where they were",
		Long: `Stop machines. Their memory is saved to disk, and 'mica start' goes on at that
very point. With --shutdown the guest is asked to shut down instead, as by its
power button; with --power-off it is cut off, and saved memory is dropped.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if powerOff && shutdown {
				return fail.New(fail.Usage, "--power-off and --shutdown exclude each other")
			}
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			stop, what := fleet.Save, "saved"
			switch {
			case powerOff:
				stop, what = fleet.PowerOff, "off"
			case shutdown:
				what = "off"
				stop = func(ctx context.Context, name string) (bool, error) { return fleet.Shutdown(ctx, name, timeout) }
			}
			return which.each(cmd.Context(), fleet, args, true, func(ctx context.Context, name string) error {
				if dryRun {
					m, err := fleet.Get(ctx, name)
					if err == nil {
						err = a.print("would stop %s, which is %s", name, m.State)
					}
					return err
				}
				changed, err := stop(ctx, name)
				if err != nil {
					return err
				}
				if !changed {
					return a.print("%s is stopped already", name)
				}
				return a.print("%s is %s", name, what)
			})
		},
	}
	cmd.Flags().BoolVar(&powerOff, "power-off", false, "cut it off at once")
	cmd.Flags().BoolVar(&shutdown, "shutdown", false, "ask the guest to shut down")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long --shutdown waits")
	which.add(cmd, "all machines that run")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be stopped")
	return cmd
}
