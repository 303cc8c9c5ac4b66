package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newPause(a *app) *cobra.Command {
	return a.pauser("pause", "Freeze machines; they keep their memory and use no processor", true, "paused")
}

// pauser makes pause and resume.
func (a *app) pauser(verb, short string, paused bool, state string) *cobra.Command {
	var which chooser
	cmd := &cobra.Command{
		Use:   verb + " NAME...",
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			return which.each(cmd.Context(), fleet, args, true, func(ctx context.Context, name string) error {
				changed, err := fleet.SetPaused(ctx, name, paused)
				if err != nil {
					return err
				}
				already := ""
				if !changed {
					already = " already"
				}
				return a.print("%s is %s%s", name, state, already)
			})
		},
	}
	which.add(cmd, "")
	return cmd
}
