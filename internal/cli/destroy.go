package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/machine"
)

func newDestroy(a *app) *cobra.Command {
	var force, yes, dryRun bool
	cmd := &cobra.Command{
		Use:     "destroy NAME...",
		Aliases: []string{"rm"},
		Short:   "Remove machines with everything on their disks",
		Long: `Remove machines and everything that belongs to them. A machine that runs is
removed after a question, or with --force.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error {
				return a.destroy(cmd.Context(), fleet, name, force || yes, dryRun)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also if it runs, or its record is damaged")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "the same as --force")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed")
	return cmd
}

func (a *app) destroy(ctx context.Context, fleet *machine.Fleet, name string, force, dryRun bool) error {
	m, err := fleet.Get(ctx, name)
	if err != nil {
		return err
	}
	if dryRun {
		_, err := fmt.Fprintf(a.Out, "would destroy %s, which is %s\n", name, m.State)
		return err
	}
	if m.State.Live() && !force {
		yes, asked := a.ask(fmt.Sprintf("%s is %s. Destroy it and its disk?", name, m.State))
		if asked && !yes {
			a.tell("%s is left as it was", name)
			return nil
		}
		force = yes
	}
	return fleet.Destroy(ctx, name, force)
}
