package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Machine is one machine as List and Get see it.
type Machine struct {
	Name   string
	State  State
	Record *Record // nil if it cannot be read
	Err    error   // why State is Damaged or Unknown
}

// Problem says what is wrong with the machine besides its state, in one line;
// empty is nothing.
func (m Machine) Problem() string {
	switch {
	case m.Err != nil:
		return m.Err.Error()
	case m.Record != nil && m.Record.Pending != nil:
		return "a change of it is not finished; if its command was killed, 'mica gc' finishes it"
	}
	return ""
}

// atOnce bounds how many machines of a driver are asked for their state at a
// time. Platforms have answers for many at once, too, and none of those will do:
// libvirt's lacks Mica's mark, VirtualBox's lists leave out the machines that
// have crashed or are being saved.
const atOnce = 16

// List returns every machine, sorted by name. A machine that cannot be asked
// is in the list too, and says why.
func (f *Fleet) List(ctx context.Context) ([]Machine, error) {
	names, err := f.Home.names()
	if err != nil {
		return nil, err
	}
	all := make([]Machine, len(names))
	if err := eachIndex(ctx, len(names), runtime.GOMAXPROCS(0), func(i int) { all[i] = f.read(names[i]) }); err != nil {
		return nil, fmt.Errorf("listing machines: %w", err)
	}
	if err := f.survey(ctx, all); err != nil {
		return nil, fmt.Errorf("listing machines: %w", err)
	}
	kept := all[:0]
	for _, m := range all {
		if m.State != "" { // destroyed while we looked
			kept = append(kept, m)
		}
	}
	return kept, nil
}

// eachIndex runs do for 0 to n-1, some at a time, until ctx ends.
func eachIndex(ctx context.Context, n, atOnce int, do func(i int)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error {
			if ctx.Err() == nil {
				do(i)
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// survey fills in the states of those machines whose platform knows them, the
// drivers beside each other: a platform that hangs keeps nobody but itself.
func (f *Fleet) survey(ctx context.Context, all []Machine) error {
	by := map[string][]*Machine{}
	for i := range all {
		if m := &all[i]; m.asks() {
			by[m.Record.spec().Driver] = append(by[m.Record.spec().Driver], m)
		}
	}
	var g errgroup.Group
	for name, machines := range by {
		g.Go(func() error {
			d, err := f.Drivers.Get(name)
			if err != nil {
				for _, m := range machines {
					m.State, m.Err = Unknown, err
				}
				return nil
			}
			return eachIndex(ctx, len(machines), atOnce, func(i int) {
				m := machines[i]
				m.answered(d.State(ctx, m.Record.Instance))
			})
		})
	}
	return g.Wait()
}

// asks reports whether the machine's platform is the one to know its state.
func (m *Machine) asks() bool { return m.State == "" && m.Record != nil }

func (m *Machine) answered(state State, err error) {
	if m.State = state; err != nil {
		m.State, m.Err = Unknown, err
	}
}

// Get returns one machine; fail.NotFound if there is none of that name.
func (f *Fleet) Get(ctx context.Context, name string) (Machine, error) {
	if err := CheckName(name); err != nil {
		return Machine{}, err
	}
	m := f.look(ctx, name)
	if m.State == "" {
		return m, f.Home.unknown(name)
	}
	return m, ctx.Err()
}

// look is Get for a name that is one; without a state there is no such machine.
func (f *Fleet) look(ctx context.Context, name string) Machine {
	m := f.read(name)
	if m.asks() {
		d, err := f.Drivers.Get(m.Record.spec().Driver)
		if err == nil {
			m.State, err = d.State(ctx, m.Record.Instance)
		}
		m.answered(m.State, err)
	}
	return m
}

// read is what the machine's folder says: all but the state, if that is the
// platform's to tell. There is neither where there is no such machine.
func (f *Fleet) read(name string) Machine {
	m := Machine{Name: name}
	r, err := load(f.Home.machine(name))
	if err != nil {
		if _, serr := os.Stat(f.Home.machine(name)); serr != nil {
			return m
		}
		m.State, m.Err = Damaged, err
		return m
	}
	m.Record = r
	if r.Phase != PhaseCreated {
		if m.State = f.unfinished(name); m.State == "" { // gone meanwhile
			m.Record = nil
		}
	}
	return m
}

// unfinished tells a machine that is being made from one whose maker died.
func (f *Fleet) unfinished(name string) State {
	l, err := tryLock(f.Home.machine(name))
	if err != nil {
		var busy *busyError
		if errors.As(err, &busy) {
			return Creating
		}
		return ""
	}
	l.unlock()
	return Incomplete
}

// recordCache keeps the records that records has read, so that making a
// thousand machines does not read them a thousand times.
type recordCache struct {
	mu   sync.Mutex // guards what follows
	read map[string]cachedRecord
}

type cachedRecord struct {
	file   fs.FileInfo // that it was read from
	record *Record     // nobody may change it; nil if it is damaged
}

// records returns the records of all machines but one, in no order, to be read
// only. Those that cannot be read are left out.
func (f *Fleet) records(except string) []*Record {
	names, _ := f.Home.names()
	found := make([]*Record, len(names))
	_ = eachIndex(context.Background(), len(names), runtime.GOMAXPROCS(0), func(i int) { // it has no error
		if names[i] != except {
			found[i] = f.record(names[i])
		}
	})
	kept := found[:0]
	for _, r := range found {
		if r != nil {
			kept = append(kept, r)
		}
	}
	return kept
}

// record reads one, unless its file is the one that was read last time: records
// are replaced, never written to.
func (f *Fleet) record(name string) *Record {
	dir := f.Home.machine(name)
	file, err := os.Stat(filepath.Join(dir, recordFile))
	if err != nil {
		return nil
	}
	f.seen.mu.Lock()
	known, ok := f.seen.read[name]
	f.seen.mu.Unlock()
	if ok && os.SameFile(known.file, file) && known.file.ModTime().Equal(file.ModTime()) && known.file.Size() == file.Size() {
		return known.record
	}
	r, _ := load(dir)
	f.seen.mu.Lock()
	defer f.seen.mu.Unlock()
	if f.seen.read == nil {
		f.seen.read = map[string]cachedRecord{}
	}
	f.seen.read[name] = cachedRecord{file, r}
	return r
}
