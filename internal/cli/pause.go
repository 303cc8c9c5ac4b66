package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newPause(a *app) *cobra.Command {
	return a.pauser("pause", "Freeze machines; they keep their memory and use no processor", true, "paused")
}

// pauser makes pause and resume.
func (a *app) pauser(verb, short string, paused bool, state string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME...",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error {
				changed, err := fleet.SetPaused(cmd.Context(), name, paused)
				if err != nil {
					return err
				}
				already := ""
				if !changed {
					already = " already"
				}
				_, err = fmt.Fprintf(a.Out, "%s is %s%s\n", name, state, already)
				return err
			})
		},
	}
}
