package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/amiconfig"
)

func newContextDiff(a *app) *cobra.Command {
	var output string
	var meta simulateMeta
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Show how the effects of two contexts differ",
		Long: `Simulate two contexts and list what the second does otherwise than the first,
with the lines of the files that differ. The exit code is 0 whether or not there
is a difference; no difference prints nothing.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			before, err := meta.simulate(cmd, a, args[0])
			if err != nil {
				return err
			}
			after, err := meta.simulate(cmd, a, args[1])
			if err != nil {
				return err
			}
			changes := amiconfig.Diff(before, after)
			if output == "table" {
				return printChanges(a, changes)
			}
			l := listing[amiconfig.Change]{Schema: 1, Items: changes, name: func(c amiconfig.Change) string { return c.Kind + " " + c.Name }}
			if output == "wide" {
				return fail.New(fail.Usage, "unknown --output %q", output).Hint("use table, json, jsonl or name")
			}
			return l.print(a.Out, output)
		},
	}
	meta.flags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "how to print: table, json, jsonl or name")
	return cmd
}

// printChanges prints one change a line, file lines below it.
func printChanges(a *app, changes []amiconfig.Change) error {
	for _, c := range changes {
		value := c.After
		switch {
		case c.Op == "removed":
			value = c.Before
		case c.Op == "changed" && c.Before != c.After:
			value = c.Before + " -> " + c.After
		}
		line := fmt.Sprintf("%-8s %-9s %s", c.Op, c.Kind, c.Name)
		if value != "" {
			line += "  (" + value + ")"
		}
		if _, err := fmt.Fprintln(a.Out, line); err != nil {
			return err
		}
		for _, l := range c.Lines {
			if _, err := fmt.Fprintln(a.Out, "         "+l); err != nil {
				return err
			}
		}
	}
	return nil
}
