package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/undo"
)

// Order is a machine to be created.
type Order struct {
	Spec        Spec   // Name, Driver, sizes, Image.Path, Forwards, Accel, Context
	ContextFrom string // where the context came from, for people
	User        string // who mica ssh logs in as; empty is root
	AllowLarge  bool   // the context may be larger than clouds deliver
	Off         bool   // do not start it

	appliance *appliance // the image is in it
	report    *Report    // what Probe found
}

const contextFile = "context"

// Check says whether the order could be carried out, without doing anything,
// and returns the report of the platform.
func (f *Fleet) Check(ctx context.Context, o *Order) (Report, error) {
	if err := o.Spec.Validate(); err != nil {
		return Report{}, err
	}
	if err := CheckContext(len(o.Spec.Context), o.AllowLarge); err != nil {
		return Report{}, err
	}
	d, err := f.Drivers.Get(o.Spec.Driver)
	if err != nil {
		return Report{}, err
	}
	if r, err := load(f.Home.machine(o.Spec.Name)); err == nil && r.Phase == PhaseCreated {
		return Report{}, taken(o.Spec.Name)
	}
	if o.appliance == nil {
		if err := checkImage(o.Spec.Image); err != nil {
			return Report{}, err
		}
		if err := checkArch(o.Spec); err != nil {
			return Report{}, err
		}
	}
	if err := f.checkShares(o.Spec.Shares); err != nil {
		return Report{}, err
	}
	report, err := f.Probe(ctx, o)
	if err != nil {
		return report, err
	}
	if err := report.Supports(o.Spec); err != nil {
		return report, err
	}
	if err := f.settleDisks(&o.Spec); err != nil {
		return report, err
	}
	if c, ok := d.(Checker); ok {
		if err := c.Check(ctx, o.Spec); err != nil {
			return report, err
		}
	}
	return report, f.checkPorts(ctx, o.Spec)
}

// Probe asks the order's platform what it can do, and says what it warns of.
// Copies of the order, for more machines like it, do not ask again.
func (f *Fleet) Probe(ctx context.Context, o *Order) (Report, error) {
	if o.report != nil {
		return *o.report, nil
	}
	d, err := f.Drivers.Get(o.Spec.Driver)
	if err != nil {
		return Report{}, err
	}
	report, err := probe(ctx, d, o.Spec)
	if err != nil {
		return report, err
	}
	if !slices.Contains(report.Accel, o.Spec.Accel) { // who names a usable one knows what it costs
		for _, w := range report.Warnings {
			f.say("%s", w)
		}
	}
	o.report = &report
	return report, nil
}

// probe asks the platform that the Spec is for.
func probe(ctx context.Context, d Driver, s Spec) (Report, error) {
	if p, ok := d.(Prober); ok {
		return p.ProbeFor(ctx, s)
	}
	return d.Probe(ctx)
}

func taken(name string) error {
	return fail.New(fail.Conflict, "a machine named %q exists already", name).
		Hint("choose another name, or 'mica destroy %s' first", name)
}

// Create makes the machine and starts it. After an error, or if ctx is
// cancelled before it has started, nothing is left of it.
func (f *Fleet) Create(ctx context.Context, o Order) (*Record, error) {
	if _, err := f.Check(ctx, &o); err != nil {
		return nil, err
	}
	if err := f.Home.make(); err != nil {
		return nil, err
	}
	driver, err := f.Drivers.Get(o.Spec.Driver)
	if err != nil {
		return nil, err
	}
	return f.build(ctx, o, driver, o.Spec.Image.Path, func(s Spec) (Instance, error) { return driver.Create(ctx, s) })
}

// build makes the machine from the reserved name to the start; instance is the
// driver's part, image where the boot image is.
func (f *Fleet) build(ctx context.Context, o Order, driver Driver, image string, instance func(Spec) (Instance, error)) (*Record, error) {
	h, err := f.reserve(ctx, o)
	if err != nil {
		return nil, noSpace(err)
	}
	defer h.release()
	h.driver = driver
	u := undo.New(f.log())
	defer u.Run(ctx)
	u.Add("machine "+o.Spec.Name, func(ctx context.Context) error { return f.clear(ctx, h, h.spec().Dir) })
	if err := f.furnish(ctx, h, o, image, instance); err != nil {
		return nil, noSpace(fmt.Errorf("creating %q: %w", o.Spec.Name, err))
	}
	if !o.Off {
		h.state = Stopped
		if err := f.start(ctx, h); err != nil {
			return nil, err
		}
	}
	if err := f.note(h.Record, "complete", ""); err != nil {
		return nil, noSpace(err)
	}
	u.Release()
	return h.Record, nil
}

