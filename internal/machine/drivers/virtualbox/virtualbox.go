package virtualbox

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/run"
)

// Name is the driver's name.
const Name = "virtualbox"

const program = "VBoxManage"

// What is in a machine's folder besides VirtualBox's own files.
const (
	diskFile   = "disk.vdi"   // the data disk, or the machine's copy of a disk image
	configFile = "config.iso" // the config drive
	logFile    = "serial.log" // what the guest writes; see log.go
	ownFolder  = "vbox"       // VirtualBox's: NAME/NAME.vbox, snapshots, its logs
)

// Driver runs machines with VirtualBox. It keeps nothing in memory.
type Driver struct {
	run     run.Runner
	log     *slog.Logger
	program string

	// How long things may take, and how long to wait before each new try;
	// tests shorten them.
	start, settled time.Duration
	limit          time.Duration // of every command; zero is none
	backoff        []time.Duration
}

var (
	_ machine.Driver      = (*Driver)(nil)
	_ machine.Pauser      = (*Driver)(nil)
	_ machine.Saver       = (*Driver)(nil)
	_ machine.Logger      = (*Driver)(nil)
	_ machine.Describer   = (*Driver)(nil)
	_ machine.Snapshotter = (*Driver)(nil)
	_ machine.Screener    = (*Driver)(nil)
	_ machine.Viewer      = (*Driver)(nil)
	_ machine.Forwarder   = (*Driver)(nil)
	_ machine.Checker     = (*Driver)(nil)
	_ machine.Changer     = (*Driver)(nil)
	_ machine.Cloner      = (*Driver)(nil)
)

// New returns the driver. MICA_VBOXMANAGE names another program than the
// VBoxManage that is found.
func New(env machine.Env) machine.Driver {
	env = env.Defaults()
	return &Driver{
		run: env.Run, log: env.Log, program: locate(env.Getenv, runtime.GOOS),
		start: startPatience, settled: settlePatience,
		backoff: []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second},
	}
}

// locate finds VBoxManage: the one that is named, in PATH, where VirtualBox's
// installer says it is, and where it puts it by default.
//
// Compat: libcernvm src/Hypervisor/Virtualbox/VBoxProbes.cpp searches the same
// folders. Differs: it takes any readable file; this wants a program.
func locate(getenv func(string) string, system string) string {
	if named := getenv("MICA_VBOXMANAGE"); named != "" {
		return named
	}
	name := program
	var defaults []string
	switch system {
	case "windows":
		name += ".exe"
		defaults = []string{`C:\Program Files\Oracle\VirtualBox`, `C:\Program Files (x86)\Oracle\VirtualBox`}
	case "darwin":
		defaults = []string{"/Applications/VirtualBox.app/Contents/MacOS", "/Applications/Utilities/VirtualBox.app/Contents/MacOS"}
	default:
		defaults = []string{"/usr/bin", "/usr/local/bin", "/opt/VirtualBox", "/opt/VirtualBox/bin", "/usr/lib/virtualbox"}
	}
	dirs := filepath.SplitList(getenv("PATH"))
	dirs = append(dirs, getenv("VBOX_INSTALL_PATH"), getenv("VBOX_MSI_INSTALL_PATH"))
	for _, dir := range append(dirs, defaults...) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if dir != "" && err == nil && info.Mode().IsRegular() && (system == "windows" || info.Mode().Perm()&0o111 != 0) {
			return path
		}
	}
	return name
}

// The oldest VirtualBox whose command line and output are understood.
const oldestMajor, oldestMinor = 5, 2

var versionPattern = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.\d+)?\S*$`)

// Probe implements machine.Driver.
func (d *Driver) Probe(ctx context.Context) (machine.Report, error) {
	r := machine.Report{
		Driver: Name, Program: d.program, Options: optionHelp(),
		Features: []machine.Feature{
			machine.Networks, machine.VNC, machine.GUI, machine.SharedFolders, machine.ExecutionCaps, machine.Clipboards, machine.DiskImages,
			machine.Firmwares, machine.MoreDisks,
		},
	}
	out, err := d.run.Run(ctx, run.Command{Name: d.program, Args: []string{"--version"}, Timeout: queryPatience})
	if err != nil {
		return r, unusable(ctx, err)
	}
	// The version is the last line: warnings come before it, and with exit code 0.
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(out.Stdout), "\r", "")), "\n")
	found := versionPattern.FindStringSubmatch(lines[len(lines)-1])
	if found == nil {
		return r, fail.New(fail.HostLacks, "%s is not VirtualBox: it says %.80q", d.program, out.Stdout)
	}
	r.Version = found[0]
	major, _ := strconv.Atoi(found[1]) // digits
	minor, _ := strconv.Atoi(found[2])
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return r, fail.New(fail.HostLacks, "VirtualBox %s is too old", r.Version).
			Hint("install version %d.%d or newer", oldestMajor, oldestMinor)
	}
	warning := strings.Join(strings.Fields(strings.Join(lines[:len(lines)-1], " ")), " ")
	if strings.Contains(warning, "vboxdrv") {
		return r, noModule(fmt.Errorf("it says: %.300s", warning))
	}
	if warning != "" {
		r.Warnings = append(r.Warnings, "VBoxManage says: "+warning)
	}
	return r, nil
}

// unusable explains why VBoxManage could not be run.
func unusable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	e := fail.New(fail.HostLacks, "VirtualBox cannot be run: %w", err)
	if notFound(err) {
		e = e.Hint("install it: package virtualbox, or the installer of virtualbox.org").
			Hint("or name VBoxManage in MICA_VBOXMANAGE")
	}
	return e
}

func noModule(err error) error {
	return fail.New(fail.HostLacks, "VirtualBox's kernel module is not loaded: %w", err).
		Hint("build and load it: 'sudo /sbin/vboxconfig', or install package virtualbox-dkms and the headers of the running kernel").
		Hint("where Secure Boot is on, the module must be signed with a key that the firmware knows: 'mokutil --sb-state' tells")
}
