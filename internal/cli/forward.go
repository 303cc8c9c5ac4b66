package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newForward(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forward",
		Short: "Let ports of this computer lead to a machine",
		Long: `Ports of this computer, on 127.0.0.1, that lead to ports of a machine. They can
be changed while it runs, and stay when it is started again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newForwardAdd(a), newForwardRemove(a), newForwardList(a))
	return cmd
}

func newForwardAdd(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "add NAME HOST:GUEST...",
		Short:   "Forward ports; HOST may be auto",
		Example: "  mica forward add demo 8080:80 auto:443",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var more []machine.Forward
			for _, text := range args[1:] {
				f, err := machine.ParseForward(text)
				if err != nil {
					return err
				}
				more = append(more, f)
			}
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			now, err := fleet.AddForwards(cmd.Context(), args[0], more)
			if err != nil {
				return err
			}
			return forwardListing(now).print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newForwardRemove(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "remove NAME HOST...",
		Aliases: []string{"rm"},
		Short:   "Forward ports no longer, named by those of this computer",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var hosts []int
			for _, text := range args[1:] {
				port, err := strconv.Atoi(text)
				if err != nil {
					return fail.New(fail.Usage, "%q is no port of this computer", text).Hint("'mica forward list %s' shows them", args[0])
				}
				hosts = append(hosts, port)
			}
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			now, err := fleet.RemoveForwards(cmd.Context(), args[0], hosts)
			if err != nil {
				return err
			}
			return forwardListing(now).print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newForwardList(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "list NAME",
		Aliases: []string{"ls"},
		Short:   "List a machine's forwarded ports",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			m, err := fleet.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if m.Record == nil {
				return m.Err
			}
			return forwardListing(m.Record.Instance.Spec.Forwards).print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func forwardListing(forwards []machine.Forward) listing[machine.Forward] {
	return listing[machine.Forward]{
		Schema: 1,
		Items:  forwards,
		name:   machine.Forward.String,
		columns: []column[machine.Forward]{
			{head: "HOST", cell: func(f machine.Forward) string { return fmt.Sprintf("127.0.0.1:%d", f.Host) }},
			{head: "GUEST", cell: func(f machine.Forward) string { return strconv.Itoa(f.Guest) }},
			{head: "CHOSEN BY", cell: func(f machine.Forward) string {
				if f.Auto {
					return "mica"
				}
				return "you"
			}},
		},
	}
}
