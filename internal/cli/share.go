package cli

import (
	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/params"
)

func newShare(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "share",
		Short: "Change which folders of this computer a machine sees",
		Long: `Folders of this computer that a machine sees below /mnt/shared. They are devices
of the machine, and change while it is off; it mounts them when it boots the next
time. Nothing in a folder is touched.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newShareAdd(a), newShareRemove(a), newShareList(a))
	return cmd
}

func newShareAdd(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "add NAME [SHARE=]FOLDER[:ro]...",
		Short: "Share folders with a machine that is off",
		Long: `Share folders with a machine that is off. The machine sees a folder as
/mnt/shared/SHARE; without a name it goes by its own. With :ro the machine can
only read it.`,
		Example: "  mica share add demo data=/srv/data ~/software:ro",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var more []machine.Share
			for _, text := range args[1:] {
				s, err := params.ParseShare(text, "")
				if err != nil {
					return err
				}
				more = append(more, s)
			}
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			now, err := fleet.AddShares(cmd.Context(), args[0], more)
			if err != nil {
				return err
			}
			a.tellShares(more)
			return shareListing(now).print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// tellShares says which folders these are: links on the way to them count no
// more.
func (a *app) tellShares(shares []machine.Share) {
	for _, s := range shares {
		how := ""
		if s.ReadOnly {
			how = ", to read only"
		}
		a.tell("the machine sees %s as %s%s", clean(s.Path), inGuest(s), how)
	}
}

func inGuest(s machine.Share) string { return "/mnt/shared/" + s.Name }

func newShareRemove(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "remove NAME SHARE...",
		Aliases: []string{"rm"},
		Short:   "Share folders no longer, named as the machine knows them",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			now, err := fleet.RemoveShares(cmd.Context(), args[0], args[1:])
			if err != nil {
				return err
			}
			return shareListing(now).print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newShareList(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "list NAME",
		Aliases: []string{"ls"},
		Short:   "List a machine's shared folders",
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
			return shareListing(m.Record.Instance.Spec.Shares).print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func shareListing(shares []machine.Share) listing[machine.Share] {
	return listing[machine.Share]{
		Schema: 1,
		Items:  shares,
		name:   func(s machine.Share) string { return s.Name },
		columns: []column[machine.Share]{
			{head: "SHARE", cell: func(s machine.Share) string { return s.Name }},
			{head: "FOLDER", cell: func(s machine.Share) string { return clean(s.Path) }},
			{head: "MACHINE MAY", cell: mayDo},
			{head: "SEEN AS", cell: inGuest, wide: true},
		},
	}
}

func mayDo(s machine.Share) string {
	if s.ReadOnly {
		return "read"
	}
	return "write"
}
