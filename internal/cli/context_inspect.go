package cli

import (
	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/convert"
)

func newContextInspect(a *app) *cobra.Command {
	var output string
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Say what a file is as a context: form, parts, sizes, digest",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.loadContext(args[0], &password)
			if err != nil {
				return err
			}
			info, err := convert.Inspect(l.Context)
			if err != nil {
				return err
			}
			switch output {
			case "text":
				return info.Print(a.Out)
			case "json":
				return printJSON(a.Out, info)
			}
			return fail.New(fail.Usage, "unknown --output %q", output).Hint("use text or json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "how to print: text or json")
	password.add(cmd)
	return cmd
}
