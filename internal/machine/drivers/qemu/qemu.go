package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/undo"
)

// Name is the driver's name.
const Name = "qemu"

const (
	program   = "qemu-system-x86_64"
	kvmDevice = "/dev/kvm"
	mebi      = 1 << 20

	diskFile      = "disk.raw"
	configFile    = "config.iso"
	consoleFile   = "serial.log"
	lastConsole   = "serial.log.1"
	controlSocket = "control.sock"
	statusSocket  = "status.sock"
	serialSocket  = "serial.sock"
	consoleLock   = "console.lock"
	launchFile    = "launch.json"
	stateFile     = "state.bin"    // memory to go on from
	statePart     = "state.part"   // being written
	stateLoaded   = "state.loaded" // loaded; the guest may have run since
	savedFile     = "saved.json"   // how state.bin was made
	savedPart     = "saved.part"
)

// Driver runs machines with QEMU. It keeps nothing in memory.
type Driver struct {
	run     run.Runner
	log     *slog.Logger
	program string
	getenv  func(string) string

	// Whether KVM answers, and whether it runs real kernels; tests say so.
	kvmOpens, kvmWorks func() error
}

var (
	_ machine.Driver    = (*Driver)(nil)
	_ machine.Pauser    = (*Driver)(nil)
	_ machine.Saver     = (*Driver)(nil)
	_ machine.Consoler  = (*Driver)(nil)
	_ machine.Logger    = (*Driver)(nil)
	_ machine.Describer = (*Driver)(nil)

	_ machine.Snapshotter = (*Driver)(nil)
	_ machine.Screener    = (*Driver)(nil)
	_ machine.Viewer      = (*Driver)(nil)
	_ machine.Forwarder   = (*Driver)(nil)
	_ machine.Changer     = (*Driver)(nil)
	_ machine.Cloner      = (*Driver)(nil)
	_ machine.Checker     = (*Driver)(nil)
)

// New returns the driver. MICA_QEMU names another program than
// qemu-system-x86_64 in PATH.
func New(env machine.Env) machine.Driver {
	env = env.Defaults()
	d := &Driver{run: env.Run, log: env.Log, program: program, getenv: env.Getenv}
	d.kvmOpens = func() error { return kvmOpens(kvmDevice) }
	d.kvmWorks = func() error { return kvmWorks(kvmDevice, "/proc/cpuinfo") }
	if named := env.Getenv("MICA_QEMU"); named != "" {
		d.program = named
	}
	return d
}

var versionPattern = regexp.MustCompile(`version (\d+)\.(\d+)(\.\d+)?`)

// Probe implements machine.Driver.
func (d *Driver) Probe(ctx context.Context) (machine.Report, error) {
	r := machine.Report{Driver: Name, Program: d.program, Features: []machine.Feature{machine.VNC, machine.SharedFolders, machine.DiskImages}}
	out, err := d.run.Run(ctx, run.Command{Name: d.program, Args: []string{"--version"}, Timeout: 10 * time.Second})
	if err != nil {
		e := fail.New(fail.HostLacks, "QEMU cannot be run: %w", err)
		if fail.Is(err, fail.HostLacks) || errors.Is(err, fs.ErrNotExist) {
			e = e.Hint("install it: package qemu-system-x86 on Debian, Ubuntu and Fedora, qemu-kvm on RHEL, qemu elsewhere").
				Hint("or name the program in MICA_QEMU")
		}
		return r, e
	}
	found := versionPattern.FindSubmatch(out.Stdout)
	if found == nil {
		return r, fail.New(fail.HostLacks, "%s is not QEMU: it says %.80q", d.program, out.Stdout)
	}
	r.Version = strings.TrimPrefix(string(found[0]), "version ")
	if len(found[1]) == 1 && found[1][0] < '5' {
		return r, fail.New(fail.HostLacks, "QEMU %s is too old", r.Version).Hint("install version 5.0 or newer")
	}
	if err := d.kvmWorks(); err != nil {
		r.Warnings = append(r.Warnings, "machines run by emulation, several times slower: "+err.Error())
	} else {
		r.Accel = append(r.Accel, accelKVM)
	}
	r.Accel = append(r.Accel, accelTCG)
	return r, nil
}

// Create implements machine.Driver: the config drive and the disk, which is empty
// or a copy of the disk image.
func (d *Driver) Create(ctx context.Context, s machine.Spec) (machine.Instance, error) {
	if s.Image.Format == "" {
		return d.create(ctx, s, func(path string) error { return makeDisk(path, s.DiskMiB*mebi) })
	}
	size := s.DiskMiB
	i, err := d.create(ctx, s, func(path string) (err error) {
		size, err = d.copyImage(ctx, s, path)
		return err
	})
	if err == nil {
		i.Spec.DiskMiB = size
	}
	return i, err
}

