package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Case is one driver to be tested.
type Case struct {
	// New returns the driver, ready to make machines of BootISO.
	New func(t *testing.T) machine.Driver
	// Patience is how long a tiny guest may take to say something; zero is ten
	// seconds.
	Patience time.Duration
	// AtOnce is how many machines run at the same time at most; zero is four.
	AtOnce int
	// Parallel lets the parts of the suite run beside each other, where the
	// driver's platform is light.
	Parallel bool
}

// Run tests everything that machine.Driver promises, and every optional power
// that the driver has.
func Run(t *testing.T, c Case) {
	if c.Patience == 0 {
		c.Patience = 10 * time.Second
	}
	if c.AtOnce == 0 {
		c.AtOnce = 4
	}
	for _, one := range []struct {
		name string
		test func(*suite)
	}{
		{"probe", (*suite).probe},
		{"life", (*suite).life},
		{"unknown machine", (*suite).unknown},
		{"create twice", (*suite).createTwice},
		{"cancelled", (*suite).cancelled},
		{"port taken", (*suite).portTaken},
		{"forwarded port", (*suite).forwarded},
		{"shutdown", (*suite).shutdown},
		{"destroy a live machine", (*suite).destroyLive},
		{"another's machine", (*suite).neighbours},
		{"strange folders", (*suite).strangeFolders},
		{"at the same time", (*suite).atOnce},
		{"pause", (*suite).pause},
		{"save", (*suite).save},
		{"asked while saving", (*suite).askedWhileSaving},
		{"drop saved memory", (*suite).dropSaved},
		{"console", (*suite).console},
		{"log", (*suite).logOfOneRun},
		{"snapshot of a stopped machine", (*suite).snapshotOff},
		{"snapshot of a running machine", (*suite).snapshotLive},
		{"change", (*suite).change},
		{"clone", (*suite).clone},
		{"forward ports of a live machine", (*suite).setForwards},
		{"screen", (*suite).screen},
		{"more disks", (*suite).moreDisks},
		{"more disks in clones and snapshots", (*suite).disksKept},
		{"firmware", (*suite).firmware},
		{"architecture", (*suite).arch},
		{"change of shares", (*suite).changeShares},
	} {
		t.Run(one.name, func(t *testing.T) {
			if c.Parallel && !strings.Contains(one.name, "port") { // ports freed by one are soon taken by another
				t.Parallel()
			}
			one.test(&suite{T: t, Case: c, driver: c.New(t)})
		})
	}
}

type suite struct {
	*testing.T
	Case
	driver machine.Driver
}

// order is a machine in a folder of its own.
func (s *suite) order(dir string, g Guest) machine.Spec {
	s.Helper()
	spec := machine.Spec{
		Name: "test-" + strconv.Itoa(os.Getpid()), ID: uuid.NewString(), MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Dir: dir,
		Context: []byte("#!/bin/sh\nexit\n"), PublicKeys: []string{"ssh-ed25519 AAAA test"},
	}
	if err := os.WriteFile(spec.ImagePath(), BootISO(g), 0o600); err != nil {
		s.Fatal(err)
	}
	return spec
}

const hello = "hello from the guest"

func (s *suite) create(g Guest) machine.Instance {
	s.Helper()
	if g.Says == "" {
		g.Says = hello + "\r\n"
	}
	return s.createIn(s.TempDir(), g)
}

func (s *suite) createIn(dir string, g Guest) machine.Instance {
	s.Helper()
	spec := s.order(dir, g)
	i, err := s.driver.Create(s.Context(), spec)
	if err != nil {
		s.Fatalf("Create: %v", err)
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.driver.Destroy(ctx, i); err != nil {
			s.Errorf("Destroy: %v", err)
		}
	})
	i.Spec.Dir = dir
	return i
}

func (s *suite) state(i machine.Instance, want machine.State) {
	s.Helper()
	got, err := s.driver.State(s.Context(), i)
	if err != nil || got != want {
		s.Fatalf("State = %q, %v; want %q", got, err, want)
	}
}

func (s *suite) must(what string, err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v (hints: %q)", what, err, fail.Hints(err))
	}
}

// clean fails unless nothing but the suite's own image is left.
func (s *suite) clean(dir string) {
	s.Helper()
	entries, err := os.ReadDir(dir)
	s.must("reading "+dir, err)
	for _, e := range entries {
		if e.Name() != "image.iso" {
			s.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
		}
	}
}

