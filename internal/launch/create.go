package launch

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/undo"
)

// defaultUserData is the context of machines whose user has none.
//
// Compat: cernvm-launch: src/Tools.cpp, letter by letter.
const defaultUserData = `[amiconfig]
plugins=cernvm
[cernvm]
auto_login=on
organisations=
repositories=
shell=/bin/bash
config_url=http://cernvm.cern.ch/config
users=user:user:password
edition=Desktop
screenRes=1280x800
keyboard=us-acentos
startXDM=on
`

const (
	defaultName     = "CernVM"
	maxName         = 64
	portableContext = 16 << 10 // what every cloud delivers
	maxUserData     = 4 << 20
)

var (
	createOptions = []string{"name", "cpus", "memory", "disk", "iso", "sharedFolder"}
	importOptions = []string{"name", "cpus", "memory", "disk", "sharedFolder"}
)

// create makes a machine from a context.
func (s *session) create(ctx context.Context, args []string) error {
	o, err := scan(args, createOptions, func(n int, file string) {
		s.say("%s: %s", [...]string{"Using user data file", "Using parameter file"}[n], file)
	})
	if err != nil {
		return err
	}
	return s.make(ctx, o, o.file(0), settings{})
}

// importOVA makes a machine from an appliance.
//
// Differs: the original also asks for a context that an appliance never gets, and
// fetches a boot image it does not use.
func (s *session) importOVA(ctx context.Context, args []string) error {
	o, err := scan(args, importOptions, func(n int, file string) {
		s.say("%s: %s", [...]string{"Using image file", "Using parameter file"}[n], file)
	})
	if err != nil {
		return err
	}
	if len(o.files) == 0 {
		return usage("Invalid arguments: 'import' takes an OVA file")
	}
	path, err := canonical(o.file(0))
	if err != nil {
		return fail.New(fail.NotFound, "No such file or directory: %q", o.file(0))
	}
	return s.make(ctx, o, "", settings{keyOVA: "true", keyOVAPath: path})
}

// make is create and import, step by step in the original's order.
func (s *session) make(ctx context.Context, o options, userDataFile string, forced settings) error {
	v := settings{}
	if file := o.file(1); file != "" {
		given, err := readSettings(file)
		if err != nil {
			return &coded{codeConfig, fmt.Errorf("Error while processing file: %s: %w", file, err)}
		}
		given.dropInternal(s.tell, file)
		v = given
	}
	for _, more := range []settings{o.values, forced} {
		for key, value := range more {
			v[key] = value
		}
	}
	fromConfig := v[keyUserData] != ""
	v.fill(s.config)
	driver, report, err := s.probe(ctx, v)
	if err != nil {
		return err
	}
	if err := s.userData(ctx, v, userDataFile, fromConfig); err != nil {
		return err
	}
	v.fill(defaults())
	if err := settle(v, s.tell); err != nil {
		return err
	}
	if o.wait = o.wait && !o.noStart; o.wait {
		if err := waitable(v); err != nil {
			return err
		}
	}
	if err := s.askName(ctx, v, userDataFile); err != nil {
		return err
	}
	if err := able(ctx, v, driver, report); err != nil {
		return err
	}
	h, err := s.reserve(ctx, v, driver)
	if err != nil {
		return err
	}
	err = s.furnish(ctx, h, o.noStart)
	h.free()
	if err == nil && o.wait {
		err = s.await(ctx, h.name())
	}
	if err != nil {
		return err
	}
	s.settled()
	s.say("Parameters of the machine:")
	for _, key := range []string{keyName, keyCPUs, keyMemory, keyDisk, keyVersion, keyShared} {
		if h.values[key] != "" {
			s.say("\t%s: %s", key, h.values[key])
		}
	}
	s.parting(h, o.noStart)
	return nil
}

// probe finds the driver and sees that it can be used here.
func (s *session) probe(ctx context.Context, v settings) (machine.Driver, machine.Report, error) {
	if v[keyDriver] == "" {
		v[keyDriver] = defaultDriver
	}
	d, err := s.Drivers.Get(v[keyDriver])
	if err != nil {
		return nil, machine.Report{}, err
	}
	report, err := d.Probe(ctx)
	if err != nil {
		return nil, report, fail.New(fail.ClassOf(err), "Unable to detect hypervisor: %w", err)
	}
	for _, w := range report.Warnings {
		s.tell("note: %s", w)
	}
	return d, report, nil
}

// able sees that the driver can do all that is asked for, before anything is
// made.
func able(ctx context.Context, v settings, d machine.Driver, report machine.Report) error {
	r := &record{values: maps.Clone(v)}
	r.values[micaDriver] = v[keyDriver]
	spec := r.spec()
	spec.Dir = ""
	if err := report.Supports(spec); err != nil {
		return err
	}
	if c, ok := d.(machine.Checker); ok {
		return c.Check(ctx, spec)
	}
	return nil
}

