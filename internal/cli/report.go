package cli

import (
	"bytes"
	"io"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/version"
)

func newReport(a *app) *cobra.Command {
	var to string
	var withContext bool
	cmd := &cobra.Command{
		Use:   "report NAME",
		Short: "Pack what others need to help with a machine, without its secrets",
		Long: `Pack a machine's record, diagnosis, stages and console, and what the platforms
say, into a .tar.gz file. The context stays out, and words of it that may be
secret are masked in everything else. Read it before you send it all the same.`,
		Example: "  mica report demo -f demo.tar.gz",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if to == "" {
				to = "mica-report-" + args[0] + ".tar.gz"
			}
			if to == "-" && isTerminal(a.Out) {
				return fail.New(fail.Usage, "a packed report is nothing for a terminal").Hint("name a file with --file")
			}
			var packed bytes.Buffer
			if err := fleet.WriteReport(cmd.Context(), &packed, args[0], machine.Bundle{Version: version.Number, WithContext: withContext}, a.Env); err != nil {
				return err
			}
			if withContext {
				a.tell("note: the report holds the context with its secrets")
			}
			if to == "-" {
				_, err := io.Copy(a.Out, &packed)
				return err
			}
			if err := atomicfile.Write(to, packed.Bytes(), 0o600); err != nil {
				return err
			}
			return a.print("%s", to)
		},
	}
	cmd.Flags().StringVarP(&to, "file", "f", "", "where to write it, - for standard output; default: mica-report-NAME.tar.gz")
	cmd.Flags().BoolVar(&withContext, "with-context", false, "pack the context, too, and mask nothing")
	return cmd
}
