package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newWhy(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "why NAME",
		Short: "Say what became of a machine's boot: stage, cause, and what to do",
		Long: `Look at a machine's state, the stages of its boot and its console, and say where
it stands: healthy, booting, slow, broken or inactive; with the cause, and what to
do about it. The exit code is 1 for a broken machine.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			d, err := fleet.Why(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch output {
			case "json":
				err = printJSON(a.Out, struct {
					Schema int `json:"schema"`
					machine.Diagnosis
				}{1, d})
			case "table":
				err = a.printDiagnosis(d)
			default:
				return fail.New(fail.Usage, "unknown --output %q", output).Hint("use table or json")
			}
			if err == nil && d.Verdict == machine.Broken {
				err = exitCode(fail.Failed)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "how to print: table or json")
	return cmd
}

func (a *app) printDiagnosis(d machine.Diagnosis) error {
	tw := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	line := func(head, text string) {
		if text != "" {
			_, _ = fmt.Fprintf(tw, "%s\t%s\n", head, clean(text))
		}
	}
	line("machine", fmt.Sprintf("%s, %s", d.Name, d.State))
	line("verdict", string(d.Verdict))
	line("stage", d.Stage)
	line("cause", d.Cause)
	for n, remedy := range d.Remedy {
		head := ""
		if n == 0 {
			head = "remedy"
			if d.Verdict == machine.Healthy {
				head = "but"
			}
		}
		line(head, remedy)
	}
	for n, last := range d.Last {
		head := ""
		if n == 0 {
			head = "console"
		}
		line(head, last)
	}
	return tw.Flush()
}
