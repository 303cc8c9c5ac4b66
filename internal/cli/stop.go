package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newStop(a *app) *cobra.Command {
	var powerOff, shutdown, every, dryRun bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop NAME...",
		Short: "Stop machines; 'start' goes on where they were",
		Long: `Stop machines. Their memory is saved to disk, and 'mica start' goes on at that
very point. With --shutdown the guest is asked to shut down instead, as by its
power button; with --power-off it is cut off, and saved memory is dropped.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if powerOff && shutdown {
				return fail.New(fail.Usage, "--power-off and --shutdown exclude each other")
			}
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if args, err = chosen(ctx, fleet, args, every); err != nil {
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
			return a.each(args, func(name string) error {
				if dryRun {
					m, err := fleet.Get(ctx, name)
					if err == nil {
						_, err = fmt.Fprintf(a.Out, "would stop %s, which is %s\n", name, m.State)
					}
					return err
				}
				changed, err := stop(ctx, name)
				if err != nil {
					return err
				}
				if !changed {
					what = "stopped already"
				}
				_, err = fmt.Fprintf(a.Out, "%s is %s\n", name, what)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&powerOff, "power-off", false, "cut it off at once")
	cmd.Flags().BoolVar(&shutdown, "shutdown", false, "ask the guest to shut down")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long --shutdown waits")
	cmd.Flags().BoolVar(&every, "all", false, "all machines that run")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be stopped")
	return cmd
}

// chosen returns the machines named, or with --all those that are live.
func chosen(ctx context.Context, fleet *machine.Fleet, names []string, every bool) ([]string, error) {
	switch {
	case every && len(names) > 0:
		return nil, fail.New(fail.Usage, "--all takes no names")
	case !every && len(names) == 0:
		return nil, fail.New(fail.Usage, "which machine?").Hint("name one or more, or pass --all")
	case !every:
		return names, nil
	}
	machines, err := fleet.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range machines {
		if m.State.Live() {
			names = append(names, m.Name)
		}
	}
	return names, nil
}
