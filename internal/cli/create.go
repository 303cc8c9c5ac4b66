package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/all"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/lint"
)

type createFlags struct {
	image, memory, disk, port, accel, driver, medium string
	cpus                                             int
	forwards                                         []string
	noWait, off, allowLarge, dryRun                  bool
	strict, unverified                               bool
	password                                         passwordFlag
	timeout                                          time.Duration
}

// createMedia are the layouts of context media that tell a machine its name and
// the key of whoever made it: without that, nobody could log in.
func createMedia() []string { return []string{"config-2", "nocloud", "opennebula"} }

func newCreate(a *app) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create NAME CONTEXT",
		Short: "Create a machine from a context and start it",
		Long: `Create a machine, start it, and follow its boot until the context is applied
and SSH answers. CONTEXT is a file, or - for standard input.

Interrupting the wait leaves the machine running; interrupting before that
leaves nothing.`,
		Example: `  mica create demo examples/demo.context
  mica create worker worker.context --memory 4G --cpus 4 --forward 8080:80`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.create(cmd.Context(), f, args[0], args[1]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.image, "image", "", "boot image; default: MICA_IMAGE, or the newest in mica's images")
	flags.StringVar(&f.memory, "memory", "2048", "memory in MiB, or with M or G")
	flags.IntVar(&f.cpus, "cpus", 1, "processors")
	flags.StringVar(&f.disk, "disk", "20G", "size of the data disk; it takes space as it fills")
	flags.StringVar(&f.port, "port", "auto", "port of this computer that leads to the machine's SSH, auto or none")
	flags.StringArrayVar(&f.forwards, "forward", nil, "HOST:GUEST, another port to forward (may be repeated)")
	flags.StringVar(&f.accel, "accel", "auto", "acceleration: auto, kvm or tcg")
	flags.StringVar(&f.medium, "medium", createMedia()[0], "how the context is handed over: "+strings.Join(createMedia(), ", "))
	flags.StringVar(&f.driver, "driver", all.Default, "what runs the machine")
	flags.BoolVar(&f.noWait, "no-wait", false, "return when the machine has started")
	flags.BoolVar(&f.off, "no-start", false, "do not start the machine")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long to wait for the machine to be ready")
	flags.BoolVar(&f.allowLarge, "allow-large", false, "accept a context that clouds would not deliver")
	flags.BoolVar(&f.strict, "strict", false, "refuse a context in which 'mica context check' finds errors")
	flags.BoolVar(&f.unverified, "unverified", false, "boot an image that is not Mica's, or whose digest does not hold")
	f.password.add(cmd)
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything, do nothing")
	return cmd
}

func (a *app) create(ctx context.Context, f createFlags, name, contextFrom string) error {
	sink, done, err := a.sink()
	if err != nil {
		return err
	}
	fleet, err := a.fleet(sink)
	if err != nil {
		done()
		return err
	}
	order, err := a.order(fleet.Home, &f, name, contextFrom)
	if err != nil {
		done()
		return err
	}
	if f.dryRun {
		defer done()
		report, err := fleet.Check(ctx, &order)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.Out, "would create %s: %s %s, image %s, context %s\n", name, report.Driver, report.Version, order.Spec.Image.Path, contextFrom)
		return err
	}
	record, err := fleet.Create(ctx, order)
	if err == nil {
		sink.Emit(progress.Event{ID: name, Phase: "started", Finished: true})
	}
	done()
	if err != nil {
		return err
	}
	if !f.off && !f.noWait {
		if err := a.waitReady(ctx, fleet, name, f.timeout); err != nil {
			return err
		}
	}
	return a.welcome(ctx, fleet, record, f)
}

