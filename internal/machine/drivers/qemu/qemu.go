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
	"runtime"
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
	getenv  func(string) string
	program string
	goarch  string // of this computer

	armProgram   string
	firmwareDirs []string

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

// New returns the driver. MICA_QEMU and MICA_QEMU_AARCH64 name other programs
// than qemu-system-x86_64 and qemu-system-aarch64 in PATH.
func New(env machine.Env) machine.Driver {
	env = env.Defaults()
	d := &Driver{
		run: env.Run, log: env.Log, getenv: env.Getenv, program: program, armProgram: armProgram,
		goarch: runtime.GOARCH, firmwareDirs: firmwareDirs(env.Getenv),
	}
	d.kvmOpens = func() error { return kvmOpens(kvmDevice) }
	d.kvmWorks = d.kvmOpens
	if d.goarch == "amd64" {
		d.kvmWorks = func() error { return kvmWorks(kvmDevice, "/proc/cpuinfo") }
	}
	if named := env.Getenv("MICA_QEMU"); named != "" {
		d.program = named
	}
	if named := env.Getenv("MICA_QEMU_AARCH64"); named != "" {
		d.armProgram = named
	}
	return d
}

var versionPattern = regexp.MustCompile(`version ((\d+)\.\d+(?:\.\d+)?)`)

// Probe implements machine.Driver. Whether machines of another architecture can
// be run is left to Check: few ask for one.
func (d *Driver) Probe(ctx context.Context) (machine.Report, error) {
	r := machine.Report{
		Driver: Name, Program: d.program,
		Features: []machine.Feature{
			machine.VNC, machine.SharedFolders, machine.DiskImages, machine.Firmwares, machine.Architectures, machine.MoreDisks,
		},
		Options: map[string]string{optionSecureBoot: "on: UEFI boots only what is signed with Microsoft's keys"},
	}
	var err error
	if r.Version, err = d.probe(ctx, d.hardware(machine.Spec{})); err != nil {
		return r, err
	}
	if err := d.kvmWorks(); err != nil {
		r.Warnings = append(r.Warnings, "machines run by emulation, several times slower: "+err.Error())
	} else {
		r.Accel = append(r.Accel, accelKVM)
		if !d.native(d.hardware(machine.Spec{})) {
			r.Warnings = append(r.Warnings, "machines of "+machine.X86_64+" run by emulation, several times slower: the computer is of another architecture")
		}
	}
	r.Accel = append(r.Accel, accelTCG)
	return r, nil
}

// content is what a new machine is filled with.
type content struct {
	disk     func(path string) error
	more     func() error // the disks beside the data disk
	firmware func() error
}

// Create implements machine.Driver: the config drive, the disk, which is empty
// or a copy of the disk image, and what else the machine is to have.
func (d *Driver) Create(ctx context.Context, s machine.Spec) (machine.Instance, error) {
	size := s.DiskMiB
	i, err := d.create(ctx, s, content{
		disk: func(path string) (err error) {
			if s.Image.Format == "" {
				return makeDisk(path, s.DiskMiB*mebi)
			}
			size, err = d.copyImage(ctx, s, path)
			return err
		},
		more: func() error {
			for n, disk := range s.Disks {
				if disk.Path != "" {
					continue
				}
				if err := d.makeMore(ctx, s.Path(moreFile(n+1)), disk.MiB); err != nil {
					return err
				}
			}
			return nil
		},
		firmware: func() error { return d.giveFirmware(ctx, s) },
	})
	if err == nil {
		i.Spec.DiskMiB = size
	}
	return i, err
}

// create makes a machine. The data disk comes last: it is what says that there
// is a machine.
func (d *Driver) create(ctx context.Context, s machine.Spec, c content) (machine.Instance, error) {
	if err := checkAccel(s.Accel); err != nil {
		return machine.Instance{}, err
	}
	if _, err := os.Stat(s.Path(diskFile)); err == nil {
		return machine.Instance{}, fail.New(fail.Conflict, "%s is there already", s.Path(diskFile))
	}
	if err := usable(s); err != nil {
		return machine.Instance{}, err
	}
	u := undo.New(d.log)
	defer u.Run(ctx)
	for _, file := range append(media(s), configFile, firmwareFile) {
		u.Add(file, func(context.Context) error { return removeFile(s.Path(file)) })
		if err := removeFile(s.Path(file)); err != nil { // of one that was killed
			return machine.Instance{}, err
		}
	}
	if err := writeConfigDrive(ctx, s); err != nil {
		return machine.Instance{}, err
	}
	if s.Firmware == machine.UEFI {
		if err := c.firmware(); err != nil {
			return machine.Instance{}, err
		}
	}
	if err := c.more(); err != nil {
		return machine.Instance{}, err
	}
	if err := c.disk(s.Path(diskFile)); err != nil {
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
	f, err := prepareConfigDrive(ctx, s)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // Commit reports
	return f.Commit()
}

// prepareConfigDrive writes it, to be put in its place by Commit.
func prepareConfigDrive(ctx context.Context, s machine.Spec) (*atomicfile.File, error) {
	f, err := atomicfile.Create(s.Path(configFile), 0o600)
	if err != nil {
		return nil, err
	}
	if err := machine.WriteMedium(ctx, f, s, s.Shared("9p", maxTag)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
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
	names := []string{
		revertFile, savedPart, stateFile, statePart, stateLoaded, savedFile, launchFile, consoleLock, consoleFile, lastConsole,
		controlSocket, statusSocket, serialSocket, pidFile, configFile, firmwareFile,
	}
	for _, file := range media(i.Spec) {
		names = append(names, part(file), file)
	}
	for _, name := range names {
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
