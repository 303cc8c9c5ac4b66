package cli

import (
	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/explain"
)

func newContextExplain(a *app) *cobra.Command {
	var o explain.Options
	var output string
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Tell in plain words what a context does",
		Long: `Tell what the boot loader, the context agent and cloud-init each make of a
context, in order, and where an original CernVM does something else.

Passwords, keys and certificates show as stars unless --reveal is given.`,
		Example: "  mica context explain examples/demo.context",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.loadContext(args[0], &password)
			if err != nil {
				return err
			}
			e := explain.Explain(l.Context, o)
			switch output {
			case "text":
				return e.Text(a.Out)
			case "json":
				return printJSON(a.Out, e)
			}
			return fail.New(fail.Usage, "unknown --output %q", output).Hint("use text or json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "how to print: text or json")
	cmd.Flags().BoolVar(&o.Reveal, "reveal", false, "show secrets")
	password.add(cmd)
	return cmd
}
