package launch

import (
	"context"
	"net"
	"strconv"

	"github.com/micavm/mica/internal/fail"
)

// Ports are taken upwards from here, so that they are the same from one start to
// the next, and below the range that systems use for outgoing connections.
const (
	firstPort = 2222
	lastPort  = 32000
)

// pickPort returns the host port of a machine: the one it has, if nobody listens
// there, else the first one that no record claims. The caller holds the lock of
// creation, so that two commands do not pick the same.
//
// Differs: the original takes a random port that does not answer; it sees neither
// ports that are bound and silent nor those of machines that are off.
func (s *session) pickPort(ctx context.Context, r *record, taken map[int]bool) (int, error) {
	if have, err := r.values.number(localPort, 1, maxPort); err == nil && !taken[int(have)] && portFree(ctx, int(have)) {
		return int(have), nil
	}
	all, err := s.records()
	if err != nil {
		return 0, err
	}
	claimed := map[int]bool{}
	for _, other := range all {
		if port, err := other.values.number(localPort, 1, maxPort); err == nil {
			claimed[int(port)] = true
		}
	}
	for port := firstPort; port <= lastPort; port++ {
		if !claimed[port] && !taken[port] && portFree(ctx, port) {
			return port, nil
		}
	}
	return 0, fail.New(fail.Conflict, "no port between %d and %d is free", firstPort, lastPort).Hint("destroy machines that are not needed")
}

// portFree tries to listen. Nothing is accepted, so nothing lingers.
func portFree(ctx context.Context, port int) bool {
	l, err := new(net.ListenConfig).Listen(context.WithoutCancel(ctx), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
