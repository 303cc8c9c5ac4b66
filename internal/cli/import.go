package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/machine/params"
	"github.com/micavm/mica/internal/progress"
)

type importFlags struct {
	createFlags
	context string
	wait    bool
}

func newImport(a *app) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import FILE.ova [NAME]",
		Short: "Make a machine of an appliance in an OVA file",
		Long: `Make a machine of an appliance in an OVA file, and start it. The file is verified
against its manifest, and stays as it is: the machine gets a copy of the disk.
Appliances with one disk can be imported.

Memory, processors and the size of the disk are those of the appliance unless
options say otherwise. Its other hardware is that of every machine of Mica's: one
network card, and a CD with the name of the machine, the key that 'mica ssh' logs
in with and, with --context, the context. An appliance with cloud-init takes them
from there; others do not look.

Nothing is known of what is on the disk: --wait waits until SSH answers.`,
		Example: `  mica import cernvm.ova
  mica import appliance.ova web --memory 4G --forward 8080:80
  mica import cloud.ova node --context node.context --wait`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.importAppliance(cmd.Context(), &f, args) },
	}
	f.params.add(cmd, "image", "image-format", "checksum")
	flags := cmd.Flags()
	flags.StringVar(&f.context, "context", "", "the context, a file or - for standard input; default: none")
	flags.BoolVar(&f.off, "no-start", false, "do not start the machine")
	flags.BoolVar(&f.wait, "wait", false, "wait until SSH answers")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long to wait with --wait")
	flags.BoolVar(&f.allowLarge, "allow-large", false, "accept a context that clouds would not deliver")
	flags.BoolVar(&f.strict, "strict", false, "refuse a context in which 'mica context check' finds errors")
	f.password.add(cmd)
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything but the content of the disk, do nothing")
	return cmd
}

func (a *app) importAppliance(ctx context.Context, f *importFlags, args []string) error {
	sink, done, err := a.sink()
	if err != nil {
		return err
	}
	defer done()
	fleet, err := a.fleet(sink)
	if err != nil {
		return err
	}
	appliance, err := ova.Open(ctx, args[0])
	if err != nil {
		return err
	}
	choice, err := params.Sources{Flags: f.params.given(), Getenv: a.Env}.Resolve()
	if err != nil {
		return err
	}
	choice.Context = f.context
	if choice.Name = machine.ApplianceName(appliance, args[0]); len(args) > 1 {
		choice.Name = args[1]
	}
	if choice.Name == "" {
		return fail.New(fail.Usage, "what shall the machine be named?").Hint("write mica import FILE.ova NAME")
	}
	order, err := a.orderContext(&f.createFlags, choice)
	if err != nil {
		return err
	}
	order.Spec.Name = choice.Name
	if err := order.Appliance(appliance, args[0]); err != nil {
		return err
	}
	order.Sizes(appliance, func(name string) bool { return choice.Origin[name] != "default" })
	if !appliance.Manifest {
		a.tell("note: %s has no manifest: its disk is not verified", args[0])
	}
	a.tellShares(order.Spec.Shares)
	if f.dryRun {
		report, err := fleet.Check(ctx, &order)
		if err != nil {
			return err
		}
		s := order.Spec
		return a.print("would import %s: %s %s, %d MiB, %d processors, %d MiB of disk", s.Name, report.Driver, report.Version, s.MemoryMiB, s.CPUs, s.DiskMiB)
	}
	record, err := fleet.Create(ctx, order)
	if err != nil {
		return err
	}
	sink.Emit(progress.Event{ID: choice.Name, Phase: "imported", Finished: true})
	if f.wait && !f.off {
		if err := waitSSH(ctx, fleet, choice.Name, f.timeout); err != nil {
			return err
		}
	}
	return a.welcome(ctx, fleet, record, &f.createFlags)
}
