package libvirt

import (
	"os"

	"github.com/micavm/mica/internal/machine"
)

// What is tested by itself.
var (
	DomainXML        = domainXML
	WithForwards     = withForwards
	StateOf          = stateOf
	MakeDisk         = makeDisk
	PNGOfPPM         = pngOfPPM
	ReadCapabilities = readCapabilities
	StartFailed      = startFailed
	Explain          = explain
	ReadPacket       = readPacket
	Relay            = relay
	SSHArgs          = sshArgs
)

// The same.
type (
	Media     = media
	PlaceNote = place
)

// ParseURI is parseURI for a user.
func ParseURI(text string, uid int) (any, error) { return parseURI(text, uid) }

// OptionsOf are the options of a machine, and its XML.
func OptionsOf(d machine.Driver, s machine.Spec, m Media, accel string) (string, error) {
	o, err := d.(*Driver).options(s)
	if err != nil {
		return "", err
	}
	return domainXML(s, m, o, accel)
}

// Reached makes the driver call do at each step.
func Reached(d machine.Driver, do func(step string)) { d.(*Driver).reached = do }

// Real makes a driver for this process's environment.
func Real() machine.Driver { return New(machine.Env{Getenv: os.Getenv}) }
