package machine

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/stage"
)

// Verdict says in one word what became of a machine's boot.
type Verdict string

// The verdicts.
const (
	Healthy  Verdict = "healthy"  // the context was applied
	Booting  Verdict = "booting"  // it goes on
	Slow     Verdict = "slow"     // it goes on, but for longer than it should
	Broken   Verdict = "broken"   // it cannot go on by itself
	Inactive Verdict = "inactive" // it does not run
)

// Diagnosis is why a machine is as it is.
type Diagnosis struct {
	Name    string   `json:"name"`
	State   State    `json:"state"`
	Verdict Verdict  `json:"verdict"`
	Stage   string   `json:"stage,omitempty"` // of the boot, where it stands or fell
	Cause   string   `json:"cause"`
	Remedy  []string `json:"remedy,omitempty"`
	Last    []string `json:"last,omitempty"` // the last lines on the console, unless all is well
}

// Why finds out what became of the machine's boot: from its state, the events
// of its stages and what else is on its console.
func (f *Fleet) Why(ctx context.Context, name string) (Diagnosis, error) {
	m, err := f.Get(ctx, name)
	if err != nil {
		return Diagnosis{}, err
	}
	d := Diagnosis{Name: name, State: m.State}
	if f.unusable(m, &d) {
		return d, nil
	}
	var log []byte
	if err := f.readLog(ctx, m, 0, maxDiagnosed, func(data []byte) { log = append(log, data...) }); err != nil && !fail.Is(err, fail.Usage) {
		return d, err
	}
	diagnose(m, log, f.now(), &d)
	if problem := m.Problem(); problem != "" {
		d.Remedy = append(d.Remedy, problem)
	}
	if d.Verdict != Healthy {
		d.Last = lastLines(log, 8)
	}
	return d, nil
}

// maxDiagnosed bounds how much of a console is read: a boot says less.
const maxDiagnosed = 8 << 20

// unusable explains machines that have no boot to look at.
func (f *Fleet) unusable(m Machine, d *Diagnosis) bool {
	d.Verdict = Broken
	switch m.State {
	case Damaged, Unknown:
		d.Cause, d.Remedy = m.Err.Error(), fail.Hints(m.Err)
		if m.State == Damaged {
			d.Remedy = append(d.Remedy, fmt.Sprintf("'mica destroy --force %s' removes it", m.Name))
		}
	case Incomplete:
		d.Cause = "a command was killed while it made or removed the machine"
		d.Remedy = []string{"'mica gc' clears what is left"}
	case Creating:
		d.Verdict, d.Cause = Booting, "another command is making it just now"
	case Absent:
		d.Cause = "its platform does not know it any more"
		d.Remedy = []string{fmt.Sprintf("'mica destroy %s' clears what is left", m.Name)}
	default:
		return false
	}
	return true
}

// sign is something on a console that names a cause.
type sign struct {
	pattern *regexp.Regexp
	stage   string
	cause   string // with the matched line after it
	remedy  string
}

// signs are looked for in this order; the first that is there counts.
func signs() []sign {
	s := func(pattern, stage, cause, remedy string) sign {
		return sign{regexp.MustCompile(pattern), stage, cause, remedy}
	}
	return []sign{
		s(`Kernel panic - not syncing: VFS: Unable to mount root fs.*`, "kernel", "the kernel found nothing to boot into: the boot image is damaged",
			"fetch or build the image again, and make the machine anew"),
		s(`Initramfs unpacking failed.*`, "kernel", "the boot image is damaged", "fetch or build the image again, and make the machine anew"),
		s(`Kernel panic - not syncing: (System is deadlocked on memory|Out of memory).*`, "kernel", "the machine has too little memory",
			"stop it, and give it more: 'mica resize NAME --memory 2G'"),
		s(`Kernel panic - not syncing: Attempted to kill init.*`, "boot", "the boot program ended, which it must not",
			"'mica logs --raw NAME' shows its last words; 'mica report NAME' packs what its makers need"),
		s(`Kernel panic - not syncing.*`, "kernel", "the kernel gave up",
			"'mica restart --power-off NAME' tries again; 'mica report NAME' packs what the image's makers need"),
		s(`Out of memory: Killed process .*`, "system", "the machine has too little memory", "stop it, and give it more: 'mica resize NAME --memory 2G'"),
		s(`(I/O error|Buffer I/O error).* dev (vd|sd)[a-z].*`, "disk", "the disk cannot be written or read: this computer's may be full",
			"'mica doctor' looks at the free space"),
		s(`(No bootable device|Boot failed: not a bootable disk|Could not read from CDROM).*`, "firmware", "the machine's firmware found nothing to boot",
			"the image may not be for this kind of machine: fetch or build it again"),
		s(`You are in emergency mode.*`, "system", "the operating system gave up in the middle of its start",
			"'mica console NAME' reaches its emergency shell"),
	}
}

// patience a boot has before it counts as slow: under emulation stages take long.
const (
	silentFor = 2 * time.Minute
	slowAfter = 10 * time.Minute
)

