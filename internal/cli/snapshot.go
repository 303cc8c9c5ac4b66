package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newSnapshot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Keep a machine as it is, and go back to that",
		Long: `A snapshot is a copy of a machine's disk and, of one that is on or saved, of its
memory. It takes the space of what is on the disk, less where the file system can
share it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSnapshotCreate(a), newSnapshotList(a), newSnapshotRevert(a), newSnapshotDelete(a))
	return cmd
}

func newSnapshotCreate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "create NAME [SNAPSHOT]",
		Short: "Keep a machine as it is now",
		Long: `Keep a machine as it is now. Without a name the snapshot is named after the
time. A machine that runs stands still while it is copied, and then goes on.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			snapshot := ""
			if len(args) == 2 {
				snapshot = args[1]
			}
			if snapshot, err = fleet.Snapshot(cmd.Context(), args[0], snapshot); err != nil {
				return err
			}
			return a.print("%s", snapshot)
		},
	}
}

func newSnapshotList(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "list NAME",
		Aliases: []string{"ls"},
		Short:   "List a machine's snapshots, the oldest first",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			all, err := fleet.Snapshots(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return listing[machine.Snapshot]{
				Schema: 1,
				Items:  all,
				name:   func(s machine.Snapshot) string { return s.Name },
				columns: []column[machine.Snapshot]{
					{head: "NAME", cell: func(s machine.Snapshot) string { return s.Name }},
					{head: "TIME", cell: func(s machine.Snapshot) string { return s.Time.Local().Format(time.DateTime) }},
					{head: "MEMORY", cell: func(s machine.Snapshot) string { return yesNo(s.Memory) }},
				},
			}.print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newSnapshotRevert(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revert NAME SNAPSHOT",
		Short: "Take a machine that is off back to a snapshot",
		Long: `Take a machine that is off back to a snapshot. What is on its disk now, and its
saved memory, are lost; there is a question, which --yes answers. A snapshot with
memory leaves the machine saved: 'mica start' goes on where it was taken.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if !yes {
				agreed, asked := a.ask(fmt.Sprintf("What is on the disk of %s now is lost. Go back to %s?", args[0], args[1]))
				if !asked {
					return fail.New(fail.Usage, "what is on the disk of %q now would be lost", args[0]).
						Hint("pass --yes if that is what you want").Hint("'mica snapshot create %s' keeps it", args[0])
				}
				if !agreed {
					a.tell("%s is left as it was", args[0])
					return nil
				}
			}
			state, err := fleet.Revert(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return a.print("%s is %s, as in snapshot %s", args[0], state, args[1])
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func newSnapshotDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME SNAPSHOT...",
		Aliases: []string{"rm"},
		Short:   "Delete snapshots; the machine stays as it is",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			return machine.Each(cmd.Context(), args[1:], 1, func(ctx context.Context, snapshot string) error {
				return fleet.DropSnapshot(ctx, args[0], snapshot)
			})
		},
	}
}
