package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/run"
)

// Name is the driver's name.
const Name = "libvirt"

// Driver runs machines through libvirt.
type Driver struct {
	run    run.Runner
	log    *slog.Logger
	getenv func(string) string
	uri    string // of machines that name none
	conns  connections
	logs   logs

	cpuinfo string            // where this computer's processor is described
	reached func(step string) // tests kill the process there
}

var (
	_ machine.Driver      = (*Driver)(nil)
	_ machine.Pauser      = (*Driver)(nil)
	_ machine.Saver       = (*Driver)(nil)
	_ machine.Consoler    = (*Driver)(nil)
	_ machine.Logger      = (*Driver)(nil)
	_ machine.Describer   = (*Driver)(nil)
	_ machine.Snapshotter = (*Driver)(nil)
	_ machine.Screener    = (*Driver)(nil)
	_ machine.Viewer      = (*Driver)(nil)
	_ machine.Forwarder   = (*Driver)(nil)
	_ machine.Checker     = (*Driver)(nil)
	_ machine.Prober      = (*Driver)(nil)
	_ machine.Changer     = (*Driver)(nil)
	_ machine.Cloner      = (*Driver)(nil)
	_ machine.Reacher     = (*Driver)(nil)
)

// New returns the driver. MICA_LIBVIRT_URI, else LIBVIRT_DEFAULT_URI, names the
// daemon.
func New(env machine.Env) machine.Driver {
	env = env.Defaults()
	d := &Driver{run: env.Run, log: env.Log, getenv: env.Getenv, cpuinfo: "/proc/cpuinfo"}
	d.conns.open = map[string]*conn{}
	d.uri = sessionURI
	if os.Geteuid() == 0 {
		d.uri = systemURI
	}
	for _, name := range []string{"LIBVIRT_DEFAULT_URI", "MICA_LIBVIRT_URI"} {
		if uri := env.Getenv(name); uri != "" {
			d.uri = uri
		}
	}
	return d
}

func (d *Driver) at(step string) {
	if d.reached != nil {
		d.reached(step)
	}
}

var versionPattern = regexp.MustCompile(`\d+\.\d+\.\d+`)

// oldest is the first libvirt that has what domainXML asks for: 7.1, for the
// processor mode maximum.
const oldest = 7_001_000

// Probe implements machine.Driver. It starts no session daemon: where none
// runs, the program is asked for its version.
func (d *Driver) Probe(ctx context.Context) (machine.Report, error) { return d.probe(ctx, d.uri) }

// ProbeFor implements machine.Prober: the daemon that a machine names may be
// another than that of machines that name none.
func (d *Driver) ProbeFor(ctx context.Context, s machine.Spec) (machine.Report, error) {
	o, err := d.options(s)
	if err != nil {
		return machine.Report{Driver: Name}, err
	}
	return d.probe(ctx, o.uri)
}

func (d *Driver) probe(ctx context.Context, uri string) (machine.Report, error) {
	r := machine.Report{Driver: Name, Program: uri, Options: optionHelp()}
	e, err := parseURI(uri, os.Geteuid())
	if err != nil {
		return r, err
	}
	r.Features = []machine.Feature{
		machine.VNC, machine.Clipboards, machine.DiskImages, machine.SharedFolders, machine.MoreDisks, machine.Firmwares,
	}
	if !e.session {
		r.Features = append(r.Features, machine.Networks, machine.ExecutionCaps)
	}
	if e.session && !e.remote() {
		c, err := d.dialLocal(ctx, e)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return d.probeProgram(ctx, r)
		}
		if err == nil {
			_ = c.Close()
		}
	}
	c, err := d.connect(ctx, uri)
	if err != nil {
		return r, err
	}
	defer c.close()
	version, caps, err := d.look(ctx, c)
	if err != nil {
		return r, err
	}
	r.Version = dotted(version)
	if version < oldest {
		return r, fail.New(fail.HostLacks, "libvirt %s is too old", r.Version).Hint("install version %s or newer", dotted(oldest))
	}
	if err := caps.has(machine.X86_64, uri); err != nil {
		return r, err
	}
	if caps.virt[machine.ARM64].emulated {
		r.Features = append(r.Features, machine.Architectures)
	}
	d.accels(&r, d.kvmWorks(e, caps, machine.X86_64))
	return r, nil
}

// probeProgram is Probe where no session daemon runs.
func (d *Driver) probeProgram(ctx context.Context, r machine.Report) (machine.Report, error) {
	program, err := d.daemonProgram()
	if err != nil {
		return r, err
	}
	out, err := d.run.Run(ctx, run.Command{Name: program, Args: []string{"--version"}, Timeout: 10 * time.Second})
	if err != nil {
		return r, fail.New(fail.HostLacks, "libvirt cannot be run: %w", err)
	}
	if r.Version = versionPattern.FindString(string(out.Stdout)); r.Version == "" {
		return r, fail.New(fail.HostLacks, "%s is not libvirt: it says %.80q", program, out.Stdout)
	}
	if d.inPath("qemu-system-aarch64") != "" {
		r.Features = append(r.Features, machine.Architectures)
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
		err = d.virtualizes()
	}
	d.accels(&r, err)
	return r, nil
}

func (d *Driver) accels(r *machine.Report, kvm error) {
	if kvm != nil {
		r.Warnings = append(r.Warnings, "machines run by emulation, several times slower: "+kvm.Error())
	} else {
		r.Accel = append(r.Accel, accelKVM)
	}
	r.Accel = append(r.Accel, accelTCG)
}

func dotted(version uint64) string {
	return fmt.Sprintf("%d.%d.%d", version/1_000_000, version/1000%1000, version%1000)
}