// reserve makes the folder with its lock and record, under its name or not at
// all. What a killed command left under that name is cleared first.
func (f *Fleet) reserve(ctx context.Context, o Order) (*held, error) {
	id, err := uuid.NewRandomFromReader(f.random())
	if err != nil {
		return nil, fmt.Errorf("choosing an id: %w", err)
	}
	spec := o.Spec
	spec.ID, spec.Context, spec.Dir = id.String(), nil, f.Home.machine(spec.Name)
	user := o.User
	if user == "" {
		user = "root"
	}
	r := &Record{
		Schema: recordSchema, Phase: PhaseCreating, Created: f.now().UTC(), User: user, Context: o.ContextFrom,
		Instance: Instance{Spec: spec}, Journal: []Step{},
	}
	// Until the record has its name, no other command sees which ports it claims.
	ports, err := atomicfile.Acquire(ctx, f.Home.portsLock())
	if err != nil {
		return nil, fmt.Errorf("creating %q: %w", spec.Name, err)
	}
	defer ports.Unlock() //nolint:errcheck // nothing to be done about it
	others := sync.OnceValue(func() []*Record { return f.records(spec.Name) })
	if err := f.pickPorts(ctx, r, nil, others); err != nil {
		return nil, err
	}
	if _, has := spec.usersDisk(); has {
		f.sayShared(spec, others())
	}
	fresh, err := os.MkdirTemp(f.Home.machines(), newPrefix)
	if err != nil {
		return nil, fmt.Errorf("creating %q: %w", spec.Name, err)
	}
	f.at("folder")
	lock, err := newLock(fresh)
	if err == nil {
		err = r.save(fresh)
	}
	for try := 0; err == nil; try++ {
		err = os.Rename(fresh, spec.Dir) // fails where the name is taken: a machine's folder is never empty
		if err == nil {
			f.at("reserved")
			return &held{Record: r, lock: lock}, nil
		}
		if _, serr := os.Stat(spec.Dir); serr != nil || try == 3 {
			break
		}
		err = f.evict(ctx, spec.Name)
	}
	if lock != nil {
		lock.unlock()
	}
	_ = os.RemoveAll(fresh)
	return nil, err
}

// evict clears what a killed command left under a name that is wanted, or says
// that the name is taken.
func (f *Fleet) evict(ctx context.Context, name string) error {
	dir := f.Home.machine(name)
	l, err := tryLock(dir)
	var busy *busyError
	switch {
	case errors.As(err, &busy):
		return fail.New(fail.Conflict, "another command is making or changing a machine named %q: %w", name, err).
			Hint("choose another name")
	case notThere(err):
		return nil
	case err != nil:
		return err
	}
	h := &held{lock: l}
	defer h.release()
	r, err := load(dir)
	if notThere(err) { // what a command of mica's left has a record, from beginning to end
		return fail.New(fail.Conflict, "%s is in the way, and holds no machine", dir).
			Hint("move it away, or choose another name")
	}
	if err != nil {
		return fail.New(fail.Conflict, "the folder of %q holds a damaged record: %w", name, err).
			Hint("'mica destroy --force %s' removes it", name)
	}
	if r.Phase == PhaseCreated {
		return taken(name)
	}
	h.Record = r
	f.say("clearing what a killed command left of %q", name)
	return f.clear(ctx, h, dir)
}

// furnish fills the reserved folder and makes the instance.
func (f *Fleet) furnish(ctx context.Context, h *held, o Order, boot string, maker func(Spec) (Instance, error)) error {
	sink := progress.Or(f.Progress)
	spec := h.spec()
	if err := f.note(h.Record, "key pair", keyFile); err != nil {
		return err
	}
	public, err := makeKeys(spec, f.random())
	if err != nil {
		return err
	}
	if err := f.note(h.Record, "context", contextFile); err != nil {
		return err
	}
	if err := atomicfile.Write(spec.Path(contextFile), o.Spec.Context, 0o600); err != nil {
		return err
	}
	if len(o.Spec.PublicKeys) > 0 { // a clone of the machine gets them, too
		if err := atomicfile.Write(spec.Path(keysFile), []byte(strings.Join(o.Spec.PublicKeys, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := f.note(h.Record, "boot image", o.Spec.Image.Path); err != nil {
		return err
	}
	if o.appliance != nil {
		spec.Image, err = o.appliance.unpack(ctx, spec, sink)
	} else {
		sink.Emit(progress.Event{ID: spec.Name, Phase: "taking the boot image"})
		spec.Image, err = f.adoptImage(ctx, spec, boot)
	}
	if err == nil && spec.Image.Format != "" { // as it is here, where nobody changes it any more
		err = CheckDiskImage(spec.ImagePath(), spec.Image.Format)
	}
	if err != nil {
		return err
	}
	h.Instance.Spec = spec
	if err := f.note(h.Record, "instance", spec.Driver+" "+spec.ID); err != nil {
		return err
	}
	order := spec
	order.Context, order.PublicKeys = o.Spec.Context, append([]string{public}, o.Spec.PublicKeys...)
	instance, err := maker(order)
	if err != nil {
		return err
	}
	h.Instance.Handle = instance.Handle
	h.Instance.Spec.DiskMiB = max(spec.DiskMiB, instance.Spec.DiskMiB) // a disk image may be larger than what was asked for
	h.Phase = PhaseCreated
	return f.note(h.Record, "created", "")
}
