package machine

// Reached makes f call do at each step of making and removing a machine.
func (f *Fleet) Reached(do func(step string)) { f.reached = do }

// The state machine's extent, and what is tested by itself.
var (
	States         = states
	Actions        = actions
	Nearest        = nearest
	CheckBootImage = checkBootImage
)