func diagnose(m Machine, log []byte, now time.Time, d *Diagnosis) {
	var all []stage.Event
	var parse events
	parse.feed(append(bytes.Clone(log), '\n'), func(e stage.Event) { all = append(all, e) })
	fatal, open, applied, handed := walk(all)
	d.Stage = open
	switch {
	case fatal != nil:
		d.Verdict, d.Stage, d.Cause = Broken, fatal.Stage, fatal.Detail
		if d.Cause == "" {
			d.Cause = "it failed, and gave no reason"
		}
		if fatal.Remedy != "" {
			d.Remedy = []string{fatal.Remedy}
		}
		d.Remedy = append(d.Remedy, fmt.Sprintf("'mica logs --raw %s' shows all of its console", m.Name))
		return
	case fromSigns(log, m.Name, d):
		return
	case m.State == Crashed:
		d.Verdict, d.Cause = Broken, "its virtual processor stopped: the acceleration cannot run it"
		d.Remedy = []string{"where KVM is to blame, make it with --accel tcg"}
		return
	case applied:
		d.Verdict, d.Stage, d.Cause = Healthy, stage.Apply, "the context was applied"
		d.Remedy = warnings(all)
		if m.State.Live() {
			return
		}
	}
	if !m.State.Live() {
		rest(m, applied, open, d)
		return
	}
	goingOn(m, log, now, handed, d)
}

// walk follows the events: the failure that ended the boot, the stage that has
// begun and not ended, and how far it came.
func walk(all []stage.Event) (fatal *stage.Event, open string, applied, handed bool) {
	for i, e := range all {
		switch {
		case e.Stage == stage.Plugin:
		case e.State == stage.Started:
			open = e.Stage
		case e.State == stage.Failed:
			fatal = &all[i]
		default:
			if open == e.Stage {
				open = ""
			}
			applied = applied || e.Stage == stage.Apply
			handed = handed || e.Stage == stage.HandOver
		}
	}
	return fatal, open, applied, handed
}

func fromSigns(log []byte, name string, d *Diagnosis) bool {
	for _, s := range signs() {
		line := s.pattern.Find(log)
		if line == nil {
			continue
		}
		d.Verdict, d.Stage = Broken, s.stage
		d.Cause = s.cause + ": " + strings.TrimSpace(string(line))
		d.Remedy = []string{strings.ReplaceAll(s.remedy, "NAME", name)}
		return true
	}
	return false
}

// warnings are what went wrong without ending the boot.
func warnings(all []stage.Event) []string {
	var said []string
	for _, e := range all {
		if e.State != stage.Warned && (e.State != stage.Failed || e.Stage != stage.Plugin) {
			continue
		}
		name := e.Stage
		if plugin := e.Facts["plugin"]; e.Stage == stage.Plugin && plugin != "" {
			name = "plugin " + plugin
		}
		text := name + ": " + e.Detail
		if e.Remedy != "" {
			text += " (" + e.Remedy + ")"
		}
		said = append(said, text)
	}
	return said
}

// rest explains a machine that does not run.
func rest(m Machine, applied bool, open string, d *Diagnosis) {
	d.Verdict = Inactive
	does := "switches it on"
	switch {
	case m.Record.Started.IsZero():
		d.Cause = "it was never started"
	case m.State == Saved:
		d.Cause, does = "it was saved", "goes on where it was"
	case applied:
		d.Cause = "it was switched off after its context had been applied"
	case open != "":
		d.Cause = "it was switched off, or switched itself off, in the middle of stage " + open
	default:
		d.Cause = "it was switched off before its context was applied"
	}
	d.Remedy = append([]string{fmt.Sprintf("'mica start %s' %s", m.Name, does)}, d.Remedy...)
}

// goingOn explains a machine that runs and is not ready.
func goingOn(m Machine, log []byte, now time.Time, handed bool, d *Diagnosis) {
	took := now.Sub(m.Record.Started).Round(time.Second)
	d.Verdict = Booting
	if took > slowAfter {
		d.Verdict = Slow
	}
	switch {
	case len(bytes.TrimSpace(log)) == 0:
		d.Cause = fmt.Sprintf("it has said nothing on its console for %s", took)
		if took > silentFor {
			d.Verdict = Slow
			d.Remedy = []string{"the boot image may be of another kind than the machine: 'mica image show' looks at it"}
		}
	case handed:
		d.Stage, d.Cause = stage.Apply, fmt.Sprintf("the operating system starts; %s after it was switched on its context is not applied", took)
	case d.Stage != "":
		d.Cause = fmt.Sprintf("stage %s has not ended; it was switched on %s ago", d.Stage, took)
	default:
		d.Cause = fmt.Sprintf("the kernel starts; it was switched on %s ago", took)
	}
	if m.State == Paused {
		d.Cause += ", and is paused"
		d.Remedy = append(d.Remedy, fmt.Sprintf("'mica resume %s'", m.Name))
	}
	d.Remedy = append(d.Remedy, fmt.Sprintf("'mica logs --follow %s' shows how it goes on", m.Name))
}

func lastLines(log []byte, n int) []string {
	all := strings.Split(strings.ReplaceAll(strings.TrimSpace(string(log)), "\r", ""), "\n")
	all = all[max(0, len(all)-n):]
	if len(all) == 1 && all[0] == "" {
		return nil
	}
	return all
}
