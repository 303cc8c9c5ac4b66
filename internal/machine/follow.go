package machine

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/stage"
)

// Keys of Record.Durations: seconds from the start of the machine to these.
const (
	ToHandOver = "handover"
	ToApply    = "apply"
	ToSSH      = "ssh"
)

// FactHostKey is the guest's public SSH key, one line of known_hosts without
// the name.
const FactHostKey = "ssh_host_key"

const (
	followEvery = 100 * time.Millisecond
	maxLine     = 64 << 10 // longer console lines are no events
	maxFact     = 16 << 10
	maxFacts    = 64
)

// events finds stage events in console output that comes in pieces.
type events struct{ rest []byte }

func (e *events) feed(data []byte, emit func(stage.Event)) {
	e.rest = append(e.rest, data...)
	for {
		n := bytes.IndexByte(e.rest, '\n')
		if n < 0 {
			if len(e.rest) > maxLine {
				e.rest = e.rest[:0]
			}
			return
		}
		if event, ok := stage.Parse(string(e.rest[:n])); ok {
			emit(event)
		}
		e.rest = e.rest[n+1:]
	}
}

// Stages returns the events in the console log since the machine was switched
// on, of its first maxRead bytes: a log that has grown for months is not read
// to its end for what stands at its beginning.
func (f *Fleet) Stages(ctx context.Context, m Machine) ([]stage.Event, error) {
	const maxRead = 8 << 20
	var all []stage.Event
	var parse events
	err := f.readLog(ctx, m, 0, maxRead, func(data []byte) {
		parse.feed(data, func(e stage.Event) { all = append(all, e) })
	})
	return all, err
}

// readLog gives the log from offset on, at most limit bytes, in pieces.
func (f *Fleet) readLog(ctx context.Context, m Machine, offset, limit int64, take func([]byte)) error {
	logger, err := f.logger(m)
	if err != nil {
		return err
	}
	for end := offset + limit; offset < end; {
		data, err := logger.Log(ctx, m.Record.Instance, offset)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return nil
		}
		data = data[:min(int64(len(data)), end-offset)]
		take(data)
		offset += int64(len(data))
	}
	return nil
}

func (f *Fleet) logger(m Machine) (Logger, error) {
	if m.Record == nil {
		return nil, m.Err
	}
	d, err := f.Drivers.Get(m.Record.spec().Driver)
	if err != nil {
		return nil, err
	}
	logger, ok := d.(Logger)
	if !ok {
		return nil, fail.New(fail.Usage, "driver %q keeps no console log", m.Record.spec().Driver)
	}
	return logger, nil
}

