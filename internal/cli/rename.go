package cli

import "github.com/spf13/cobra"

func newRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rename NAME NEW",
		Aliases: []string{"mv"},
		Short:   "Give a machine that is off another name",
		Long: `Give a machine that is off another name. The guest keeps the host name that it
was told when it was made.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if err := fleet.Rename(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return a.print("%s is now %s", args[0], args[1])
		},
	}
}