// order turns the flags into what is to be created.
func (a *app) order(home machine.Home, f *createFlags, name, contextFrom string) (machine.Order, error) {
	o := machine.Order{ContextFrom: contextFrom, AllowLarge: f.allowLarge, Off: f.off}
	o.Spec = machine.Spec{Name: name, Driver: f.driver, CPUs: f.cpus, Accel: f.accel}
	if err := machine.CheckName(name); err != nil { // before anything is read
		return o, err
	}
	if !slices.Contains(createMedia(), f.medium) {
		return o, fail.New(fail.Usage, "unknown --medium %q", f.medium).Hint("use one of %s", strings.Join(createMedia(), ", "))
	}
	o.Spec.Medium = f.medium
	memory, err := machine.ParseMiB(f.memory)
	if err != nil {
		return o, err
	}
	o.Spec.MemoryMiB = int(memory)
	if o.Spec.DiskMiB, err = machine.ParseMiB(f.disk); err != nil {
		return o, err
	}
	ports := f.forwards
	if f.port != "none" {
		ports = append([]string{f.port + ":22"}, ports...)
	}
	for _, text := range ports {
		forward, err := machine.ParseForward(text)
		if err != nil {
			return o, err
		}
		o.Spec.Forwards = append(o.Spec.Forwards, forward)
	}
	loaded, err := a.loadContext(contextFrom, &f.password)
	if err != nil {
		return o, err
	}
	o.Spec.Context, o.Spec.PublicKeys, o.User = loaded.Raw, loaded.PublicKeys, firstUser(loaded.Context)
	if err := a.checkContext(loaded.Context, f.strict); err != nil {
		return o, err
	}
	if o.Spec.Image.Path, err = machine.FindImage(home, f.image, a.Env); err != nil || f.unverified {
		return o, err
	}
	verdict, err := image.Check(o.Spec.Image.Path)
	if err != nil {
		return o, fail.New(fail.ClassOf(err), "%w", err).Hint("to boot it all the same, pass --unverified")
	}
	o.Spec.Image.Verified = verdict.Verified
	return o, nil
}

// checkContext says what is wrong with a context before a machine is made of
// it. Contexts that have been in use for years have errors that do no harm, so
// only strict refuses them.
func (a *app) checkContext(c *usercontext.Context, strict bool) error {
	problems := lint.Check(c, lint.Options{})
	for _, p := range problems {
		if p.Severity >= usercontext.Warning {
			a.tell("%s:%s", c.Name, p)
		}
	}
	if worst, any := lint.Worst(problems); strict && any && worst >= usercontext.Error {
		return fail.New(fail.Failed, "context %s has errors", c.Name).Hint("'mica context check %s' says how to mend them", c.Name)
	}
	return nil
}

// firstUser returns the first of [cernvm] users=name:group:password,...
func firstUser(c *usercontext.Context) string {
	users, _ := c.Amiconfig().Get("cernvm", "users")
	user, _, found := strings.Cut(users, ":")
	if user = strings.TrimSpace(user); !found || user == "" || strings.ContainsAny(user, " ,-@/") {
		return ""
	}
	return user
}

// waitReady follows the boot and waits for SSH.
func (a *app) waitReady(ctx context.Context, fleet *machine.Fleet, name string, timeout time.Duration) error {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	show := a.stages()
	err := fleet.Follow(within, name, show.event)
	show.end()
	if err == nil {
		err = fleet.WaitSSH(within, name)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fail.New(fail.Interrupted, "no longer waiting for %q, which goes on: %w", name, err).
			Hint("'mica logs --follow %s' shows how far it is, 'mica destroy --force %s' removes it", name, name)
	case within.Err() != nil:
		return fail.New(fail.TimedOut, "%q is not ready after %s: %w", name, timeout, err).
			Hint("it goes on; 'mica logs --raw %s' shows what it says, 'mica destroy --force %s' removes it", name, name)
	}
	return err
}

// welcome says how to log in.
func (a *app) welcome(ctx context.Context, fleet *machine.Fleet, record *machine.Record, f createFlags) error {
	name := record.Instance.Spec.Name
	m, err := fleet.Get(ctx, name)
	if err != nil || m.Record == nil {
		return errors.Join(err, m.Err)
	}
	if took := durations(m.Record.Durations); took != "" {
		a.tell("ready %s", took)
	}
	_, err = fmt.Fprintf(a.Out, "%s is %s\n", name, m.State)
	if port := m.Record.Instance.Spec.SSHPort(); err == nil && port != 0 && !f.off {
		_, err = fmt.Fprintf(a.Out, "log in with 'mica ssh %s' (user %s, port %d)\n", name, m.Record.User, port)
	}
	return err
}

func durations(took map[string]float64) string {
	var parts []string
	for _, key := range []string{machine.ToHandOver, machine.ToApply, machine.ToSSH} {
		if s, ok := took[key]; ok {
			parts = append(parts, fmt.Sprintf("%s after %.1f s", key, s))
		}
	}
	return strings.Join(parts, ", ")
}
