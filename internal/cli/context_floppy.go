package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/usercontext/convert"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

func newContextFloppy(a *app) *cobra.Command {
	var f mediumFlags
	cmd := &cobra.Command{
		Use:   "floppy FILE --out IMAGE",
		Short: "Make the floppy image of CernVM-Launch with a context",
		Long: fmt.Sprintf(`Make the image of the floppy disk through which CernVM-Launch exchanges data with
a machine: %d bytes without a file system, of which the context may have %d. It has
no metadata.

This is for guests made for it. Mica's own guest and cloud-init read a disk with a
file system: see 'mica context drive'.`, delivery.FloppySize, delivery.FloppyData),
		Example: "  mica context floppy examples/demo.context --out demo-context.flp",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return f.write(a, args[0], func(w io.Writer, l convert.Loaded) error { return delivery.WriteFloppy(w, l.Text) })
		},
	}
	f.add(cmd)
	return cmd
}