// create makes a machine with the disk that disk makes.
func (d *Driver) create(ctx context.Context, s machine.Spec, disk func(path string) error) (machine.Instance, error) {
	if err := checkAccel(s.Accel); err != nil {
		return machine.Instance{}, err
	}
	if _, err := os.Stat(s.Path(diskFile)); err == nil {
		return machine.Instance{}, fail.New(fail.Conflict, "%s is there already", s.Path(diskFile))
	}
	u := undo.New(d.log)
	defer u.Run(ctx)
	remove := func(name string) func(context.Context) error {
		return func(context.Context) error { return removeFile(s.Path(name)) }
	}
	u.Add("config drive", remove(configFile))
	if err := writeConfigDrive(ctx, s); err != nil {
		return machine.Instance{}, err
	}
	u.Add("disk", remove(diskFile))
	if err := disk(s.Path(diskFile)); err != nil {
		return machine.Instance{}, err
	}
	if err := ctx.Err(); err != nil {
		return machine.Instance{}, fmt.Errorf("creating machine: %w", err)
	}
	u.Release()
	s.Context, s.PublicKeys = nil, nil
	return machine.Instance{Spec: s}, nil
}

func writeConfigDrive(ctx context.Context, s machine.Spec) error {
	f, err := atomicfile.Create(s.Path(configFile), 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // Commit reports
	if err := machine.WriteMedium(ctx, f, s, s.Shared("9p", maxTag)); err != nil {
		return err
	}
	return f.Commit()
}

// makeDisk makes an empty disk that takes no space until it is written to.
func makeDisk(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making disk: %w", err)
	}
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fail.New(fail.Failed, "making a disk of %d MiB: %w", size/mebi, err).
			Hint("the file system may limit the size of files; ask for less with --disk")
	}
	return nil
}

// Destroy implements machine.Driver.
func (d *Driver) Destroy(ctx context.Context, i machine.Instance) error {
	dir := i.Spec.Dir
	if dir == "" {
		return errors.New("a machine without a folder")
	}
	if err := end(ctx, dir); err != nil {
		return err
	}
	errs := []error{os.RemoveAll(filepath.Join(dir, snapshotsDir))}
	for _, name := range []string{
		revertFile, diskPart, savedPart, stateFile, statePart, stateLoaded, savedFile, launchFile, consoleLock, consoleFile, lastConsole,
		controlSocket, statusSocket, serialSocket, pidFile, configFile, diskFile,
	} {
		errs = append(errs, removeFile(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func exists(i machine.Instance, name string) bool {
	_, err := os.Stat(i.Spec.Path(name))
	return err == nil
}

// statusPatience bounds how long a question for the state may take.
const statusPatience = 3 * time.Second

// State implements machine.Driver.
func (d *Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	pid, err := holder(i.Spec.Dir)
	if err != nil {
		return "", err
	}
	if pid == 0 {
		return atRest(i), nil
	}
	within, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	for {
		status, err := d.ask(within, i, statusSocket)
		if err == nil {
			return stateOf(status, i), nil
		}
		if now, herr := holder(i.Spec.Dir); herr == nil && now == 0 {
			return atRest(i), nil // ended while it was asked
		}
		if within.Err() != nil {
			return "", fail.New(fail.Failed, "qemu (process %d) does not answer: %w", pid, err).
				Hint("'mica stop --power-off' or 'mica destroy --force' ends it")
		}
		time.Sleep(10 * time.Millisecond) // it is ending: the connection is gone, the lock not yet
	}
}

// ask opens a monitor for one question.
func (d *Driver) ask(ctx context.Context, i machine.Instance, socket string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	m, err := connect(ctx, i.Spec.Dir, socket)
	if err != nil {
		return "", err
	}
	defer m.close()
	return m.status(ctx)
}

// atRest is the state of a machine without a process.
func atRest(i machine.Instance) machine.State {
	var to snapshot
	reverted := readJSON(i.Spec.Path(revertFile), &to) == nil
	switch {
	case !exists(i, diskFile):
		return machine.Absent
	case reverted && to.Memory:
		return machine.Saved
	case reverted:
		return machine.Stopped
	case exists(i, stateFile):
		return machine.Saved
	}
	return machine.Stopped
}

// stateOf reads QEMU's run state ("RunState" in its qapi/run-state.json).
func stateOf(status string, i machine.Instance) machine.State {
	switch status {
	case "running":
		return machine.Running
	case "internal-error", "guest-panicked", "watchdog":
		return machine.Crashed
	case "inmigrate", "prelaunch": // a start that was cut short, or goes on just now
		return atRest(i)
	case "postmigrate":
		if exists(i, stateFile) { // saved, but whoever saved it was killed before the end
			return machine.Saved
		}
	case "shutdown":
		return machine.Stopped
	}
	return machine.Paused // paused, suspended, io-error, save-vm, finish-migrate, ...
}
