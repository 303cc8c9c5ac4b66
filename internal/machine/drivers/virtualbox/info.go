package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// info is what 'showvminfo --machinereadable' says of a machine; nil where
// VirtualBox knows no such machine.
type info map[string]string

// parse reads the output of --machinereadable. It is not quite regular: keys
// and values may be quoted, newer releases escape quotes and backslashes in
// values and older ones do not, values may be followed by more words, a
// description may have many lines, and lines of other kinds stand in between.
// Of two lines with one key the first counts: what a description says comes
// later.
func parse(text string) info {
	in := info{}
	lines := strings.Split(strings.ReplaceAll(text, "\r", ""), "\n")
	for n := 0; n < len(lines); n++ {
		key, value, ok := splitLine(lines[n])
		if !ok {
			continue
		}
		if strings.HasPrefix(value, `"`) {
			if multiline(key) && !closed(value) {
				for n+1 < len(lines) {
					n++
					value += "\n" + lines[n]
					if strings.HasSuffix(lines[n], `"`) && !strings.HasSuffix(lines[n], `\"`) {
						break
					}
				}
			}
			if end := strings.LastIndexByte(value, '"'); end > 0 {
				value = value[1:end]
			} else {
				value = value[1:]
			}
			value = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(value)
		}
		if _, twice := in[key]; !twice {
			in[key] = value
		}
	}
	return in
}

func multiline(key string) bool {
	return key == "description" || strings.HasPrefix(key, "SnapshotDescription")
}

func closed(value string) bool { return len(value) > 1 && strings.HasSuffix(value, `"`) }

func splitLine(line string) (key, value string, ok bool) {
	if rest, quoted := strings.CutPrefix(line, `"`); quoted {
		key, value, ok = strings.Cut(rest, `"=`)
	} else {
		key, value, ok = strings.Cut(line, "=")
	}
	return key, value, ok && key != "" && !strings.HasPrefix(key, " ")
}