func (s *suite) eventually(what string, ok func() bool) {
	s.Helper()
	for until := time.Now().Add(s.Patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			s.Fatalf("still not after %s: %s", s.Patience, what)
		}
	}
}

func (s *suite) log(i machine.Instance) string {
	s.Helper()
	l, ok := s.driver.(machine.Logger)
	if !ok {
		s.Skip("keeps no log")
	}
	data, err := l.Log(s.Context(), i, 0)
	s.must("Log", err)
	return string(data)
}

var countPattern = regexp.MustCompile(`#([0-9a-f]{4})\r\n`)

// count is how far the guest has counted, 0 before it began.
func (s *suite) count(i machine.Instance) int {
	s.Helper()
	all := countPattern.FindAllStringSubmatch(s.log(i), -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(all[len(all)-1][1], 16, 0)
	s.must("reading the count", err)
	return int(n)
}

func (s *suite) counts(i machine.Instance, beyond int) {
	s.Helper()
	s.eventually(fmt.Sprintf("the guest counts beyond %d", beyond), func() bool { return s.count(i) > beyond })
}

func (s *suite) probe() {
	began := time.Now()
	r, err := s.driver.Probe(s.Context())
	s.must("Probe", err)
	if took := time.Since(began); took > s.Patience {
		s.Errorf("Probe took %s", took)
	}
	if r.Driver == "" || r.Version == "" {
		s.Errorf("Probe = %+v, want driver and version", r)
	}
}

func (s *suite) life() {
	i := s.create(Guest{})
	s.state(i, machine.Stopped)
	s.must("Stop of a stopped machine", s.driver.Stop(s.Context(), i, machine.PowerOff))
	for range 2 {
		s.must("Start", s.driver.Start(s.Context(), i))
		s.state(i, machine.Running)
		s.must("Start of a running machine", s.driver.Start(s.Context(), i))
		s.counts(i, 0)
		s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
		s.state(i, machine.Stopped)
	}
	s.must("Destroy", s.driver.Destroy(s.Context(), i))
	s.state(i, machine.Absent)
	s.must("Destroy of a destroyed machine", s.driver.Destroy(s.Context(), i))
	s.clean(i.Spec.Dir)
}

func (s *suite) unknown() {
	i := machine.Instance{Spec: s.order(s.TempDir(), Guest{})}
	s.state(i, machine.Absent)
	s.must("Destroy of an unknown machine", s.driver.Destroy(s.Context(), i))
	i.Spec.Dir = filepath.Join(s.TempDir(), "nowhere")
	s.state(i, machine.Absent)
	s.must("Destroy of a machine without a folder", s.driver.Destroy(s.Context(), i))
}

func (s *suite) createTwice() {
	i := s.create(Guest{})
	if _, err := s.driver.Create(s.Context(), i.Spec); !fail.Is(err, fail.Conflict) {
		s.Errorf("second Create = %v, want class Conflict", err)
	}
	s.state(i, machine.Stopped)
	s.must("Start after a refused Create", s.driver.Start(s.Context(), i))
}

func (s *suite) cancelled() {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	spec := s.order(s.TempDir(), Guest{})
	if _, err := s.driver.Create(ctx, spec); !errors.Is(err, context.Canceled) {
		s.Errorf("Create = %v, want context cancelled", err)
	}
	s.clean(spec.Dir)
	i := s.create(Guest{})
	if err := s.driver.Start(ctx, i); !errors.Is(err, context.Canceled) {
		s.Errorf("Start = %v, want context cancelled", err)
	}
	s.state(i, machine.Stopped)
	s.must("Start after a cancelled one", s.driver.Start(s.Context(), i))
	s.state(i, machine.Running)
}

// listen takes a free port of this computer.
func (s *suite) listen() (net.Listener, int) {
	s.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test
	s.must("listening", err)
	return l, l.Addr().(*net.TCPAddr).Port
}

func (s *suite) portTaken() {
	i := s.create(Guest{})
	l, port := s.listen()
	defer l.Close()
	i.Spec.Forwards = []machine.Forward{{Host: port, Guest: 22}}
	var taken *machine.PortTaken
	if err := s.driver.Start(s.Context(), i); !errors.As(err, &taken) || taken.Port != port {
		s.Fatalf("Start = %v, want PortTaken %d", err, port)
	}
	s.state(i, machine.Stopped)
	_ = l.Close()
	s.must("Start with the port free again", s.driver.Start(s.Context(), i))
}

func (s *suite) forwarded() {
	i := s.create(Guest{})
	l, port := s.listen()
	_ = l.Close()
	i.Spec.Forwards = []machine.Forward{{Host: port, Guest: 22}}
	s.must("Start", s.driver.Start(s.Context(), i))
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.eventually("the port accepts", func() bool {
		return s.accepts(address)
	})
	s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	if s.accepts(address) {
		s.Error("the port still accepts after Stop")
	}
}

func (s *suite) accepts(address string) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(s.Context(), "tcp", address)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

func (s *suite) shutdown() {
	deaf := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), deaf))
	s.counts(deaf, 0)
	ctx, cancel := context.WithTimeout(s.Context(), time.Second)
	defer cancel()
	if err := s.driver.Stop(ctx, deaf, machine.Shutdown); !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("Shutdown of a guest that does not listen = %v, want deadline exceeded", err)
	}
	s.state(deaf, machine.Running)
	s.must("Stop", s.driver.Stop(s.Context(), deaf, machine.PowerOff))

	obeys := s.create(Guest{Obeys: true})
	s.must("Start", s.driver.Start(s.Context(), obeys))
	s.counts(obeys, 0)
	ctx, cancel = context.WithTimeout(s.Context(), s.Patience)
	defer cancel()
	s.must("Shutdown", s.driver.Stop(ctx, obeys, machine.Shutdown))
	s.state(obeys, machine.Stopped)
	s.must("Shutdown of a stopped machine", s.driver.Stop(ctx, obeys, machine.Shutdown))
}

