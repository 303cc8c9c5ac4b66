package cli

import (
	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/usercontext/multipart"
)

func newContextMIME(a *app) *cobra.Command {
	var out string
	var force, keep bool
	cmd := &cobra.Command{
		Use:   "mime FILE:TYPE...",
		Short: "Put files together into one MIME context",
		Long: `Put files together into one MIME message that the boot loader, amiconfig and
cloud-init can all read. TYPE is what stands behind text/: cloud-config,
amiconfig-user-data, ucernvm, x-shellscript, and so on.

amiconfig's part comes last, because amiconfig takes everything behind it for
options; --keep-order leaves the order alone. Called as amiconfig-mime, the
program takes the same arguments, keeps the order and prints the message.`,
		Example: "  mica context mime setup.yaml:cloud-config cernvm.ini:amiconfig-user-data > user-data",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			message, err := multipart.Join(args, keep)
			if err != nil {
				return err
			}
			return a.writeContext(out, message, force)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-order", false, "do not move amiconfig's part to the end")
	outFlags(cmd, &out, &force)
	return cmd
}
