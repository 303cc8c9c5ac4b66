package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/amiconfig"
)

func newContextSimulate(a *app) *cobra.Command {
	var output string
	var meta simulateMeta
	cmd := &cobra.Command{
		Use:   "simulate FILE",
		Short: "Show what a context would do to a machine",
		Long: `Apply a context to an empty system in a temporary directory, where nothing is
run and no network is reached, and list what came of it: users, files, services,
mounts, commands. The script of the context is not run. "-" reads standard input.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sim, err := meta.simulate(cmd, a, args[0])
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return printJSON(a.Out, sim)
			case "table":
				for _, line := range sim.Lines() {
					if _, err := fmt.Fprintln(a.Out, line); err != nil {
						return err
					}
				}
				return nil
			}
			return fail.New(fail.Usage, "unknown --output %q", output).Hint("use table or json")
		},
	}
	meta.flags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "how to print: table or json")
	return cmd
}

// simulateMeta is what the platform would say about the machine.
type simulateMeta struct {
	hostname string
	keys     []string
}

func (m *simulateMeta) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.hostname, "hostname", "", "host name the platform gives the machine")
	cmd.Flags().StringArrayVar(&m.keys, "key", nil, "`file` with a public key the platform gives the machine")
}

func (m *simulateMeta) simulate(cmd *cobra.Command, a *app, file string) (amiconfig.Simulation, error) {
	data, err := a.readFile(file)
	if err != nil {
		return amiconfig.Simulation{}, err
	}
	in := amiconfig.Input{Hostname: m.hostname, InstanceID: "simulated"}
	for _, name := range m.keys {
		key, err := os.ReadFile(name)
		if err != nil {
			return amiconfig.Simulation{}, fail.New(fail.NotFound, "reading a public key: %w", err)
		}
		in.PublicKeys = append(in.PublicKeys, strings.TrimSpace(string(key)))
	}
	return amiconfig.Simulate(cmd.Context(), data, in)
}
