package virtualbox

import (
	"cmp"
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
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Start implements machine.Driver.
func (d *Driver) Start(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	if err := check(s); err != nil {
		return err
	}
	in, state, err := d.ready(ctx, s)
	if err != nil {
		return err
	}
	switch state {
	case machine.Running:
		return nil
	case machine.Paused:
		return d.SetPaused(ctx, i, false)
	case machine.Crashed:
		return fail.New(fail.Conflict, "the guest of %q has crashed", s.Name).Hint("power it off first")
	case machine.Absent:
		return fail.New(fail.NotFound, "VirtualBox does not know %q (%s)", s.Name, s.ID)
	}
	if err := haveDisks(s); err != nil {
		return err
	}
	for _, f := range s.Forwards {
		if err := free(ctx, f.Host); err != nil {
			return &machine.PortTaken{Port: f.Host, Err: err}
		}
	}
	if state == machine.Saved {
		return d.wake(ctx, i, in)
	}
	return d.boot(ctx, i, in)
}

// free tries to listen on a port of this computer. VirtualBox starts a machine
// all the same when it cannot, and only its log tells.
func free(ctx context.Context, port int) error {
	l, err := new(net.ListenConfig).Listen(context.WithoutCancel(ctx), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

// boot starts the machine from off. First it puts right what has changed since:
// the record's ports and sizes, discs that the guest has ejected, and what
// somebody edited in VirtualBox.
func (d *Driver) boot(ctx context.Context, i machine.Instance, in info) error {
	s := i.Spec
	if _, err := os.Stat(s.Path(diskFile)); err != nil {
		return fail.New(fail.NotFound, "the disk of %q is gone: %w", s.Name, err)
	}
	other := differing(settings(s), in)
	for _, o := range other {
		d.log.Info("setting a property back", "machine", s.Name, "property", o.key, "from", in[o.key], "to", o.want)
	}
	remove, add := exchange(in.rules(), rulesFor(s.Forwards))
	if err := d.modify(ctx, s.ID, other, ruleArgs(remove, add)...); err != nil {
		return err
	}
	if err := d.mendShares(ctx, s, in.shares()); err != nil {
		return err
	}
	for _, slot := range slots(s) {
		is := in[slot.key()]
		if slot.kind == "hdd" && is != "none" && is != "" || is == slot.path { // with snapshots it is another file
			continue
		}
		if err := d.attach(ctx, s.ID, slot); err != nil {
			return err
		}
	}
	if err := newLog(s); err != nil {
		return err
	}
	return d.launch(ctx, i, machine.Stopped)
}

// shares are the machine's shared folders, by name.
func (in info) shares() map[string]string {
	have := map[string]string{}
	for n := 1; ; n++ {
		name, ok := in[fmt.Sprintf("SharedFolderNameMachineMapping%d", n)]
		if !ok {
			return have
		}
		have[name] = in[fmt.Sprintf("SharedFolderPathMachineMapping%d", n)]
	}
}

// mendShares adds the shares that the machine lacks to those that it has.
func (d *Driver) mendShares(ctx context.Context, s machine.Spec, have map[string]string) error {
	for _, share := range s.Shares {
		path, there := have[share.Name]
		if there && path == share.Path {
			continue
		}
		if there {
			if err := d.removeShare(ctx, s.ID, share.Name); err != nil {
				return err
			}
		}
		if err := d.addShare(ctx, s.ID, share); err != nil {
			return err
		}
	}
	return nil
}

// wake starts the machine from saved.
func (d *Driver) wake(ctx context.Context, i machine.Instance, in info) error {
	s := i.Spec
	var later []machine.Forward
	if remove, add := exchange(in.rules(), rulesFor(s.Forwards)); len(remove)+len(add) > 0 {
		err := d.modify(ctx, s.ID, nil, ruleArgs(remove, add)...)
		if says(err, "VBOX_E_INVALID_VM_STATE", "not mutable") { // some releases refuse this to saved machines
			later, err = s.Forwards, nil
		}
		if err != nil {
			return err
		}
	}
	if err := continueLog(s); err != nil {
		return err
	}
	if err := d.launch(ctx, i, machine.Saved); err != nil || later == nil {
		return err
	}
	if err := d.SetForwards(ctx, i, later); err != nil {
		return errors.Join(err, d.takeBack(ctx, s, machine.Saved, nil))
	}
	return nil
}

// launch starts the machine, and believes its state only: startvm ends with
// code 0 without a machine, and with another one beside a machine that runs.
func (d *Driver) launch(ctx context.Context, i machine.Instance, before machine.State) error {
	s := i.Spec
	kind := "headless"
	if s.Display == machine.DisplayGUI {
		kind = "gui"
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("starting %q: %w", s.Name, err)
	}
	_, said := d.vbox(ctx, d.start, "startvm", s.ID, "--type", kind)
	in, err := d.launched(ctx, s, said)
	if err == nil {
		if said != nil {
			d.log.Warn("the machine runs, though VBoxManage says it does not", "machine", s.Name, "error", said)
		}
		if err = d.listens(ctx, s, in); err == nil {
			return nil
		}
	}
	return errors.Join(err, d.takeBack(ctx, s, before, said))
}

// launched waits for the machine to run.
func (d *Driver) launched(ctx context.Context, s machine.Spec, said error) (info, error) {
	if ctx.Err() != nil || errors.Is(said, context.DeadlineExceeded) {
		return nil, fmt.Errorf("starting %q: %w", s.Name, cmp.Or(said, ctx.Err()))
	}
	in, state, err := d.settle(ctx, s.ID)
	switch {
	case err != nil:
		return in, fmt.Errorf("starting %q: %w", s.Name, errors.Join(err, said))
	case state == machine.Running:
		return in, nil
	case said == nil:
		said = fmt.Errorf("VBoxManage says that it has started, but VirtualBox that it is %s", state)
	}
	return in, because(fmt.Errorf("starting %q: %w", s.Name, said), tail(in, logTail))
}

// aftermath is how long a machine may still begin to start when the VBoxManage
// that asked for it was ended.
const aftermath = 3 * time.Second

// takeBack brings a machine that was not to start back to where it was; said is
// why startvm ended. It works on a cancelled ctx too.
func (d *Driver) takeBack(ctx context.Context, s machine.Spec, before machine.State, said error) error {
	quiet := time.Now()
	if ctx.Err() != nil || errors.Is(said, context.DeadlineExceeded) {
		quiet = quiet.Add(aftermath)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*d.settled)
	defer cancel()
	for {
		in, state, err := d.settle(ctx, s.ID)
		switch {
		case fail.Is(err, fail.TimedOut):
			err = d.emergency(ctx, s.ID)
		case err != nil:
		case !state.Live():
			if in == nil || time.Now().After(quiet) {
				return nil
			}
			err = sleep(ctx, settlePoll)
		case before == machine.Saved && state != machine.Crashed:
			_, err = d.vbox(ctx, longPatience, "controlvm", s.ID, "savestate")
		default:
			err = d.powerOff(ctx, s.ID)
		}
		if err != nil {
			return fmt.Errorf("taking the start of %q back: %w", s.Name, err)
		}
	}
}

var redirectFailed = regexp.MustCompile(`failed to set up redirection of (\d+) to`)

// listens sees that VirtualBox holds the forwarded ports.
func (d *Driver) listens(ctx context.Context, s machine.Spec, in info) error {
	const patience, poll = 3 * time.Second, 50 * time.Millisecond
	deadline := time.Now().Add(patience)
	for _, f := range s.Forwards {
		for free(ctx, f.Host) == nil && time.Now().Before(deadline) {
			if err := sleep(ctx, poll); err != nil {
				return fmt.Errorf("starting %q: %w", s.Name, err)
			}
		}
	}
	for _, m := range redirectFailed.FindAllStringSubmatch(tail(in, wholeLog), -1) {
		port, _ := strconv.Atoi(m[1]) // digits
		for _, f := range s.Forwards {
			if f.Host == port {
				return &machine.PortTaken{Port: port, Err: errors.New(m[0])}
			}
		}
	}
	return nil
}

// How much of VBox.log is looked at: a start writes some hundred kilobytes.
const (
	logTail  = 80 << 10
	wholeLog = 1 << 20
)

// tail returns the end of the machine's VBox.log.
func tail(in info, size int64) string {
	if in["LogFldr"] == "" {
		return ""
	}
	f, err := os.Open(filepath.Join(in["LogFldr"], "VBox.log"))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > size {
		_, _ = f.Seek(-size, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, size))
	return string(data)
}

// causes are the failures of a start that their users can mend.
var causes = []struct {
	words []string
	make  func(error) error
}{
	{[]string{"suplibOsInit", "Kernel driver not installed", "VERR_VM_DRIVER_NOT_INSTALLED", "VERR_SUPDRV_", "(rc=-1908)"}, noModule},
	{[]string{"VERR_VMX_IN_VMX_ROOT_MODE", "VERR_SVM_IN_USE"}, func(err error) error {
		return fail.New(fail.HostLacks, "another hypervisor uses the processor: %w", err).
			Hint("end its machines, or unload it: 'sudo modprobe -r kvm_intel kvm_amd'")
	}},
	{[]string{"VERR_VMX_NO_VMX", "VERR_VMX_MSR_", "VERR_SVM_NO_SVM", "VERR_SVM_DISABLED", "VERR_NEM_NOT_AVAILABLE", "VERR_NEM_VM_CREATE_FAILED"}, func(err error) error {
		return fail.New(fail.HostLacks, "the processor's virtualization cannot be used: %w", err).
			Hint("switch VT-x or AMD-V on in the firmware's setup").
			Hint("on Windows, Hyper-V and WSL 2 may hold it: 'bcdedit /set hypervisorlaunchtype off' and a restart free it")
	}},
	{[]string{"VERR_NO_MEMORY", "VERR_OUT_OF_RESOURCES", "VERR_NO_LOW_MEMORY"}, func(err error) error {
		return fail.New(fail.HostLacks, "this computer has too little free memory: %w", err).Hint("give the machine less with --memory")
	}},
}

// because gives a failed start its class and its hints.
func because(err error, log string) error {
	for _, c := range causes {
		for _, word := range c.words {
			if strings.Contains(err.Error(), word) || strings.Contains(log, word) {
				return c.make(err)
			}
		}
	}
	return err
}
