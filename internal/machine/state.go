package machine

import (
	"github.com/micavm/mica/internal/fail"
)

// State is what the platform says of a machine now.
type State string

// The states.
const (
	Absent  State = "absent"  // the platform does not know it
	Stopped State = "stopped" // switched off
	Saved   State = "saved"   // off, its memory is on disk
	Paused  State = "paused"  // in memory, its processors stand still
	Running State = "running"
	Crashed State = "crashed" // there, but can never run on

	// What List says of machines that cannot be asked.
	Creating   State = "creating"   // another command is making it
	Incomplete State = "incomplete" // a killed command left it half made or half destroyed
	Damaged    State = "damaged"    // its record cannot be read
	Unknown    State = "unknown"    // the platform does not answer
)

// Action is what a user asks for.
type Action string

// The actions.
const (
	DoStart    Action = "start"
	DoSave     Action = "stop"
	DoPowerOff Action = "power off"
	DoShutdown Action = "shut down"
	DoPause    Action = "pause"
	DoResume   Action = "resume"
	DoRestart  Action = "restart"
	DoConsole  Action = "open the console of"
	DoSSH      Action = "log in to"
	DoDestroy  Action = "destroy"

	DoSnapshot     Action = "take a snapshot of"
	DoRevert       Action = "revert"
	DoDropSnapshot Action = "delete a snapshot of"
	DoForward      Action = "change the ports of"
	DoScreen       Action = "see the screen of"
	DoChange       Action = "change" // size and name
	DoClone        Action = "clone"
	DoShare        Action = "change the shared folders of"
)

// verdict is what the table says about one action in one state.
type verdict struct {
	do    bool       // act
	hint  string     // where it is refused: what to do instead
	class fail.Class // of the refusal
}

var (
	act  = verdict{do: true}
	idle = verdict{} // it is so already: nothing to do, no error
)

func no(hint string) verdict { return verdict{hint: hint, class: fail.Usage} }

// busy refuses what could be done if the machine were off.
func busy(hint string) verdict { return verdict{hint: hint, class: fail.Conflict} }

// states and actions span the table.
var (
	states  = []State{Absent, Stopped, Saved, Paused, Running, Crashed}
	actions = []Action{
		DoStart, DoSave, DoPowerOff, DoShutdown, DoPause, DoResume, DoRestart, DoConsole, DoSSH, DoDestroy,
		DoSnapshot, DoRevert, DoDropSnapshot, DoForward, DoScreen, DoChange, DoClone, DoShare,
	}
)

const (
	gone    = "the platform lost it; 'mica destroy' clears what is left"
	isOff   = "'mica start' switches it on"
	isSaved = "'mica start' goes on where it was saved"
	offOnly = "it must be off: 'mica stop --shutdown', or 'mica stop --power-off'"
	memory  = "'mica start' and 'mica stop --shutdown' first, or 'mica stop --power-off' to drop the saved memory"
	isBad   = "'mica logs --raw' shows its last words; 'mica restart' or 'mica stop --power-off' end it"
)

// rules is the state machine: what each action does in each state. Actions
// that would have to boot a machine only to stop it are refused or idle.
var rules = map[State]map[Action]verdict{
	Absent: {
		DoStart: no(gone), DoSave: no(gone), DoPowerOff: no(gone), DoShutdown: no(gone), DoPause: no(gone),
		DoResume: no(gone), DoRestart: no(gone), DoConsole: no(gone), DoSSH: no(gone), DoDestroy: act,
		DoSnapshot: no(gone), DoRevert: no(gone), DoDropSnapshot: no(gone), DoForward: no(gone), DoScreen: no(gone),
		DoChange: no(gone), DoClone: no(gone), DoShare: no(gone),
	},
	Stopped: {
		DoStart: act, DoSave: idle, DoPowerOff: idle, DoShutdown: idle, DoPause: no(isOff),
		DoResume: no(isOff), DoRestart: act, DoConsole: no(isOff), DoSSH: no(isOff), DoDestroy: act,
		DoSnapshot: act, DoRevert: act, DoDropSnapshot: act, DoForward: act, DoScreen: no(isOff), DoChange: act, DoClone: act, DoShare: act,
	},
	Saved: {
		DoStart: act, DoSave: idle, DoPowerOff: act, DoShutdown: no(isSaved), DoPause: no(isSaved),
		DoResume: no(isSaved), DoRestart: no("'mica start' first, or 'mica stop --power-off' to drop the saved memory"),
		DoConsole: no(isSaved), DoSSH: no(isSaved), DoDestroy: act,
		DoSnapshot: act, DoRevert: act, DoDropSnapshot: act, DoForward: act, DoScreen: no(isSaved), DoChange: no(memory), DoClone: no(memory),
		DoShare: busy(memory),
	},
	Paused: {
		DoStart: act, DoSave: act, DoPowerOff: act, DoShutdown: no("'mica resume' first: a paused guest cannot act"), DoPause: idle,
		DoResume: act, DoRestart: act, DoConsole: act, DoSSH: no("'mica resume' first: a paused guest does not answer"), DoDestroy: act,
		DoSnapshot: act, DoRevert: no(offOnly), DoDropSnapshot: act, DoForward: act, DoScreen: act, DoChange: no(offOnly), DoClone: no(offOnly),
		DoShare: busy(offOnly),
	},
	Running: {
		DoStart: idle, DoSave: act, DoPowerOff: act, DoShutdown: act, DoPause: act,
		DoResume: idle, DoRestart: act, DoConsole: act, DoSSH: act, DoDestroy: act,
		DoSnapshot: act, DoRevert: no(offOnly), DoDropSnapshot: act, DoForward: act, DoScreen: act, DoChange: no(offOnly), DoClone: no(offOnly),
		DoShare: busy(offOnly),
	},
	Crashed: {
		DoStart: no(isBad), DoSave: no(isBad), DoPowerOff: act, DoShutdown: no(isBad), DoPause: no(isBad),
		DoResume: no(isBad), DoRestart: act, DoConsole: act, DoSSH: no(isBad), DoDestroy: act,
		DoSnapshot: no(isBad), DoRevert: no(offOnly), DoDropSnapshot: act, DoForward: no(isBad), DoScreen: act, DoChange: no(offOnly), DoClone: no(offOnly),
		DoShare: busy(offOnly),
	},
}

// Live reports whether the machine uses memory of this computer now.
func (s State) Live() bool { return s == Running || s == Paused || s == Crashed }

// Allows says whether action a has something to do in state s. The error,
// for people, says what to do where it may not be done.
func (s State) Allows(name string, a Action) (bool, error) {
	v, ok := rules[s][a]
	switch {
	case !ok:
		return false, fail.New(fail.Conflict, "cannot %s %q: it is %s", a, name, s).Hint("'mica destroy %s' clears it", name)
	case v.do:
		return true, nil
	case v.hint != "":
		return false, fail.New(v.class, "cannot %s %q: it is %s", a, name, s).Hint("%s", v.hint)
	}
	return false, nil
}
