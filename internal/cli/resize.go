package cli

import (
	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newResize(a *app) *cobra.Command {
	var memory, disk string
	var cpus int
	cmd := &cobra.Command{
		Use:   "resize NAME",
		Short: "Give a machine that is off more or less memory, processors, or a larger disk",
		Long: `Give a machine that is off other sizes. A disk only grows. The guest does not use
the new room by itself: run 'sudo touch /mnt/.rw/aux/resize' in it, and restart
it; its boot then grows partition and file system.`,
		Example: "  mica resize demo --disk 40G --memory 4G --cpus 4",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if memory == "" && disk == "" && cpus == 0 {
				return fail.New(fail.Usage, "resize %q to what?", args[0]).Hint("pass --memory, --cpus or --disk")
			}
			var sizes [2]int64
			for n, text := range []string{memory, disk} {
				if text == "" {
					continue
				}
				var err error
				if sizes[n], err = machine.ParseMiB(text); err != nil {
					return err
				}
			}
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			changed, err := fleet.Resize(cmd.Context(), args[0], int(sizes[0]), cpus, sizes[1])
			if err != nil {
				return err
			}
			if !changed {
				return a.print("%s has that size already", args[0])
			}
			if disk != "" {
				a.tell("note: the guest uses the new room after 'mica ssh %s -- sudo touch /mnt/.rw/aux/resize' and a restart", args[0])
			}
			return a.print("%s has its new size", args[0])
		},
	}
	cmd.Flags().StringVar(&memory, "memory", "", "memory in MiB, or with M or G")
	cmd.Flags().IntVar(&cpus, "cpus", 0, "processors")
	cmd.Flags().StringVar(&disk, "disk", "", "size of the data disk, larger than it is")
	return cmd
}
