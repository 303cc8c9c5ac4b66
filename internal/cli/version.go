package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/version"
)

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of mica",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.Out, "mica %s (%s/%s, %s)\n", version.Number, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
