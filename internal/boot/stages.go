package boot

import "context"

// Policy says what the failure of a stage means.
type Policy int

// The policies.
const (
	Fatal  Policy = iota // the boot stops and asks
	Warn                 // the boot goes on and says so
	Ignore               // the boot goes on; the record says why
)

// Stage is one step of the boot.
type Stage struct {
	Name   string
	Text   string   // what a person reads on the console
	Needs  []string // stages that must be over before; all stand earlier in the list
	Policy Policy
	Run    func(ctx context.Context, s *state, r *report) error
}

// stages is the whole boot.
func stages() []Stage {
	return []Stage{
		{Name: "devices", Text: "Preparing devices", Policy: Warn, Run: devices},
		{Name: "modules", Text: "Loading kernel modules", Needs: []string{"devices"}, Policy: Warn, Run: loadModules},
		{Name: "random", Text: "Gathering randomness", Needs: []string{"modules"}, Policy: Warn, Run: gatherRandomness},
		{Name: "scan", Text: "Looking at disks and media", Needs: []string{"modules"}, Policy: Warn, Run: scanDevices},
		{Name: "uroot", Text: "Mounting root filesystem", Needs: []string{"scan", "random"}, Policy: Fatal, Run: mountUROOT},
		{Name: "network", Text: "Starting networking", Needs: []string{"scan", "random"}, Policy: Warn, Run: startNetwork},
		{Name: "time", Text: "Getting time", Needs: []string{"network"}, Policy: Ignore, Run: setTime},
		{Name: "context", Text: "Contextualizing VM", Needs: []string{"network", "uroot"}, Policy: Warn, Run: findContext},
		{Name: "disk", Text: "Preparing disk", Needs: []string{"context"}, Policy: Fatal, Run: prepareDisk},
		{Name: "repository", Text: "Starting CernVM File System", Needs: []string{"disk", "time"}, Policy: Fatal, Run: startRepository},
		{Name: "union", Text: "Mounting the union file system", Needs: []string{"repository"}, Policy: Fatal, Run: mountUnion},
		{Name: "inject", Text: "Injecting files", Needs: []string{"union"}, Policy: Warn, Run: injectFiles},
		{Name: "handover", Text: "Handing over to the operating system", Needs: []string{"inject"}, Policy: Fatal, Run: handOver},
	}
}