// userData decides on the context.
//
// Compat: each line of a file ends with a line break afterwards, the last one too.
//
// Differs: it warns of the default context's password, and of contexts that no
// cloud would deliver.
func (s *session) userData(ctx context.Context, v settings, file string, fromConfig bool) error {
	switch {
	case v[keyOVA] != "":
		delete(v, keyUserData)
		return nil
	case file != "":
		data, err := readFile(file, maxUserData)
		if err != nil {
			return fail.New(fail.NotFound, "Error while processing file: %s: %w", file, err)
		}
		if fromConfig {
			s.say("The parameter file has user data, too: the user data file is used")
		}
		if n := len(data); n > 0 && data[n-1] != '\n' {
			data = append(data, '\n')
		}
		v[keyUserData] = string(data)
	default:
		if v[keyUserData] == "" {
			v[keyUserData] = defaultUserData
		}
		s.say("No user data file was given. The machine would get this context:\n\n%s", strings.TrimRight(v[keyUserData], "\n")+"\n")
		answer, err := s.ask(ctx, "Continue with default context? [Y/n]: ")
		if err != nil {
			return err
		}
		if answer != "" && !yes(answer) {
			s.say("Aborting")
			return spoken(codeFailed)
		}
		if v[keyUserData] == defaultUserData {
			s.tell("Warning: the default context makes the account 'user' with a password that everybody knows")
		}
	}
	if n := len(v[keyUserData]); n > portableContext {
		s.tell("Warning: the context has %d bytes; clouds deliver at most %d", n, portableContext)
	}
	return machine.CheckContext(len(v[keyUserData]), true)
}

// settle checks and completes the values of a new machine.
func settle(v settings, tell func(string, ...any)) error {
	flags, err := checkNumbers(v)
	if err != nil {
		return err
	}
	switch strings.ToLower(v[keyOVA]) {
	case "true", "yes":
		flags |= flagOVA
	}
	if path := v[keyISO]; path != "" {
		if v[keyVersion] = path; flags&flagISO == 0 {
			flags |= flagISO
		}
		if v[keyISO], err = readable(path); err != nil {
			return fail.New(fail.NotFound, "The ISO image does not exist or cannot be read: %w", err)
		}
	}
	v[keyFlags] = strconv.FormatInt(flags, 10)
	if err := checkFlags(v, flags); err != nil {
		return err
	}
	if flags&flagOVA != 0 {
		v[keyOVA] = "true"
		if v[keyOVAPath], err = readable(v[keyOVAPath]); err != nil {
			return fail.New(fail.NotFound, "The appliance does not exist or cannot be read: %w", err)
		}
	}
	if flags&flagDiskLocal != 0 {
		if v[keyDiskPath], err = readable(v[keyDiskPath]); err != nil {
			return fail.New(fail.NotFound, "The disk does not exist or cannot be read: %w", err)
		}
	}
	if flags&flagDiskURL != 0 {
		if sum, err := hex.DecodeString(v[keyDiskSum]); err != nil || len(sum) != 32 {
			return fail.New(fail.Usage, "Invalid value of %s: %q is no SHA-256 digest", keyDiskSum, v[keyDiskSum])
		}
	}
	if flags&flagFloppy != 0 {
		tell("note: flag 8 asks for a floppy, which no guest reads: the context goes on a CD")
	}
	if dir := v[keyShared]; dir != "" && dir != noShare {
		if v[keyShared], err = canonicalFolder(dir); err != nil {
			return fail.New(fail.NotFound, "The shared folder cannot be used: %w", err)
		}
	}
	return nil
}

// readable returns the absolute path of a file that can be opened.
func readable(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(abs)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", abs)
	}
	return abs, nil
}

// askName asks for the name if there is none, and checks it.
//
// Differs: names do not begin with a hyphen, which other programs would take for
// an option, and have a bounded length.
func (s *session) askName(ctx context.Context, v settings, userDataFile string) error {
	if v[keyName] == "" {
		name := defaultName
		if userDataFile != "" {
			if base, _, _ := strings.Cut(filepath.Base(userDataFile), "."); base != "" {
				name = base
			}
		}
		answer, err := s.ask(ctx, fmt.Sprintf("Enter VM name [%s]: ", name))
		if err != nil {
			return err
		}
		if v[keyName] = answer; answer == "" {
			v[keyName] = name
		}
	}
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-_~"
	name := v[keyName]
	if strings.Trim(name, allowed) != "" || strings.HasPrefix(name, "-") || len(name) > maxName {
		return fail.New(fail.Usage, "Invalid name %q. Allowed characters are: a-z A-Z 0-9 + - _ ~, at most %d, and no - in front", name, maxName)
	}
	return nil
}

