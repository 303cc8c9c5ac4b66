package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/run"
)

const (
	launchPatience = 60 * time.Second // for QEMU to set itself up
	watchKVM       = 500 * time.Millisecond
)

// errInternal says that the accelerator gave up on the guest.
var errInternal = errors.New("the virtual processor stopped with an internal error")

// Start implements machine.Driver.
func (d *Driver) Start(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	if err := checkAccel(s.Accel); err != nil {
		return err
	}
	settled, err := d.settle(ctx, i)
	if err != nil {
		return err
	}
	switch settled {
	case machine.Running:
		return nil
	case machine.Paused:
		return d.SetPaused(ctx, i, false)
	case machine.Crashed:
		return fail.New(fail.Conflict, "qemu is up, but the guest has crashed").Hint("power it off first")
	case machine.Absent:
		return fail.New(fail.NotFound, "the disk of %q is gone: no %s", s.Name, s.Path(diskFile))
	case machine.Saved:
		return d.restore(ctx, i)
	}
	return d.boot(ctx, i)
}

// settle brings what a killed command left half way to a state of rest, and
// returns the state then.
func (d *Driver) settle(ctx context.Context, i machine.Instance) (machine.State, error) {
	pid, err := holder(i.Spec.Dir)
	if err != nil {
		return "", err
	}
	if pid == 0 {
		if err := finishRevert(i); err != nil {
			return "", err
		}
	} else {
		status, err := d.ask(ctx, i, controlSocket)
		if err != nil {
			return "", fail.New(fail.Failed, "qemu (process %d) does not answer: %w", pid, err).Hint("power it off first")
		}
		switch status {
		case "inmigrate", "prelaunch", "shutdown":
			err = end(ctx, i.Spec.Dir)
		case "postmigrate":
			if exists(i, stateFile) {
				err = end(ctx, i.Spec.Dir)
			}
		default:
			return stateOf(status, i), nil
		}
		if err != nil {
			return "", err
		}
	}
	return d.State(ctx, i)
}

// boot starts the machine from off.
func (d *Driver) boot(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	if err := d.ready(s); err != nil {
		return err
	}
	rest := []string{stateLoaded, statePart, savedFile, savedPart}
	for _, file := range media(s) {
		rest = append(rest, part(file))
	}
	for _, name := range rest {
		if err := removeFile(s.Path(name)); err != nil {
			return err
		}
	}
	if err := os.Rename(s.Path(consoleFile), s.Path(lastConsole)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the last console log: %w", err)
	}
	h := d.hardware(s)
	l := launch{Layout: layout, Accel: accelTCG, Machine: h.fresh, Sandbox: true}
	forced := s.Accel == accelKVM
	if forced {
		if !d.native(h) {
			return foreign(h)
		}
		if err := d.kvmOpens(); err != nil {
			return err
		}
	}
	if forced || s.Accel != accelTCG && d.kvmFor(h) {
		l.Accel = accelKVM
	}
	err := d.launch(ctx, i, l)
	if l.Accel == accelKVM && !forced && (errors.Is(err, errInternal) || fail.Is(err, fail.HostLacks)) && ctx.Err() == nil {
		d.log.Warn("KVM does not run the guest, going on by emulation", "machine", s.Name, "error", err)
		l.Accel = accelTCG
		err = d.launch(ctx, i, l)
	}
	if errors.Is(err, errInternal) {
		return fail.New(fail.HostLacks, "starting %q: %w", s.Name, err).
			Hint("KVM of this computer does not run it; make the machine with --accel tcg")
	}
	return err
}

// ready says whether all that the machine has outside its folder is as it was.
func (d *Driver) ready(s machine.Spec) error {
	if err := checkShares(s); err != nil {
		return err
	}
	if err := usable(s); err != nil {
		return fmt.Errorf("starting %q: %w", s.Name, err)
	}
	_, err := d.loadFirmware(s)
	return err
}

// launch runs one QEMU up to the guest's first instruction, or leaves none.
func (d *Driver) launch(ctx context.Context, i machine.Instance, l launch) (err error) {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("starting %q: %w", i.Spec.Name, err)
	}
	l.hardware = d.hardware(i.Spec)
	if l.firmware, err = d.loadFirmware(i.Spec); err != nil {
		return err
	}
	if err := d.spawn(ctx, i, &l); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			after, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
			defer cancel()
			if eerr := end(after, i.Spec.Dir); eerr != nil {
				d.log.Warn("could not end qemu", "machine", i.Spec.Name, "error", eerr)
			}
		}
	}()
	within, cancel := context.WithTimeout(ctx, launchPatience)
	defer cancel()
	m, err := connect(within, i.Spec.Dir, controlSocket)
	if err != nil {
		return fmt.Errorf("starting %q: %w", i.Spec.Name, err)
	}
	defer m.close()
	if err := l.identify(within, m); err != nil {
		return fmt.Errorf("starting %q: %w", i.Spec.Name, err)
	}
	if l.incoming {
		err = d.load(within, i, m)
	} else if l.Accel == accelKVM {
		err = watch(within, m)
	}
	if err != nil {
		return err
	}
	return writeJSON(i.Spec.Path(launchFile), l)
}

