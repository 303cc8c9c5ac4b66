package machine

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/run"
)

// Driver makes and controls machines on one platform. Methods may be called
// concurrently for different machines, never for the same one, State excepted:
// that may be called at any time, also while another method runs.
//
// An Instance may come from a record whose Create was killed half way: then it
// holds the Spec only, and Destroy and State must cope.
//
// Every method ends soon after ctx is cancelled and then returns an error that
// wraps ctx's; Create and Start have by then taken back what they had begun.
type Driver interface {
	// Probe says whether the platform can be used here. It has no side effects
	// and takes less than two seconds. The error tells what is missing
	// (fail.HostLacks) and how to get it.
	Probe(ctx context.Context) (Report, error)

	// Create makes the machine, switched off, or nothing: after an error
	// nothing of it is left. It fails with fail.Conflict where a machine of
	// that ID exists.
	Create(ctx context.Context, s Spec) (Instance, error)

	// Start makes the machine run: from off, or from saved at the very point
	// where it was saved; one that runs already is left alone and nil
	// returned. After an error the machine is in the state it was in. A host
	// port that another program holds gives a *PortTaken.
	Start(ctx context.Context, i Instance) error

	// Stop ends the running machine, the way how says; nil if it does not run.
	// PowerOff of a saved machine drops the saved memory.
	Stop(ctx context.Context, i Instance, how StopMode) error

	// Destroy removes the machine and all that Create and Start made, running
	// or not; nil if it is gone already. It touches nothing else.
	Destroy(ctx context.Context, i Instance) error

	// State asks the platform. Absent means that it knows no such machine; an
	// error means that it could not be asked.
	State(ctx context.Context, i Instance) (State, error)
}

// StopMode says how a machine ends.
type StopMode int

// The ways to stop.
const (
	PowerOff StopMode = iota // like pulling the plug: at once
	Shutdown                 // the guest is asked, and waited for until ctx ends: then TimedOut, and it still runs
)

// The optional powers of a driver, found by assertion.
type (
	// Pauser freezes and thaws the guest's processors. Nil if it is so already.
	Pauser interface {
		SetPaused(ctx context.Context, i Instance, paused bool) error
	}
	// Saver writes the running or paused guest's memory to disk and ends it, so
	// that Start goes on from there. All or nothing: after an error the guest
	// runs, or is paused, as before.
	Saver interface {
		Save(ctx context.Context, i Instance) error
	}
	// Consoler opens the guest's serial console for reading and writing. One
	// client at a time: a second one gets fail.Conflict.
	Consoler interface {
		Console(ctx context.Context, i Instance) (io.ReadWriteCloser, error)
	}
	// Logger reads what the guest has written to its console since it was last
	// switched on, from a byte offset on, some megabyte at most a call. No data
	// and no error means nothing new; a log that does not exist yet is empty.
	Logger interface {
		Log(ctx context.Context, i Instance, offset int64) ([]byte, error)
	}
	// Describer tells more about an instance than its state does, for people.
	Describer interface {
		Describe(ctx context.Context, i Instance) (map[string]string, error)
	}
	// Snapshotter keeps named copies of the disks, and of the memory of a machine
	// that runs. A name that is there gives fail.Conflict, one that is not
	// fail.NotFound. Snapshot and Revert are not called for a machine with a disk
	// of the user's (Disk.Path), whose content they could neither keep nor put
	// back.
	Snapshotter interface {
		Snapshot(ctx context.Context, i Instance, name string) error
		Snapshots(ctx context.Context, i Instance) ([]Snapshot, error) // the oldest first
		// Revert takes a machine that is not live back; it is then off, or saved
		// where the snapshot has memory.
		Revert(ctx context.Context, i Instance, name string) error
		DropSnapshot(ctx context.Context, i Instance, name string) error
	}
	// Screener takes a picture of the guest's screen, in PNG.
	Screener interface {
		Screenshot(ctx context.Context, i Instance, w io.Writer) error
	}
	// Viewer says where the screen of a machine that runs can be watched, as a
	// URL: vnc://127.0.0.1:5901.
	Viewer interface {
		View(ctx context.Context, i Instance) (string, error)
	}
	// Reacher knows machines that forwarded ports of this computer do not lead
	// to.
	Reacher interface {
		// Addressed reports whether the guest has an address of its own, and no
		// forwarded ports.
		Addressed(i Instance) bool
		// Address is that address, empty while the guest has none.
		Address(ctx context.Context, i Instance) (string, error)
		// Host is the computer that the machine runs on, as ssh takes it
		// (USER@HOST:PORT), empty for this one. Ports and addresses are that
		// computer's.
		Host(i Instance) (string, error)
	}
	// Forwarder replaces the forwarded ports of a machine, live or not: all of
	// them or none. The record is the caller's.
	Forwarder interface {
		SetForwards(ctx context.Context, i Instance, forwards []Forward) error
	}
	// Prober is Probe of the platform that a Spec asks for by its options, where
	// that may be another than the one of machines that ask for none.
	Prober interface {
		ProbeFor(ctx context.Context, s Spec) (Report, error)
	}
	// Checker refuses a Spec that the platform cannot carry out, before anything
	// is made of it, where Report.Features and Report.Options do not say enough:
	// a network that is not there, a value an option does not take. It has no
	// side effects. The Spec has no Dir yet, and its automatic ports are 0.
	Checker interface {
		Check(ctx context.Context, s Spec) error
	}
	// Changer gives a machine that is off another Spec: of memory, processors,
	// a larger disk, Shares, and Name with Dir, whose files have been moved there
	// already. The Instance it returns takes the place of i. After an error the
	// machine is as it was; changing to what it is already is harmless, since a
	// killed command is made good by changing once more.
	//
	// Where to.Shares differ from i.Spec.Shares, to.Context and to.PublicKeys
	// are set as for Create, and the context's medium is written anew
	// (WriteMedium): it tells the guest of its shares. Else they are empty and
	// the medium stays. Firmware, Arch and Disks do not change. The machine is
	// never a saved one: its memory would have the old devices.
	Changer interface {
		Change(ctx context.Context, i Instance, to Spec) (Instance, error)
	}
	// Cloner is Create with the content of another machine's disks, which is off
	// and stays as it is. The Spec has an ID, a Dir, a Context and PublicKeys of
	// its own, and the same sizes. Its Disks are from's without those of the
	// user's (Disk.Path), in the same order.
	Cloner interface {
		Clone(ctx context.Context, from Instance, s Spec) (Instance, error)
	}
)

