package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
)

// Fleet is all machines of one home. Its methods may be called concurrently,
// in this process and in others: each takes the lock of the machine it changes.
type Fleet struct {
	Home     Home
	Drivers  *Registry
	Log      *slog.Logger         // nil discards
	Progress progress.Sink        // nil discards
	Say      func(message string) // things the user should know, though all is well; nil discards
	Now      func() time.Time     // nil is time.Now
	Rand     io.Reader            // nil is crypto/rand

	// reached runs after each entry of a journal is on disk, and between the
	// steps of a removal: tests kill the process there.
	reached func(step string)

	seen recordCache
}

func (f *Fleet) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

func (f *Fleet) random() io.Reader {
	if f.Rand != nil {
		return f.Rand
	}
	return rand.Reader
}

func (f *Fleet) log() *slog.Logger {
	if f.Log != nil {
		return f.Log
	}
	return slog.New(slog.DiscardHandler)
}

func (f *Fleet) say(format string, args ...any) {
	if f.Say != nil {
		f.Say(fmt.Sprintf(format, args...))
	}
}

// note puts a step into the journal, on disk, before it is done.
func (f *Fleet) note(r *Record, step, object string) error {
	if n := len(r.Journal); n > 0 && r.Journal[n-1].Step == step { // every start is noted, one is kept
		r.Journal = r.Journal[:n-1]
	}
	r.Journal = append(r.Journal, Step{Time: f.now().UTC(), Step: step, Object: object})
	if err := r.save(r.spec().Dir); err != nil {
		return err
	}
	f.at(step)
	return nil
}

func (f *Fleet) at(step string) {
	if f.reached != nil {
		f.reached(step)
	}
}

// held is a machine whose lock this command holds.
type held struct {
	*Record
	lock   *lock
	driver Driver
	state  State
}

func (h *held) release() { h.lock.unlock() }

// hold locks the machine, reads its record and asks for its state.
func (f *Fleet) hold(ctx context.Context, name string) (*held, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	dir := f.Home.machine(name)
	l, err := waitLock(ctx, dir, name)
	if err != nil {
		if notThere(err) {
			return nil, f.Home.unknown(name)
		}
		return nil, err
	}
	h := &held{lock: l}
	if err := f.ask(ctx, h, dir); err != nil {
		l.unlock()
		return nil, err
	}
	return h, nil
}

func (f *Fleet) ask(ctx context.Context, h *held, dir string) (err error) {
	if h.Record, err = load(dir); err != nil {
		return err
	}
	if h.Phase != PhaseCreated {
		h.state = Incomplete
		return nil
	}
	if h.driver, err = f.Drivers.Get(h.spec().Driver); err != nil {
		return err
	}
	if h.state, err = h.driver.State(ctx, h.Instance); err != nil {
		return fmt.Errorf("asking for the state of %q: %w", h.spec().Name, err)
	}
	return nil
}

// change runs do under the machine's lock, if the table lets action a happen.
// It reports whether there was anything to do.
func (f *Fleet) change(ctx context.Context, name string, a Action, do func(*held) error) (bool, error) {
	h, err := f.hold(ctx, name)
	if err != nil {
		return false, err
	}
	defer h.release()
	todo, err := h.state.Allows(name, a)
	if err != nil || !todo {
		return false, err
	}
	if builds[a] {
		if err := f.finishChange(ctx, h); err != nil {
			return false, err
		}
	}
	f.log().Info("changing machine", "machine", name, "action", string(a), "state", string(h.state))
	return true, do(h)
}

// Start makes the machine run, from off, saved or paused, and reports whether
// it had to. How it came to run is in the state before.
func (f *Fleet) Start(ctx context.Context, name string) (before State, err error) {
	before = Running
	_, err = f.change(ctx, name, DoStart, func(h *held) error {
		before = h.state
		if h.state == Paused {
			return f.setPaused(ctx, h, false)
		}
		return f.start(ctx, h)
	})
	return before, err
}

// start starts the held machine through its driver, on other automatic ports
// if those of last time are taken.
func (f *Fleet) start(ctx context.Context, h *held) error {
	if err := f.finishChange(ctx, h); err != nil {
		return err
	}
	if h.state != Saved {
		h.Started, h.Durations = f.now().UTC(), nil
	}
	taken := map[int]bool{}
	for {
		if err := f.pickPorts(ctx, h.Record, taken, func() []*Record { return f.records(h.spec().Name) }); err != nil {
			return err
		}
		if err := f.note(h.Record, "start", ""); err != nil {
			return err
		}
		err := h.driver.Start(ctx, h.Instance)
		var port *PortTaken
		if !errors.As(err, &port) {
			return noSpace(err)
		}
		if port.Port == 0 || taken[port.Port] || !h.isAuto(port.Port) {
			return h.portLost(port.Port, err)
		}
		taken[port.Port] = true
	}
}

// portLost says what to do about a port that the user named and another program
// holds. A machine that is only being made will be gone by then.
func (h *held) portLost(port int, err error) error {
	lost := fail.New(fail.Conflict, "starting %q: %w", h.spec().Name, err)
	if !slices.ContainsFunc(h.Journal, func(s Step) bool { return s.Step == "complete" }) {
		return lost.Hint("end the program that listens there, or name another --port or --forward")
	}
	if _, ok := h.driver.(Forwarder); !ok {
		return lost.Hint("end the program that listens there")
	}
	for _, fwd := range h.spec().Forwards {
		if fwd.Host == port {
			return lost.Hint("end the program that listens there, or take another port: 'mica forward remove %s %d', then 'mica forward add %s auto:%d'",
				h.spec().Name, port, h.spec().Name, fwd.Guest)
		}
	}
	return lost.Hint("end the program that listens there, or take other ports: 'mica forward list %s' shows them", h.spec().Name)
}

