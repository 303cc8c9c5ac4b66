package machine

import (
	"context"
	"net"
	"slices"
	"strconv"

	"github.com/micavm/mica/internal/fail"
)

// Automatic ports are taken upwards from here: stable from one start to the
// next, and below the range that systems use for outgoing connections.
const (
	firstPort = 2222
	lastPort  = 32000
)

// pickPorts chooses the automatic host ports of a machine: the ones it has, if
// they are free, else ones that no record of others claims, which are read only
// then. It changes the record in memory only.
func (f *Fleet) pickPorts(ctx context.Context, r *Record, taken map[int]bool, others func() []*Record) error {
	var claimed map[int]bool
	forwards := slices.Clone(r.Instance.Spec.Forwards)
	for i, fwd := range forwards {
		if !fwd.Auto || fwd.Host != 0 && !taken[fwd.Host] && portFree(ctx, fwd.Host) {
			continue
		}
		if claimed == nil {
			claimed = claimedPorts(others())
			for _, other := range forwards {
				claimed[other.Host] = true
			}
		}
		port, err := freePort(ctx, claimed, taken)
		if err != nil {
			return err
		}
		if fwd.Host != 0 {
			f.say("port %d is taken by another program: using %d", fwd.Host, port)
		}
		claimed[port], forwards[i].Host = true, port
	}
	r.Instance.Spec.Forwards = forwards
	return nil
}

// freePort returns the first port that nobody has or wants.
func freePort(ctx context.Context, claimed, taken map[int]bool) (int, error) {
	for port := firstPort; port <= lastPort; port++ {
		if !claimed[port] && !taken[port] && portFree(ctx, port) {
			return port, nil
		}
	}
	return 0, fail.New(fail.Conflict, "no free port between %d and %d", firstPort, lastPort).Hint("name one with --port")
}

// claimedPorts are the host ports in the records, of machines on or off.
func claimedPorts(records []*Record) map[int]bool {
	claimed := map[int]bool{}
	for _, r := range records {
		for _, fwd := range r.spec().Forwards {
			claimed[fwd.Host] = true
		}
	}
	return claimed
}

// checkPorts refuses ports that the user named and another program holds.
// A port can still be lost between here and the start: then the driver says so.
func (f *Fleet) checkPorts(ctx context.Context, s Spec) error {
	for _, fwd := range s.Forwards {
		if !fwd.Auto && !portFree(ctx, fwd.Host) {
			return fail.New(fail.Conflict, "port %d of this computer is taken, or not allowed", fwd.Host).
				Hint("name another one, or leave the choice to mica with 'auto'")
		}
	}
	return nil
}

// portFree tries to listen. The listener is closed at once and never accepts,
// so nothing lingers. That ctx has ended makes no port a taken one.
func portFree(ctx context.Context, port int) bool {
	l, err := new(net.ListenConfig).Listen(context.WithoutCancel(ctx), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