func (s *suite) destroyLive() {
	i := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), i))
	s.must("Destroy", s.driver.Destroy(s.Context(), i))
	s.state(i, machine.Absent)
	s.clean(i.Spec.Dir)
}

// neighbours sees that what happens to one machine leaves another alone.
func (s *suite) neighbours() {
	one, other := s.create(Guest{}), s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), one))
	s.must("Start", s.driver.Start(s.Context(), other))
	s.must("Destroy", s.driver.Destroy(s.Context(), one))
	s.state(other, machine.Running)
	s.counts(other, s.count(other))
}

func (s *suite) strangeFolders() {
	for _, name := range []string{`with, comma and=equals`, `with "quotes" 'and' spaces`, `100% #1 ünïcode`, strings.Repeat("long", 50)} {
		dir := filepath.Join(s.TempDir(), name)
		s.must("making folder", os.Mkdir(dir, 0o700))
		i := s.createIn(dir, Guest{Says: hello + "\r\n"})
		s.must("Start in "+name, s.driver.Start(s.Context(), i))
		s.state(i, machine.Running)
		if save, ok := s.driver.(machine.Saver); ok {
			s.must("Save in "+name, save.Save(s.Context(), i))
			s.must("Start from saved in "+name, s.driver.Start(s.Context(), i))
		}
		s.must("Stop in "+name, s.driver.Stop(s.Context(), i, machine.PowerOff))
	}
}

func (s *suite) atOnce() {
	all := make([]machine.Instance, s.AtOnce)
	for n := range all {
		all[n] = s.create(Guest{})
	}
	var wg sync.WaitGroup
	for _, i := range all {
		wg.Go(func() {
			for _, err := range []error{
				s.driver.Start(s.Context(), i), s.driver.Stop(s.Context(), i, machine.PowerOff), s.driver.Start(s.Context(), i),
			} {
				if err != nil {
					s.Errorf("at the same time: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, i := range all {
		s.state(i, machine.Running)
	}
}

func (s *suite) pause() {
	p, ok := s.driver.(machine.Pauser)
	if !ok {
		s.Skip("cannot pause")
	}
	i := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	for range 2 {
		s.must("pause", p.SetPaused(s.Context(), i, true))
		s.state(i, machine.Paused)
	}
	before := s.count(i)
	time.Sleep(300 * time.Millisecond)
	if after := s.count(i); after != before {
		s.Errorf("a paused guest counted from %d to %d", before, after)
	}
	for range 2 {
		s.must("resume", p.SetPaused(s.Context(), i, false))
		s.state(i, machine.Running)
	}
	s.counts(i, before)
}

func (s *suite) saver() machine.Saver {
	s.Helper()
	save, ok := s.driver.(machine.Saver)
	if !ok {
		s.Skip("cannot save")
	}
	return save
}

func (s *suite) save() {
	save := s.saver()
	i := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 3)
	for range 2 {
		s.must("Save", save.Save(s.Context(), i))
		s.state(i, machine.Saved)
		s.must("Save of a saved machine", save.Save(s.Context(), i))
		before := s.count(i)
		s.must("Start", s.driver.Start(s.Context(), i))
		s.state(i, machine.Running)
		s.counts(i, before)
	}
	if log := s.log(i); strings.Count(log, hello) != 1 {
		s.Errorf("the guest started %d times, want once", strings.Count(log, hello))
	}
	if p, ok := s.driver.(machine.Pauser); ok {
		s.must("pause", p.SetPaused(s.Context(), i, true))
		s.must("Save of a paused machine", save.Save(s.Context(), i))
		before := s.count(i)
		s.must("Start", s.driver.Start(s.Context(), i))
		s.counts(i, before)
	}
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if err := save.Save(ctx, i); !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled Save = %v, want context cancelled", err)
	}
	s.state(i, machine.Running)
	s.counts(i, s.count(i))
}

// askedWhileSaving asks for the state all the time.
func (s *suite) askedWhileSaving() {
	save := s.saver()
	i := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), i))
	ctx, cancel := context.WithCancel(s.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			state, err := s.driver.State(s.Context(), i)
			if err != nil || state != machine.Running && state != machine.Paused && state != machine.Saved {
				s.Errorf("State while saving = %q, %v", state, err)
				return
			}
		}
	})
	s.must("Save", save.Save(s.Context(), i))
	cancel()
	wg.Wait()
	s.state(i, machine.Saved)
}

