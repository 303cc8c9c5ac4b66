package cli

import "github.com/spf13/cobra"

func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build and inspect boot images",
		Long: `A boot image holds a kernel, an initramfs and a boot loader, some fifteen
megabytes. Machines start from it and take their operating system from the
repository it names.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImageBuild(a), newImageShow(a))
	return cmd
}