// CopyLog copies the console log to w; with follow it goes on until the
// machine is off or ctx ends, which is no error.
func (f *Fleet) CopyLog(ctx context.Context, name string, w io.Writer, follow bool) error {
	m, err := f.Get(ctx, name)
	if err != nil {
		return err
	}
	logger, err := f.logger(m)
	if err != nil {
		return err
	}
	for offset := int64(0); ; {
		data, err := logger.Log(ctx, m.Record.Instance, offset)
		if err != nil {
			return err
		}
		if len(data) > 0 {
			if _, err := w.Write(data); err != nil {
				return err
			}
			offset += int64(len(data))
			continue
		}
		if !follow {
			return nil
		}
		if now := f.look(ctx, name); !now.State.Live() && now.State != Creating {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// Follow gives emit every event of the machine's boot as it comes, until the
// context is applied. It fails when a stage fails, when the machine ends, and
// when ctx does. Facts and durations are put into the record.
func (f *Fleet) Follow(ctx context.Context, name string, emit func(stage.Event)) error {
	m, err := f.Get(ctx, name)
	if err != nil {
		return err
	}
	logger, err := f.logger(m)
	if err != nil {
		return err
	}
	var (
		parse   events
		offset  int64
		outcome error
		over    bool
		facts   = map[string]string{}
		took    = map[string]float64{}
		asked   time.Time
	)
	hear := func(e stage.Event) {
		if over {
			return
		}
		emit(e)
		for k, v := range e.Facts {
			if _, told := facts[k]; e.Stage != stage.Plugin && len(k) <= maxFact && len(v) <= maxFact && (told || len(facts) < maxFacts) {
				facts[k] = v
			}
		}
		since := f.now().Sub(m.Record.Started).Seconds()
		switch {
		case e.State == stage.Started:
		case e.Stage == stage.Apply:
			took[ToApply], over, outcome = since, true, stageError(name, e)
		case e.Stage == stage.HandOver && e.State != stage.Failed:
			took[ToHandOver] = since
		case e.State == stage.Failed && e.Stage != stage.Plugin:
			over, outcome = true, stageError(name, e)
		}
	}
	for !over {
		data, err := logger.Log(ctx, m.Record.Instance, offset)
		if err != nil {
			return err
		}
		offset += int64(len(data))
		parse.feed(data, hear)
		if over || len(data) > 0 {
			continue
		}
		if f.now().Sub(asked) > time.Second {
			if err := f.stillRuns(ctx, name); err != nil {
				return err
			}
			asked = f.now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q: %w", name, context.Cause(ctx))
		case <-time.After(followEvery):
		}
	}
	return errors.Join(outcome, f.remember(ctx, name, facts, took))
}

// stageError is nil unless the stage failed.
func stageError(name string, e stage.Event) error {
	if e.State != stage.Failed {
		return nil
	}
	what := e.Detail
	if what == "" {
		what = "no reason given"
	}
	err := fail.New(fail.Failed, "%s: stage %s failed: %s", name, e.Stage, what)
	if e.Remedy != "" {
		err = err.Hint("%s", e.Remedy)
	}
	return err.Hint("'mica logs --raw %s' shows all of its console", name)
}

func (f *Fleet) stillRuns(ctx context.Context, name string) error {
	switch m := f.look(ctx, name); m.State {
	case Running, Paused, Unknown:
		return nil
	case Crashed:
		return fail.New(fail.Failed, "%q has crashed: its virtual processor stopped", name).
			Hint("where KVM is to blame, make it with --accel tcg").Hint("'mica logs --raw %s' shows its last words", name)
	case "":
		return fail.New(fail.Failed, "%q was destroyed meanwhile", name)
	default:
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for %q: %w", name, ctx.Err())
		}
		return fail.New(fail.Failed, "%q is %s before its context was applied", name, m.State).
			Hint("'mica logs --raw %s' shows its last words", name)
	}
}

// remember adds facts and durations to the record.
func (f *Fleet) remember(ctx context.Context, name string, facts map[string]string, took map[string]float64) error {
	dir := f.Home.machine(name)
	l, err := waitLock(ctx, dir, name)
	if err != nil {
		return err
	}
	defer l.unlock()
	r, err := load(dir)
	if err != nil {
		return err
	}
	if r.Facts == nil {
		r.Facts = map[string]string{}
	}
	if r.Durations == nil {
		r.Durations = map[string]float64{}
	}
	for k, v := range facts {
		r.Facts[k] = v
	}
	for k, v := range took {
		r.Durations[k] = v
	}
	return r.save(dir)
}

// WaitSSH waits until an SSH server greets on the machine's forwarded port, or
// at its own address. It does not wait for one on another computer. That the
// port can be connected to proves nothing: the platform's network accepts before
// the guest does.
func (f *Fleet) WaitSSH(ctx context.Context, name string) error {
	m, err := f.Get(ctx, name)
	if err != nil {
		return err
	}
	if m.Record == nil {
		return m.Err
	}
	for {
		way, err := f.reach(ctx, m.Record.Instance)
		if err != nil {
			return err
		}
		if way.through != "" || way.port == 0 {
			return nil
		}
		if !way.pending && Greets(ctx, net.JoinHostPort(cmp.Or(way.address, "127.0.0.1"), strconv.Itoa(way.port))) {
			break
		}
		if err := f.stillRuns(ctx, name); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the SSH server of %q: %w", name, context.Cause(ctx))
		case <-time.After(4 * followEvery):
		}
	}
	return f.remember(ctx, name, nil, map[string]float64{ToSSH: f.now().Sub(m.Record.Started).Seconds()})
}

// Greets reports whether an SSH server answers at an address within some
// seconds. Servers under emulation take one or two to say their first word.
func Greets(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	lines := bufio.NewScanner(io.LimitReader(conn, 8<<10))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "SSH-") { // other lines may come before (RFC 4253, 4.2)
			return true
		}
	}
	return false
}