func (s *suite) dropSaved() {
	save := s.saver()
	i := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 3)
	s.must("Save", save.Save(s.Context(), i))
	s.must("Stop of a saved machine", s.driver.Stop(s.Context(), i, machine.PowerOff))
	s.state(i, machine.Stopped)
	s.must("Start", s.driver.Start(s.Context(), i))
	s.eventually("the guest starts anew", func() bool { return strings.Count(s.log(i), hello) == 1 })
	s.must("Save", save.Save(s.Context(), i))
	s.must("Destroy of a saved machine", s.driver.Destroy(s.Context(), i))
	s.clean(i.Spec.Dir)
}

func (s *suite) console() {
	c, ok := s.driver.(machine.Consoler)
	if !ok {
		s.Skip("has no console")
	}
	i := s.create(Guest{})
	s.must("Start", s.driver.Start(s.Context(), i))
	s.counts(i, 0)
	for n := range 2 { // it can be opened again
		conn, err := c.Console(s.Context(), i)
		s.must("Console", err)
		if _, err := c.Console(s.Context(), i); !fail.Is(err, fail.Conflict) {
			s.Errorf("second Console = %v, want class Conflict", err)
		}
		want := []string{"shown", "known"}[n] // the guest's numbers have no such letters
		_, err = io.WriteString(conn, want)
		s.must("writing to the console", err)
		var got bytes.Buffer
		buf := make([]byte, 256)
		for until := time.Now().Add(s.Patience); !bytes.Contains(got.Bytes(), []byte(want)); {
			if time.Now().After(until) {
				s.Fatalf("the console says %q, want %q in it", got.String(), want)
			}
			n, err := conn.Read(buf)
			s.must("reading the console", err)
			for _, b := range buf[:n] { // the guest counts in between
				if b > 'f' && b <= 'z' {
					got.WriteByte(b)
				}
			}
		}
		s.must("closing the console", conn.Close())
	}
}

func (s *suite) logOfOneRun() {
	l, ok := s.driver.(machine.Logger)
	if !ok {
		s.Skip("keeps no log")
	}
	i := s.create(Guest{})
	if data, err := l.Log(s.Context(), i, 0); len(data) != 0 || err != nil {
		s.Errorf("Log before the first start = %q, %v; want nothing", data, err)
	}
	for range 2 {
		s.must("Start", s.driver.Start(s.Context(), i))
		s.counts(i, 0)
		s.must("Stop", s.driver.Stop(s.Context(), i, machine.PowerOff))
	}
	all := s.log(i)
	if strings.Count(all, hello) != 1 {
		s.Errorf("the log holds %d starts, want the last one only", strings.Count(all, hello))
	}
	tail, err := l.Log(s.Context(), i, int64(len(all))-5)
	if err != nil || string(tail) != all[len(all)-5:] {
		s.Errorf("Log from an offset = %q, %v; want %q", tail, err, all[len(all)-5:])
	}
	if data, err := l.Log(s.Context(), i, int64(len(all))+1000); len(data) != 0 || err != nil {
		s.Errorf("Log beyond its end = %q, %v; want nothing", data, err)
	}
}
