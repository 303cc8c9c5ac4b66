package cli

import (
	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/usercontext/delivery"
)

func newContextDrive(a *app) *cobra.Command {
	var f layoutFlags
	cmd := &cobra.Command{
		Use:   "drive FILE --out IMAGE",
		Short: "Make a disk image from which a machine takes a context",
		Long: `Make a FAT image that hands a context to a machine, as large as its content needs.
Attach it as a disk, or write it to a USB stick: for platforms without a CD drive,
and for guests without a driver for one. It has the files that 'mica context iso'
puts on a CD.`,
		Example: "  mica context drive examples/demo.context --out demo-context.img",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return f.write(a, args[0], delivery.WriteFAT)
		},
	}
	f.add(cmd)
	return cmd
}
