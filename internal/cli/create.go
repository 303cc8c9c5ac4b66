package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/all"
	"github.com/micavm/mica/internal/machine/params"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/lint"
)

type createFlags struct {
	params                     paramFlags
	config                     string
	count, parallel            int
	noWait, off, allowLarge    bool
	dryRun, strict, unverified bool
	password                   passwordFlag
	timeout                    time.Duration
}

// createMedia are the layouts of context media that tell a machine its name and
// the key of whoever made it: without that, nobody could log in.
var createMedia = []string{"config-2", "nocloud", "opennebula"} //nolint:gochecknoglobals // a constant list

func newCreate(a *app) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create NAME CONTEXT",
		Short: "Create a machine, or many, from a context and start them",
		Long: `Create a machine, start it, and follow its boot until the context is applied
and SSH answers. CONTEXT is a file, or - for standard input.

With --count several machines are made, each with an identity of its own; {n} in
NAME stands for their numbers, {nnn} for three digits. Machines that could not be
made leave nothing, the others stay, and the exit code is 3.

Every option that describes the machine may also stand in a file in YAML given
with --config, under its name without the dashes, or in the environment as
MICA_CREATE_ and its name: MICA_CREATE_MEMORY=4G. The command line goes before
the environment, that before the file. A file may name the machine and its
context, too.

The image is an ISO image of Mica's, or a disk image in one of the formats of
--image-format, of which the machine gets a copy of its own, grown to --disk. It
may be at a URL: it is fetched once, and verified against --checksum, without
which nothing is fetched by plain http. Of a machine made of a disk image only
SSH is waited for. Of a disk on which cloud-init looks for a config drive the
context is user data.

Interrupting the wait leaves the machine running; interrupting before that
leaves nothing.`,
		Example: `  mica create demo examples/demo.context
  mica create worker worker.context --memory 4G --cpus 4 --forward 8080:80
  mica create --count 20 'worker-{n}' worker.context --label batch
  mica create cloud user-data --image https://cloud.example.org/debian-12.qcow2 --checksum sha256:8b1f...
  mica create --config worker.yaml`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.create(cmd.Context(), &f, args) },
	}
	f.params.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "file in YAML that describes the machine")
	flags.IntVar(&f.count, "count", 1, "how many machines to make")
	flags.IntVar(&f.parallel, "parallel", 0, "how many to make at the same time; default: by processors and memory")
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

func (a *app) create(ctx context.Context, f *createFlags, args []string) error {
	sink, done, err := a.sink()
	if err != nil {
		return err
	}
	done = sync.OnceFunc(done)
	defer done()
	fleet, err := a.fleet(sink)
	if err != nil {
		return err
	}
	choice, err := f.choose(a.Env, args)
	if err != nil {
		return err
	}
	names, err := machine.Numbered(choice.Name, f.count)
	if err != nil {
		return err
	}
	order, err := a.order(ctx, fleet, f, choice)
	if err != nil {
		return err
	}
	a.tellShares(order.Spec.Shares)
	if order.Spec.Options["uri"] == "" { // else it is another computer's memory
		if much := machine.TooMuch(order.Spec, f.count); much != "" {
			a.tell("note: %s", much)
		}
	}
	parallel := f.parallel
	if parallel <= 0 {
		parallel = machine.AtOnce(order.Spec)
	}
	if len(names) > 1 { // their platform is asked once for all of them
		if _, err := fleet.Probe(ctx, &order); err != nil {
			return err
		}
	}
	if f.dryRun {
		a.tellOrigins(choice)
	}
	return machine.Each(ctx, names, parallel, func(ctx context.Context, name string) error {
		order := order
		order.Spec.Name = name
		order.Spec.Forwards = slices.Clone(order.Spec.Forwards)
		if f.dryRun {
			return a.wouldCreate(ctx, fleet, order)
		}
		return a.createOne(ctx, fleet, order, f, sink, done)
	})
}

// tellOrigins says where each value came from that is not the default.
func (a *app) tellOrigins(choice params.Choice) {
	for _, p := range params.All() {
		if origin := choice.Origin[p.Name]; origin != "" && origin != "default" {
			a.tell("%s: from %s", p.Name, origin)
		}
	}
}

func (a *app) wouldCreate(ctx context.Context, fleet *machine.Fleet, order machine.Order) error {
	report, err := fleet.Check(ctx, &order)
	if err != nil {
		return err
	}
	return a.print("would create %s: %s %s, image %s, context %s", order.Spec.Name, report.Driver, report.Version, order.Spec.Image.Path, order.ContextFrom)
}

