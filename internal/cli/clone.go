package cli

import "github.com/spf13/cobra"

func newClone(a *app) *cobra.Command {
	var labels []string
	var start bool
	cmd := &cobra.Command{
		Use:   "clone NAME NEW",
		Short: "Make a machine like one that is off, with what is on its disk",
		Long: `Make a machine like one that is off: the same sizes, image and context, and a copy
of its disk. The clone has an instance ID and a key pair of its own, and ports
that mica chooses. What the guest keeps on its disk, such as its machine ID, it
has in common with the other one.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if _, err := fleet.Clone(cmd.Context(), args[0], args[1], labels); err != nil {
				return err
			}
			if start {
				if _, err := fleet.Start(cmd.Context(), args[1]); err != nil {
					return err
				}
				return a.print("%s is running", args[1])
			}
			return a.print("%s is stopped", args[1])
		},
	}
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label of the clone; default: those of the machine (may be repeated)")
	cmd.Flags().BoolVar(&start, "start", false, "start the clone")
	return cmd
}