// Feature is something of a Spec that not every driver can do. A driver lists
// its own in Report.Features; a Spec that asks for another is refused before
// anything is made of it (Report.Supports), so that no driver drops a wish in
// silence.
type Feature string

// The features, by the field of Spec that asks for them.
const (
	Networks      Feature = "network"       // Network other than nat
	VNC           Feature = "vnc"           // Display vnc
	GUI           Feature = "gui"           // Display gui
	SharedFolders Feature = "shares"        // Shares
	ExecutionCaps Feature = "execution-cap" // ExecutionCap under 100
	Clipboards    Feature = "clipboard"     // Clipboard
	DiskImages    Feature = "disk-image"    // Image.Format other than ISO
	Firmwares     Feature = "firmware"      // Firmware uefi
	Architectures Feature = "arch"          // Arch other than x86_64
	MoreDisks     Feature = "disks"         // Disks
)

// Snapshot is a named state of a machine.
type Snapshot struct {
	Name   string    `json:"name"`
	Time   time.Time `json:"time"`
	Memory bool      `json:"memory"` // it has the memory of a running machine
}

// Report is what Probe found.
type Report struct {
	Driver   string   `json:"driver"`
	Version  string   `json:"version"`
	Program  string   `json:"program,omitempty"`
	Accel    []string `json:"accel,omitempty"`    // usable accelerations, the best first
	Warnings []string `json:"warnings,omitempty"` // usable, but

	Features []Feature         `json:"features,omitempty"` // what of a Spec it can do beyond the plain machine
	Options  map[string]string `json:"options,omitempty"`  // the Spec.Options it knows, each with what it does
}

// Instance is a machine as its driver knows it.
type Instance struct {
	Spec   Spec              `json:"spec"`
	Handle map[string]string `json:"handle,omitempty"` // the driver's own notes, from Create
}

// PortTaken says that a port of the host is held by another program.
type PortTaken struct {
	Port int // 0 where the platform did not say which
	Err  error
}

func (e *PortTaken) Error() string {
	if e.Port == 0 {
		return fmt.Sprintf("a forwarded port of this computer is taken: %v", e.Err)
	}
	return fmt.Sprintf("port %d of this computer is taken: %v", e.Port, e.Err)
}

// Unwrap returns the platform's own words.
func (e *PortTaken) Unwrap() error { return e.Err }

// Env is what every driver is made with.
type Env struct {
	Run    run.Runner               // nil runs programs on this computer
	Log    *slog.Logger             // nil discards
	Getenv func(name string) string // nil finds nothing set
}

// Defaults fills what is nil.
func (e Env) Defaults() Env {
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	if e.Run == nil {
		e.Run = run.Host{Log: e.Log}
	}
	if e.Getenv == nil {
		e.Getenv = func(string) string { return "" }
	}
	return e
}

// Factory names a driver and makes it.
type Factory struct {
	Name string
	New  func(Env) Driver
}

// Registry is the list of drivers; drivers/all has the real one.
type Registry struct {
	names   []string
	drivers map[string]Driver
}

// NewRegistry makes every driver. Two of one name are a mistake in the
// program, and it panics.
func NewRegistry(env Env, factories ...Factory) *Registry {
	env = env.Defaults()
	r := &Registry{drivers: map[string]Driver{}}
	for _, f := range factories {
		if _, twice := r.drivers[f.Name]; twice {
			panic("machine: two drivers named " + f.Name) //nolint:forbidigo // a mistake in the list of drivers
		}
		r.names = append(r.names, f.Name)
		r.drivers[f.Name] = f.New(env)
	}
	sort.Strings(r.names)
	return r
}

// Names returns the names of all drivers, sorted.
func (r *Registry) Names() []string { return slices.Clone(r.names) }

// Get returns the driver of that name.
func (r *Registry) Get(name string) (Driver, error) {
	if d, ok := r.drivers[name]; ok {
		return d, nil
	}
	return nil, fail.New(fail.Usage, "no driver named %q", name).Hint("the drivers are: %s", strings.Join(r.names, ", "))
}