// reserve claims the name and a port, and writes the record, before anything
// else of the machine is there.
func (s *session) reserve(ctx context.Context, v settings, driver machine.Driver) (*held, error) {
	free, err := s.lock(ctx, createLock, "the list of machines")
	if err != nil {
		return nil, err
	}
	defer free()
	if err := s.evict(ctx, v[keyName]); err != nil {
		return nil, err
	}
	r := &record{id: uuid.NewString(), run: s.runDir(), values: settings{}}
	for key, value := range v {
		r.values[key] = value
	}
	delete(r.values, keyDriver)
	port, err := s.pickPort(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	for key, value := range map[string]string{
		keyUUID: r.id, keyVBoxID: r.id, keyInitialized: "1", micaDriver: v[keyDriver], micaPhase: phaseCreating,
		localBase: r.folder(), localPort: strconv.Itoa(port), localHost: "127.0.0.1", localInitialized: "1",
	} {
		r.values[key] = value
	}
	unlock, err := s.tryLock(recordPrefix + r.id + lockSuffix)
	if err != nil {
		return nil, err
	}
	h := &held{record: r, driver: driver, free: unlock}
	if err := r.save(); err != nil {
		_ = s.forget(r)
		unlock()
		return nil, err
	}
	return h, nil
}

// evict says that a name is taken, or clears what a killed command left under it.
// The caller holds the lock of creation.
func (s *session) evict(ctx context.Context, name string) error {
	have, err := s.find(name)
	if err != nil || have == nil {
		return err
	}
	taken := fail.New(fail.Conflict, "The machine already exists: %s", name)
	if have.values[micaPhase] == "" {
		return taken
	}
	free, err := s.tryLock(recordPrefix + have.id + lockSuffix)
	if errors.Is(err, atomicfile.ErrLocked) {
		return taken.Hint("another command is making or destroying it")
	}
	if err != nil {
		return err
	}
	defer free()
	s.tell("note: clearing what a command that was cut short left of %s", name)
	h := &held{record: have}
	if h.driver, err = s.Drivers.Get(have.driver()); err != nil {
		return err
	}
	return s.clear(ctx, h)
}

// furnish makes the machine of a fresh record. After an error nothing of it is
// left.
//
// Differs: with --no-start the original boots the machine, with its window, and
// powers it off again.
func (s *session) furnish(ctx context.Context, h *held, off bool) error {
	u := undo.New(s.Log)
	defer u.Run(ctx)
	u.Add("machine "+h.name(), func(ctx context.Context) error { return s.clear(ctx, h) })
	failed := func(err error) error { return fmt.Errorf("creating %q: %w", h.name(), err) }
	if err := os.Mkdir(h.folder(), 0o700); err != nil {
		return failed(err)
	}
	if err := s.bootImage(ctx, h.record); err != nil {
		return failed(err)
	}
	spec := h.spec()
	for _, share := range spec.Shares {
		s.tell("note: the machine may read and write %s; '%s=%s' in the configuration gives it no folder", share.Path, keyShared, noShare)
	}
	if err := h.save(); err != nil { // what is being made, before it is
		return failed(err)
	}
	sink := progress.Or(s.Progress)
	sink.Emit(progress.Event{ID: h.name(), Phase: "making the machine"})
	order := spec
	order.Context = []byte(h.values[keyUserData])
	made, err := h.driver.Create(ctx, order)
	if err != nil {
		return failed(err)
	}
	h.setHandle(made.Handle)
	if len(spec.Shares) > 0 {
		h.values[localShared] = "1"
	}
	if h.values[keyOVA] == "" {
		h.values[localContext] = h.values[keyUserData]
	}
	if h.instance, err = h.record.instance(); err != nil {
		return failed(err)
	}
	if spec.Image.Format != "" && spec.Driver == defaultDriver { // it has its own copy now
		_ = os.Remove(spec.ImagePath())
	}
	h.state = machine.Stopped
	if !off {
		if err := s.boot(ctx, h); err != nil {
			return err
		}
	} else {
		sink.Emit(progress.Event{ID: h.name(), Phase: "made", Finished: true})
	}
	delete(h.values, micaPhase)
	if err := h.save(); err != nil {
		return failed(err)
	}
	u.Release()
	return nil
}

// parting tells how to go on.
func (s *session) parting(h *held, off bool) {
	if off {
		s.tell("hint: 'cernvm-launch start %s' boots it", h.name())
		return
	}
	s.tell("hint: 'cernvm-launch ssh USER@%s' logs in when it has booted; its port %s is port %s of this computer", h.name(), h.values[keyAPIPort], h.values[localPort])
	if len(h.instance.Spec.Shares) > 0 {
		s.tell("hint: the shared folder is /mnt/shared/%s in the machine", h.instance.Spec.Shares[0].Name)
	}
}
