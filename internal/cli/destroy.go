package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newDestroy(a *app) *cobra.Command {
	var force, yes, dryRun bool
	var which chooser
	cmd := &cobra.Command{
		Use:     "destroy NAME...",
		Aliases: []string{"rm"},
		Short:   "Remove machines with everything on their disks",
		Long: `Remove machines and everything that belongs to them, after a question, or with
--force or --yes. Without a terminal to ask at, one of these is needed. With
several machines, --all or --label there is one question for all of them. What a
killed command left, or the platform lost, is cleared without a question.`,
		Example: `  mica destroy demo
  mica destroy --all --label batch --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			force = force || yes
			if which.all || len(which.labels) > 0 || len(args) > 1 {
				agreed, err := a.agreeToDestroy(cmd.Context(), fleet, which, args, force || dryRun)
				if err != nil || !agreed {
					return err
				}
				force = true
			}
			return which.each(cmd.Context(), fleet, args, false, func(ctx context.Context, name string) error {
				return a.destroy(ctx, fleet, name, force, dryRun)
			})
		},
	}
	which.add(cmd, "every machine, or with --label those that have it")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "ask nothing, also if its record is damaged or its platform silent")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "the same as --force")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed")
	return cmd
}

// agreeToDestroy asks once for many machines.
func (a *app) agreeToDestroy(ctx context.Context, fleet *machine.Fleet, which chooser, args []string, agreed bool) (bool, error) {
	names, err := fleet.Choose(ctx, machine.Choice{Names: args, Labels: which.labels, All: which.all})
	if err != nil || len(names) == 0 || agreed {
		return agreed, err
	}
	yes, asked := a.ask(fmt.Sprintf("Destroy %d machines and their disks (%s)?", len(names), strings.Join(names, ", ")))
	switch {
	case !asked:
		return false, fail.New(fail.Usage, "%d machines would be destroyed: %s", len(names), strings.Join(names, ", ")).Hint("pass --yes if that is what you want")
	case !yes:
		a.tell("they are left as they were")
	}
	return yes, nil
}

func (a *app) destroy(ctx context.Context, fleet *machine.Fleet, name string, force, dryRun bool) error {
	m, err := fleet.Get(ctx, name)
	if err != nil {
		return err
	}
	if dryRun {
		return a.print("would destroy %s, which is %s", name, m.State)
	}
	if !force && (m.State.Live() || m.State == machine.Saved || m.State == machine.Stopped) {
		yes, asked := a.ask(fmt.Sprintf("%s is %s. Destroy it and its disk?", name, m.State))
		switch {
		case !asked:
			return fail.New(fail.Usage, "%q is %s, and would be gone with its disk", name, m.State).Hint("'mica destroy --force %s' destroys it all the same", name)
		case !yes:
			a.tell("%s is left as it was", name)
			return nil
		}
		force = true
	}
	return fleet.Destroy(ctx, name, force)
}
