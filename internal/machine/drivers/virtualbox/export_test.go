package virtualbox

import (
	"time"

	"github.com/micavm/mica/internal/machine"
)

// Hasty makes a driver wait little before it tries again, and give up soon.
func Hasty(d machine.Driver, start, settled time.Duration) machine.Driver {
	v := d.(*Driver)
	v.start, v.settled = start, settled
	for n := range v.backoff {
		v.backoff[n] = 20 * time.Millisecond
	}
	return d
}

// Limit bounds every command of a driver.
func Limit(d *Driver, limit time.Duration) { d.limit = limit }

// What is tested by itself.
var (
	Locate    = locate
	Parse     = func(text string) map[string]string { return parse(text) }
	Snapshots = snapshotsIn
	Mode      = func(in map[string]string) (machine.State, bool, error) {
		m, err := info(in).mode()
		return m.state, m.passing, err
	}
)
