package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newDoctor(a *app) *cobra.Command {
	var quick bool
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "See whether machines can run here, and say what to fix",
		Long: `Look at the folder of machines, the space on its disk, memory, boot image and ssh,
and at every driver: what it can do, and whether a tiny test machine boots on it.
The test machines leave nothing. The exit code is 7 where machines cannot run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			l := listing[machine.Finding]{
				Schema: 1,
				name:   func(f machine.Finding) string { return f.Part },
				columns: []column[machine.Finding]{
					{head: "PART", cell: func(f machine.Finding) string { return f.Part }},
					{head: "HEALTH", cell: func(f machine.Finding) string { return string(f.Health) }},
					{head: "DETAIL", cell: func(f machine.Finding) string { return clean(f.Detail) }},
					{head: "CAN", wide: true, cell: func(f machine.Finding) string { return or(can(f)) }},
				},
			}
			if err := fleet.Doctor(cmd.Context(), !quick, a.Env, func(f machine.Finding) {
				l.Items = append(l.Items, f)
				if output == "jsonl" {
					_ = json.NewEncoder(a.Out).Encode(f)
				}
			}); err != nil {
				return err
			}
			if output != "jsonl" {
				if err := l.print(a.Out, output); err != nil {
					return err
				}
			}
			return a.prescribe(l.Items)
		},
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "boot no test machines")
	outputFlag(cmd, &output)
	return cmd
}

// can lists a driver's features and options.
func can(f machine.Finding) string {
	var words []string
	for _, feature := range f.Features {
		words = append(words, string(feature))
	}
	for _, option := range f.Options {
		name, _, _ := strings.Cut(option, ":")
		words = append(words, "--option "+name)
	}
	return strings.Join(words, ", ")
}

// prescribe says what to do. One driver that works is enough.
func (a *app) prescribe(all []machine.Finding) error {
	bad := ""
	for _, f := range all {
		for _, remedy := range f.Remedy {
			a.tell("%s: %s", f.Part, clean(remedy))
		}
		if f.Health == machine.Problem && !strings.HasPrefix(f.Part, "driver ") && bad == "" {
			bad = fmt.Sprintf("%s: %s", f.Part, f.Detail)
		}
	}
	if bad != "" {
		return fail.New(fail.HostLacks, "machines cannot run here: %s", bad)
	}
	return nil
}