func (a *app) createOne(ctx context.Context, fleet *machine.Fleet, order machine.Order, f *createFlags, sink progress.Sink, done func()) error {
	name := order.Spec.Name
	record, err := fleet.Create(ctx, order)
	if err != nil {
		return err
	}
	phase := "started"
	if f.off {
		phase = "made"
	}
	sink.Emit(progress.Event{ID: name, Phase: phase, Finished: true})
	shown := name
	if f.count == 1 { // bars and stages take turns
		shown = ""
		done()
	}
	switch {
	case f.off || f.noWait:
	case order.Spec.Image.Format != "": // it need not be Mica's, and tell how far it is
		if record.Instance.Spec.SSHPort() == 0 {
			break
		}
		if err := waitSSH(ctx, fleet, name, f.timeout); err != nil {
			return err
		}
	default:
		if err := a.waitReady(ctx, fleet, name, shown, f.timeout); err != nil {
			return err
		}
	}
	return a.welcome(ctx, fleet, record, f)
}

// choose finds what is to be created, in all places that may say it.
func (f *createFlags) choose(getenv func(string) string, args []string) (params.Choice, error) {
	s := params.Sources{Flags: f.params.given(), Getenv: getenv}
	if f.config != "" {
		file, err := params.ReadFile(f.config)
		if err != nil {
			return params.Choice{}, err
		}
		s.File = file
	}
	for i, name := range []string{"name", "context"} {
		if i < len(args) {
			s.Flags[name] = args[i : i+1]
		}
	}
	choice, err := s.Resolve()
	switch {
	case err != nil:
	case choice.Name == "":
		err = fail.New(fail.Usage, "what shall the machine be named?").Hint("write mica create NAME CONTEXT, or name: in the file")
	case choice.Context == "":
		err = fail.New(fail.Usage, "a machine needs a context").Hint("write mica create %s CONTEXT, or context: in the file", choice.Name)
	}
	return choice, err
}

// order completes what was chosen with what it names.
func (a *app) order(ctx context.Context, fleet *machine.Fleet, f *createFlags, choice params.Choice) (machine.Order, error) {
	o, err := a.orderContext(f, choice)
	if err != nil {
		return o, err
	}
	wish := machine.Wish{Image: choice.Spec.Image.Path, Format: choice.ImageFormat, Checksum: choice.Checksum}
	if o.Spec.Image, err = fleet.Image(ctx, wish, a.Env); err != nil || f.unverified || o.Spec.Image.Format != "" {
		return o, err
	}
	verdict, err := image.Check(o.Spec.Image.Path)
	if err != nil {
		return o, fail.New(fail.ClassOf(err), "%w", err).Hint("to boot it all the same, pass --unverified")
	}
	o.Spec.Image.Verified = o.Spec.Image.Verified || verdict.Verified
	return o, nil
}

// orderContext is the part of an order that is not the image.
func (a *app) orderContext(f *createFlags, choice params.Choice) (machine.Order, error) {
	o := machine.Order{Spec: choice.Spec, ContextFrom: choice.Context, AllowLarge: f.allowLarge, Off: f.off}
	if o.Spec.Driver == "" {
		o.Spec.Driver = all.Default
	}
	if !slices.Contains(createMedia, o.Spec.Medium) {
		return o, fail.New(fail.Usage, "unknown --medium %q", o.Spec.Medium).Hint("use one of %s", strings.Join(createMedia, ", "))
	}
	if choice.Context == "" { // an appliance's
		return o, nil
	}
	loaded, err := a.loadContext(choice.Context, &f.password)
	if err != nil {
		return o, err
	}
	o.Spec.Context, o.Spec.PublicKeys, o.User = loaded.Raw, loaded.PublicKeys, firstUser(loaded.Context)
	return o, a.checkContext(loaded.Context, f.strict)
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
func (a *app) waitReady(ctx context.Context, fleet *machine.Fleet, name, shown string, timeout time.Duration) error {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	show := a.stages(shown)
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
func (a *app) welcome(ctx context.Context, fleet *machine.Fleet, record *machine.Record, f *createFlags) error {
	name := record.Instance.Spec.Name
	m, err := fleet.Get(ctx, name)
	if err != nil || m.Record == nil {
		return errors.Join(err, m.Err)
	}
	if took := durations(m.Record.Durations); took != "" && f.count > 1 {
		a.tell("%s: ready %s", name, took)
	} else if took != "" {
		a.tell("ready %s", took)
	}
	text := fmt.Sprintf("%s is %s", name, m.State)
	if port := m.Record.Instance.Spec.SSHPort(); port != 0 && !f.off {
		text += fmt.Sprintf("\nlog in with 'mica ssh %s' (user %s, port %d)", name, m.Record.User, port)
	}
	return a.print("%s", text)
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