// show asks for a machine; nil and no error where there is none.
func (d *Driver) show(ctx context.Context, id string) (info, error) {
	out, err := d.once(ctx, queryPatience, "showvminfo", id, "--machinereadable")
	if says(err, limited) {
		if listed, lerr := d.vbox(ctx, queryPatience, "list", "vms"); lerr == nil && inaccessibleIn(listed, id) {
			return info{"name": inaccessible}, nil
		}
	}
	if passing(err) {
		out, err = d.vbox(ctx, queryPatience, "showvminfo", id, "--machinereadable")
	}
	if unregistered(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	in := parse(out)
	if in["name"] == "" && in["VMState"] == "" {
		return nil, fmt.Errorf("VBoxManage showvminfo %s says nothing of a machine: %.200q", id, out)
	}
	return in, nil
}

// inaccessible is the name that VirtualBox gives a machine whose settings it
// cannot read.
const inaccessible = "<inaccessible>"

func (in info) inaccessible() bool {
	return in["name"] == inaccessible || in["name"] == "<inaccessible!>"
}

// inaccessibleIn looks for a machine in the output of 'list vms', whose lines
// are "NAME" {UUID}.
func inaccessibleIn(listed, id string) bool {
	for line := range strings.Lines(listed) {
		if strings.HasPrefix(line, `"`+inaccessible+`"`) && strings.Contains(line, id) {
			return true
		}
	}
	return false
}

// holder is who has the machine open; empty where nobody has.
func (in info) holder() string {
	if name := in["SessionName"]; name != "" {
		return name
	}
	return in["SessionType"] // of old releases
}

// mode is what a VMState means.
type mode struct {
	state   machine.State
	passing bool // it will be another one by itself
}

// modes are the names of MachineState in VirtualBox's API, of versions 5.2 to
// 7.2, as showvminfo writes them. A passing one counts as the state it comes
// from, if breaking off would lead back there.
var modes = map[string]mode{
	"poweroff":                   {machine.Stopped, false},
	"aborted":                    {machine.Stopped, false}, // its process died: off, and can be started
	"saved":                      {machine.Saved, false},
	"aborted-saved":              {machine.Saved, false}, // its process died before it had loaded the memory
	"running":                    {machine.Running, false},
	"paused":                     {machine.Paused, false},
	"gurumeditation":             {machine.Crashed, false},
	"stuck":                      {machine.Crashed, false},
	"starting":                   {machine.Stopped, true},
	"settingup":                  {machine.Stopped, true},
	"restoring":                  {machine.Saved, true},
	"stopping":                   {machine.Running, true},
	"saving":                     {machine.Running, true},
	"teleporting":                {machine.Running, true},
	"livesnapshotting":           {machine.Running, true},
	"onlinesnapshotting":         {machine.Running, true},
	"teleportingpausedvm":        {machine.Paused, true},
	"teleportingin":              {machine.Stopped, true},
	"teleported":                 {machine.Stopped, false},
	"faulttolerantsync":          {machine.Running, true},
	"deletingsnapshotlive":       {machine.Running, true},
	"deletingsnapshotonline":     {machine.Running, true},
	"deletingsnapshotpaused":     {machine.Paused, true},
	"deletingsnapshotlivepaused": {machine.Paused, true},
	"restoringsnapshot":          {machine.Stopped, true},
	"deletingsnapshot":           {machine.Stopped, true},
	"snapshotting":               {machine.Stopped, true},
	"offlinesnapshotting":        {machine.Stopped, true},
}

// mode reads the machine's state.
func (in info) mode() (mode, error) {
	if in == nil {
		return mode{state: machine.Absent}, nil
	}
	if in.inaccessible() {
		return mode{}, fail.New(fail.Failed, "VirtualBox cannot read the machine's settings, and calls it inaccessible").
			Hint("see that the disk it is on is mounted, then try again").
			Hint("'mica destroy --force' takes it out of VirtualBox")
	}
	m, ok := modes[strings.ReplaceAll(strings.ToLower(in["VMState"]), " ", "")]
	if !ok {
		return m, fmt.Errorf("VirtualBox says the machine is %q, which mica does not know", in["VMState"])
	}
	return m, nil
}

// State implements machine.Driver.
func (d *Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	in, err := d.show(ctx, i.Spec.ID)
	if err != nil {
		return "", err
	}
	m, err := in.mode()
	if in == nil || in.inaccessible() {
		if path, data := settingsFile(i.Spec); path != "" {
			return offState(data), nil
		}
	}
	return m.state, err
}

const settlePoll = 100 * time.Millisecond

// settle waits until the machine is in a state that lasts and, where it is
// off, nobody has it open any more: until then VirtualBox refuses changes.
func (d *Driver) settle(ctx context.Context, id string) (info, machine.State, error) {
	within, cancel := context.WithTimeout(ctx, d.settled)
	defer cancel()
	for {
		in, err := d.show(within, id)
		if err != nil {
			return nil, "", unlessOver(ctx, err)
		}
		m, err := in.mode()
		if err != nil {
			return in, "", err
		}
		if !m.passing && (m.state.Live() || in.holder() == "") {
			return in, m.state, nil
		}
		if sleep(within, settlePoll) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return in, m.state, fmt.Errorf("waiting for VirtualBox: %w", err)
		}
		if m.passing {
			return in, m.state, fail.New(fail.TimedOut, "the machine has been %s for %s", in["VMState"], d.settled).
				Hint("VirtualBox may wait for an answer in a window; 'mica destroy --force' ends it")
		}
		return in, m.state, fail.New(fail.Conflict, "the machine is off, but open in %q", in.holder()).
			Hint("close its settings in VirtualBox")
	}
}

// unlessOver keeps a bound of our own from looking like the caller's.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return fail.New(fail.TimedOut, "%w", err)
	}
	return err
}

// rule is a forwarded port as VirtualBox knows it.
type rule struct {
	name, text string
	host       int
}

// rules are the forwarded ports of the first network card.
func (in info) rules() []rule {
	var all []rule
	for n := 0; ; n++ {
		text, ok := in[fmt.Sprintf("Forwarding(%d)", n)]
		if !ok {
			return all
		}
		parts := strings.Split(text, ",")
		r := rule{name: parts[0], text: text}
		if len(parts) == 6 {
			r.host, _ = strconv.Atoi(parts[3]) // VirtualBox wrote it
		}
		all = append(all, r)
	}
}
