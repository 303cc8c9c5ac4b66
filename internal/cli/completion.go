package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/all"
)

// completes says which commands take names of machines: those in whose states
// the action has something to do; an empty action takes all. Commands for one
// machine complete the first argument only.
func completes() map[string]struct {
	action machine.Action
	many   bool
} {
	type c = struct {
		action machine.Action
		many   bool
	}
	return map[string]c{
		"start": {machine.DoStart, true}, "stop": {machine.DoSave, true}, "restart": {machine.DoRestart, true},
		"pause": {machine.DoPause, true}, "resume": {machine.DoResume, true}, "destroy": {"", true},
		"show": {}, "logs": {}, "why": {}, "report": {}, "ssh-config": {},
		"ssh": {machine.DoSSH, false}, "console": {machine.DoConsole, false}, "screen": {machine.DoScreen, false},
		"clone": {machine.DoClone, false}, "resize": {machine.DoChange, false}, "rename": {machine.DoChange, false},
		"snapshot create": {machine.DoSnapshot, false}, "snapshot list": {}, "snapshot revert": {machine.DoRevert, false}, "snapshot delete": {machine.DoDropSnapshot, false},
		"forward add": {machine.DoForward, false}, "forward remove": {machine.DoForward, false}, "forward list": {},
		"share add": {machine.DoShare, false}, "share remove": {machine.DoShare, false}, "share list": {},
	}
}

// completions makes the shell complete what only this computer knows: names of
// machines, snapshots, labels and drivers.
func (a *app) completions(root *cobra.Command) {
	table := completes()
	walkCommands(root, func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		if c, ok := table[path]; ok {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				switch {
				case len(args) == 0 || c.many:
					return a.machineNames(cmd.Context(), c.action, args), cobra.ShellCompDirectiveNoFileComp
				case path == "snapshot revert" || path == "snapshot delete":
					return a.snapshotNames(cmd.Context(), args[0]), cobra.ShellCompDirectiveNoFileComp
				case path == "share remove":
					return a.shareNames(cmd.Context(), args[0]), cobra.ShellCompDirectiveNoFileComp
				case path == "share add": // its other arguments are folders
					return nil, cobra.ShellCompDirectiveFilterDirs
				}
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
		}
		for name, values := range map[string]func(context.Context) []string{
			"label":    a.labelsInUse,
			"driver":   func(context.Context) []string { return all.Drivers(machine.Env{Log: a.log, Getenv: a.Env}).Names() },
			"firmware": func(context.Context) []string { return []string{machine.BIOS, machine.UEFI} },
			"arch":     func(context.Context) []string { return []string{machine.X86_64, machine.ARM64} },
			"output":   func(context.Context) []string { return outputForms(cmd) },
			"progress": func(context.Context) []string { return []string{"auto", "lines", "jsonl", "none"} },
		} {
			if cmd.Flags().Lookup(name) == nil && cmd.PersistentFlags().Lookup(name) == nil {
				continue
			}
			_ = cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
				return values(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
			}) // an error says that it is registered already
		}
	})
}

func walkCommands(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walkCommands(sub, visit)
	}
}

// outputForms reads the forms from the flag's own words.
func outputForms(cmd *cobra.Command) []string {
	_, list, ok := strings.Cut(cmd.Flag("output").Usage, ": ")
	if !ok {
		return nil
	}
	return strings.FieldsFunc(strings.ReplaceAll(list, " or ", ","), func(r rune) bool { return r == ',' || r == ' ' })
}

// completionPatience bounds what a person waits for after the tabulator key.
const completionPatience = 2 * time.Second

func (a *app) listed(ctx context.Context) []machine.Machine {
	fleet, err := a.fleet(nil)
	if err != nil {
		return nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	machines, err := fleet.List(ctx)
	if err != nil {
		return nil
	}
	return machines
}

// machineNames are those that the action has something to do with, and that
// are not on the line already.
func (a *app) machineNames(ctx context.Context, action machine.Action, args []string) []string {
	taken := map[string]bool{}
	for _, arg := range args {
		taken[arg] = true
	}
	var names []string
	for _, m := range a.listed(ctx) {
		if taken[m.Name] {
			continue
		}
		if action != "" {
			if todo, err := m.State.Allows(m.Name, action); err != nil || !todo {
				continue
			}
		}
		names = append(names, m.Name+"\t"+string(m.State))
	}
	return names
}

func (a *app) snapshotNames(ctx context.Context, name string) []string {
	fleet, err := a.fleet(nil)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	snapshots, err := fleet.Snapshots(ctx, name)
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range snapshots {
		names = append(names, s.Name)
	}
	return names
}

func (a *app) shareNames(ctx context.Context, name string) []string {
	var names []string
	for _, m := range a.listed(ctx) {
		if m.Name == name && m.Record != nil {
			for _, s := range m.Record.Instance.Spec.Shares {
				names = append(names, s.Name+"\t"+s.Path)
			}
		}
	}
	return names
}

func (a *app) labelsInUse(ctx context.Context) []string {
	seen := map[string]bool{}
	var labels []string
	for _, m := range a.listed(ctx) {
		if m.Record == nil {
			continue
		}
		for _, label := range m.Record.Instance.Spec.Labels {
			if !seen[label] {
				labels = append(labels, label)
			}
			seen[label] = true
		}
	}
	return labels
}
