package cli

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/delivery"
	"github.com/micavm/mica/internal/usercontext/lint"
)

func newContextCheck(a *app) *cobra.Command {
	var o lint.Options
	var output string
	var werror, fix bool
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Say where a context does not do what it seems to",
		Long: `Check contexts for what the boot loader, amiconfig and cloud-init would drop,
misread or refuse, on Mica and on an original CernVM.

The exit code is 0 when there are no errors, 1 when there are (or warnings, with
--werror), 2 for a wrong command line, 4 when a file does not exist.

With --fix it first changes the files where there is no doubt about what is meant:
misspelt sections, quotes, blanks, line ends, a missing exit. It changes nothing
that is packed or on a medium.

A comment line "# mica:ignore I009 C001" in a context leaves rules out.`,
		Example: `  mica context check examples/demo.context
  mica context check --fix worker.context
  mica context check --target=openstack --output=sarif *.context`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, ok := lint.Targets()[o.Target]; o.Target != "" && !ok {
				return fail.New(fail.Usage, "unknown --target %q", o.Target).Hint("use one of %s", strings.Join(slices.Sorted(maps.Keys(lint.Targets())), ", "))
			}
			var results []lint.Result
			var media lint.Media
			for _, name := range args {
				data, err := a.readFile(name)
				if err != nil {
					return err
				}
				medium, broken := delivery.Read(bytes.NewReader(data), int64(len(data)))
				if fix && name != "-" && medium.Kind == "" {
					if data, err = a.fixContext(name, data, o); err != nil {
						return err
					}
				}
				l, err := a.parseContext(name, data, medium, &password)
				if err != nil {
					return err
				}
				found := []usercontext.Problem{}
				if medium.Kind != "" {
					found = append(found, media.Check(name, medium, broken, o.Ignore)...)
				}
				found = append(found, lint.Check(l.Context, o)...)
				results = append(results, lint.Result{File: l.Name, Bytes: len(l.Raw), Findings: found})
			}
			if err := a.printFindings(results, output); err != nil {
				return err
			}
			limit := usercontext.Error
			if werror {
				limit = usercontext.Warning
			}
			for _, r := range results {
				if worst, any := lint.Worst(r.Findings); any && worst >= limit {
					return exitCode(fail.Failed)
				}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "text", "how to print: text, json or sarif")
	flags.BoolVar(&fix, "fix", false, "change what can be changed without asking, then check")
	flags.BoolVar(&werror, "werror", false, "fail for warnings, too")
	flags.StringSliceVar(&o.Ignore, "ignore", nil, "rules to leave out, such as I009,C001")
	flags.StringVar(&o.Target, "target", "", "platform that will deliver the context: azure, cloudstack, ec2, gce or openstack")
	flags.BoolVar(&o.CloudInit, "cloud-init", false, "the operating system runs cloud-init as well")
	password.add(cmd)
	return cmd
}

// fixContext replaces a file by what lint.Fix makes of it.
func (a *app) fixContext(name string, data []byte, o lint.Options) ([]byte, error) {
	fixed, gone := lint.Fix(name, data, o)
	if len(gone) == 0 {
		return data, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("fixing %s: %w", name, err)
	}
	target, err := filepath.EvalSymlinks(name) // the file is replaced, not a link to it
	if err != nil {
		return nil, fmt.Errorf("fixing %s: %w", name, err)
	}
	if err := atomicfile.Write(target, fixed, info.Mode().Perm()); err != nil {
		return nil, err
	}
	for _, p := range gone {
		if _, err := fmt.Fprintf(a.Err, "%s:%d: fixed: %s [%s]\n", name, p.Line, p.Text, p.Rule); err != nil {
			return nil, err
		}
	}
	return fixed, nil
}

func (a *app) printFindings(results []lint.Result, output string) error {
	switch output {
	case "json":
		return printJSON(a.Out, struct {
			Schema int           `json:"schema"`
			Files  []lint.Result `json:"files"`
		}{1, results})
	case "sarif":
		return printJSON(a.Out, lint.SARIF(results))
	case "text":
	default:
		return fail.New(fail.Usage, "unknown --output %q", output).Hint("use text, json or sarif")
	}
	count := map[usercontext.Severity]int{}
	for _, r := range results {
		for _, f := range r.Findings {
			count[f.Severity]++
			place := r.File
			if f.Line > 0 {
				place = fmt.Sprintf("%s:%d:%d", r.File, f.Line, max(f.Column, 1))
			}
			if _, err := fmt.Fprintf(a.Out, "%s: %s: %s [%s]\n", place, f.Severity, f.Text, f.Rule); err != nil {
				return err
			}
			if f.Remedy != "" {
				if _, err := fmt.Fprintf(a.Out, "    %s\n", f.Remedy); err != nil {
					return err
				}
			}
		}
	}
	_, err := fmt.Fprintf(a.Err, "%s, %s, %s\n", plural(count[usercontext.Error], "error"), plural(count[usercontext.Warning], "warning"), plural(count[usercontext.Note], "note"))
	return err
}

func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

func newContextRules(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "List what check looks for",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			type row struct {
				ID       string `json:"id"`
				Severity string `json:"severity"`
				Text     string `json:"text"`
				Why      string `json:"why"`
			}
			l := listing[row]{
				Schema: 1, name: func(r row) string { return r.ID },
				columns: []column[row]{
					{"RULE", func(r row) string { return r.ID }, false},
					{"SEVERITY", func(r row) string { return r.Severity }, false},
					{"FINDS", func(r row) string { return r.Text }, false},
					{"BECAUSE", func(r row) string { return r.Why }, true},
				},
			}
			for _, r := range lint.Rules() {
				l.Items = append(l.Items, row{r.ID, r.Severity.String(), r.Text, r.Why})
			}
			return l.print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