func (r *Record) isAuto(port int) bool {
	for _, fwd := range r.spec().Forwards {
		if fwd.Host == port {
			return fwd.Auto
		}
	}
	return false
}

// Save writes the machine's memory to disk and ends it. It reports whether it
// had to.
func (f *Fleet) Save(ctx context.Context, name string) (bool, error) {
	return f.change(ctx, name, DoSave, func(h *held) error {
		s, ok := h.driver.(Saver)
		if !ok {
			return fail.New(fail.Usage, "driver %q cannot save a running machine", h.spec().Driver).
				Hint("use 'mica stop --shutdown' or 'mica stop --power-off'")
		}
		return noSpace(s.Save(ctx, h.Instance))
	})
}

// PowerOff ends the machine at once; saved memory is dropped.
func (f *Fleet) PowerOff(ctx context.Context, name string) (bool, error) {
	return f.change(ctx, name, DoPowerOff, func(h *held) error {
		return h.driver.Stop(ctx, h.Instance, PowerOff)
	})
}

// Shutdown asks the guest to end and waits at most patience for it.
func (f *Fleet) Shutdown(ctx context.Context, name string, patience time.Duration) (bool, error) {
	return f.change(ctx, name, DoShutdown, func(h *held) error {
		return shutdown(ctx, h, patience)
	})
}

func shutdown(ctx context.Context, h *held, patience time.Duration) error {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := h.driver.Stop(within, h.Instance, Shutdown)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return fail.New(fail.TimedOut, "%q did not shut down within %s, and still runs", h.spec().Name, patience).
			Hint("the guest may not listen to the power button; 'mica stop --power-off' ends it at once").
			Hint("'mica stop' saves it as it is")
	}
	return err
}

// SetPaused freezes or thaws the machine. It reports whether it had to.
func (f *Fleet) SetPaused(ctx context.Context, name string, paused bool) (bool, error) {
	action := DoResume
	if paused {
		action = DoPause
	}
	return f.change(ctx, name, action, func(h *held) error { return f.setPaused(ctx, h, paused) })
}

func (f *Fleet) setPaused(ctx context.Context, h *held, paused bool) error {
	p, ok := h.driver.(Pauser)
	if !ok {
		return fail.New(fail.Usage, "driver %q cannot pause a machine", h.spec().Driver)
	}
	return p.SetPaused(ctx, h.Instance, paused)
}

// Restart switches the machine off, politely for as long as patience, and on.
func (f *Fleet) Restart(ctx context.Context, name string, patience time.Duration) error {
	_, err := f.change(ctx, name, DoRestart, func(h *held) error {
		if h.state == Running && patience > 0 {
			err := shutdown(ctx, h, patience)
			if err != nil && !fail.Is(err, fail.TimedOut) {
				return err
			}
			if err != nil {
				f.say("%s did not shut down within %s: powering it off", name, patience)
			}
		}
		if h.state.Live() {
			if err := h.driver.Stop(ctx, h.Instance, PowerOff); err != nil {
				return err
			}
		}
		h.state = Stopped
		return f.start(ctx, h)
	})
	return err
}

// Destroy removes the machine and everything of it. A live one is refused
// without force. One that a killed command left behind needs no force.
func (f *Fleet) Destroy(ctx context.Context, name string, force bool) error {
	if err := CheckName(name); err != nil {
		return err
	}
	dir := f.Home.machine(name)
	l, err := waitLock(ctx, dir, name)
	if err != nil {
		if notThere(err) {
			return f.Home.unknown(name)
		}
		return err
	}
	h := &held{lock: l}
	defer h.release()
	if err := f.ask(ctx, h, dir); err != nil && !force {
		return fail.New(fail.Failed, "destroying %q: %w", name, err).Hint("'mica destroy --force %s' removes it all the same", name)
	}
	if h.state.Live() && !force {
		return fail.New(fail.Usage, "%q is %s", name, h.state).Hint("'mica destroy --force %s' destroys it all the same", name)
	}
	return f.clear(ctx, h, dir)
}

// clear removes a machine whose lock is held, whatever is left of it.
func (f *Fleet) clear(ctx context.Context, h *held, dir string) error {
	name := filepath.Base(dir)
	if h.Record == nil { // unreadable: what is known is the folder
		h.Record = &Record{Instance: Instance{Spec: Spec{Name: name, Dir: dir}}}
	} else if h.Phase != PhaseDestroying {
		h.Phase = PhaseDestroying
		if err := f.note(h.Record, "destroy", ""); err != nil {
			f.log().Warn("could not note the destruction", "machine", name, "error", err) // a full disk must not stop us
		}
	}
	drivers := f.Drivers.Names()
	if d := h.spec().Driver; d != "" {
		drivers = []string{d}
	}
	for _, one := range drivers {
		d, err := f.Drivers.Get(one)
		if err != nil {
			return err
		}
		if err := d.Destroy(ctx, h.Instance); err != nil {
			return fmt.Errorf("destroying %q: %w", name, err)
		}
	}
	f.at("instance gone")
	trash, err := os.MkdirTemp(f.Home.machines(), trashPrefix)
	if err != nil {
		return fmt.Errorf("destroying %q: %w", name, err)
	}
	if err := os.Rename(dir, filepath.Join(trash, name)); err != nil {
		_ = os.Remove(trash)
		return fmt.Errorf("destroying %q: %w", name, err)
	}
	f.at("in the trash")
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("removing the folder of %q: %w", name, err)
	}
	return nil
}