// spawn runs the program, which ends when its daemon is set up. That is not
// cut short by ctx: it takes a moment, and a daemon whose parent was killed
// half way would be found by nobody.
func (d *Driver) spawn(ctx context.Context, i machine.Instance, l *launch) error {
	orphan := false
	for {
		_, err := d.run.Run(context.WithoutCancel(ctx), run.Command{
			Name: l.hardware.program, Args: l.args(i.Spec), Dir: i.Spec.Dir, Timeout: launchPatience,
		})
		var bad *run.Error
		if errors.As(err, &bad) && l.Sandbox && strings.Contains(string(bad.Result.Stderr), "sandbox support is not enabled") {
			l.Sandbox = false
			continue
		}
		if bad != nil && !orphan && strings.Contains(string(bad.Result.Stderr), "lock pid file") {
			// Nobody else may start this machine now: this QEMU is what a command
			// that was killed had just launched, with ports that may be others.
			orphan = true
			if err := end(ctx, i.Spec.Dir); err != nil {
				return fmt.Errorf("starting %q: an interrupted start is in the way: %w", i.Spec.Name, err)
			}
			continue
		}
		return explain(i.Spec, l.hardware, err)
	}
}

var hostForward = regexp.MustCompile(`(?i)host forwarding rule '?tcp:[0-9.]*:(\d+)-`)

// explain finds the known causes in QEMU's last words.
func explain(s machine.Spec, h hardware, err error) error {
	var bad *run.Error
	if err == nil || !errors.As(err, &bad) {
		if fail.Is(err, fail.HostLacks) && h.isARM() {
			return fail.New(fail.HostLacks, "starting %q: %w", s.Name, err).Hint("install it: %s", h.programs)
		}
		return err
	}
	text := strings.TrimSpace(string(bad.Result.Stderr))
	words := fmt.Errorf("qemu says: %s", strings.TrimPrefix(text, filepath.Base(h.program)+": "))
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	if m := hostForward.FindStringSubmatch(text); m != nil {
		port, _ := strconv.Atoi(m[1])
		return &machine.PortTaken{Port: port, Err: words}
	}
	switch {
	case has("KVM kernel module", "failed to initialize kvm", "kvm_init", "/dev/kvm"):
		return fail.New(fail.HostLacks, "starting %q with KVM: %w", s.Name, words).
			Hint("pass --accel tcg to run by emulation, several times slower")
	case has(`Failed to get "write" lock`):
		return fail.New(fail.Conflict, "starting %q: another qemu uses a disk of it: %w", s.Name, words).
			Hint("a disk can be in one machine that runs: stop the other one")
	case has("cannot lock pid file"):
		return fail.New(fail.Conflict, "starting %q: another qemu uses it: %w", s.Name, words)
	case has("Cannot allocate memory", "cannot set up guest memory"):
		return fail.New(fail.HostLacks, "starting %q: this computer has no %d MiB of memory free: %w", s.Name, s.MemoryMiB, words).
			Hint("ask for less with --memory")
	case has("fsdev", "virtio-9p"):
		return fail.New(fail.HostLacks, "starting %q with shared folders: %w", s.Name, words).
			Hint("some QEMU, that of RHEL for one, is built without 9p: name another in MICA_QEMU, or use --driver libvirt with --option shares=virtiofs").
			Hint("or make the machine without --share")
	case has("No space left on device"):
		return fail.New(fail.Failed, "starting %q: %w", s.Name, words).Hint("free some space on the disk of %s", s.Dir)
	case has("Failed to bind socket", "Failed to listen on socket"):
		return fail.New(fail.HostLacks, "starting %q: %w", s.Name, words).
			Hint("the file system of %s may not hold sockets: set MICA_HOME to a folder on a local disk", s.Dir)
	case text == "":
		return fmt.Errorf("starting %q: %w", s.Name, err)
	}
	return fmt.Errorf("starting %q: %w", s.Name, words)
}

// identify asks QEMU what it is; a saved state loads into nothing else.
func (l *launch) identify(ctx context.Context, m *monitor) error {
	var version struct {
		QEMU struct{ Major, Minor, Micro int }
	}
	if err := m.call(ctx, "query-version", nil, &version); err != nil {
		return err
	}
	l.Version = fmt.Sprintf("%d.%d.%d", version.QEMU.Major, version.QEMU.Minor, version.QEMU.Micro)
	var kind string
	if err := m.call(ctx, "qom-get", map[string]string{"path": "/machine", "property": "type"}, &kind); err != nil {
		return err
	}
	l.Machine = strings.TrimSuffix(kind, "-machine")
	return nil
}

// watch sees whether KVM dies on the guest at once, which is when it does.
func watch(ctx context.Context, m *monitor) error {
	for until := time.Now().Add(watchKVM); time.Now().Before(until); {
		status, err := m.status(ctx)
		if err != nil {
			return err
		}
		if status == "internal-error" {
			return errInternal
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}
