package cli

import (
	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
)

func newGC(a *app) *cobra.Command {
	var dryRun bool
	var output string
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what killed commands left, and boot images no machine uses",
		Long: `Remove half made and half removed machines whose command was killed, and kept
copies of boot images that no machine uses any more. Machines are never removed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			swept, err := fleet.Sweep(cmd.Context(), dryRun)
			if perr := leftovers(swept).print(a.Out, output); err == nil {
				err = perr
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "list it, remove nothing")
	outputFlag(cmd, &output)
	return cmd
}

func leftovers(swept []machine.Leftover) listing[machine.Leftover] {
	col := func(head string, cell func(machine.Leftover) string) column[machine.Leftover] {
		return column[machine.Leftover]{head: head, cell: cell}
	}
	return listing[machine.Leftover]{
		Schema: 1,
		Items:  swept,
		name:   func(l machine.Leftover) string { return l.Name },
		columns: []column[machine.Leftover]{
			col("KIND", func(l machine.Leftover) string { return l.Kind }),
			col("NAME", func(l machine.Leftover) string { return l.Name }),
			col("SIZE", func(l machine.Leftover) string { return progress.Size(l.Size) }),
			col("PATH", func(l machine.Leftover) string { return l.Path }),
		},
	}
}
