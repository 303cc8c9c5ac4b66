package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/usercontext/delivery"
)

func newContextISO(a *app) *cobra.Command {
	var f layoutFlags
	cmd := &cobra.Command{
		Use:   "iso FILE --out IMAGE",
		Short: "Make a CD image from which a machine takes a context",
		Long: `Make an ISO 9660 image that hands a context to a machine. Attach it as a CD. The
image has the context in it as it is: keep it as private as the context.

Unless --instance-id is given, the identifier follows from the content, so that a
machine applies a changed context anew.`,
		Example: `  mica context iso examples/demo.context --out demo-context.iso
  mica context iso setup.yaml --layout nocloud --hostname worker --out seed.iso`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.write(a, args[0], func(w io.Writer, k delivery.Kind, text []byte, m delivery.Meta) error {
				return delivery.WriteISO(cmd.Context(), w, k, text, m)
			})
		},
	}
	f.add(cmd)
	return cmd
}
