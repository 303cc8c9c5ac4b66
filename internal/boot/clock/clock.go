package clock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Worth is the least offset for which the clock is stepped.
const Worth = time.Second

// Answer is what one server said.
type Answer struct {
	Server string
	Offset time.Duration // to be added to the local clock
	Delay  time.Duration // of the round trip
}

// ErrImplausible says that a reply is not a usable time.
var ErrImplausible = errors.New("implausible reply")

// ntpEpoch is 1 January 1900 in Unix seconds.
const ntpEpoch = -2208988800

// Query asks every server at once and returns the first plausible answer. A
// server is a host name or an address; port 123 is meant unless it says another.
// Answers earlier than floor are implausible.
func Query(ctx context.Context, servers []string, floor time.Time) (Answer, error) {
	if len(servers) == 0 {
		return Answer{}, errors.New("asking for the time: no server is known")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		answer Answer
		err    error
	}
	results := make(chan result, len(servers))
	for _, server := range servers {
		go func() {
			a, err := ask(ctx, server, floor)
			results <- result{a, err}
		}()
	}
	var errs []error
	for range servers { // every goroutine is waited for, or its ctx is cancelled and its result buffered
		r := <-results
		if r.err == nil {
			return r.answer, nil
		}
		errs = append(errs, r.err)
	}
	return Answer{}, errors.Join(errs...)
}

// ask sends a request and repeats it each half second until ctx ends.
func ask(ctx context.Context, server string, floor time.Time) (Answer, error) {
	address := server
	if _, _, err := net.SplitHostPort(server); err != nil {
		address = net.JoinHostPort(server, "123")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", address)
	if err != nil {
		return Answer{}, fmt.Errorf("asking %s for the time: %w", server, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		request := make([]byte, 48)
		request[0] = 4<<3 | 3 // version 4, client
		// A random transmit time, echoed by the server, proves that the reply is
		// one to this request; the real one is kept here.
		if _, err := rand.Read(request[40:48]); err != nil {
			return Answer{}, err
		}
		sent := time.Now()
		if _, err := conn.Write(request); err != nil {
			return Answer{}, fmt.Errorf("asking %s for the time: %w", server, err)
		}
		_ = conn.SetReadDeadline(sent.Add(500 * time.Millisecond))
		if ctx.Err() != nil {
			return Answer{}, fmt.Errorf("asking %s for the time: %w", server, context.Cause(ctx))
		}
		reply := make([]byte, 512)
		n, err := conn.Read(reply)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() && ctx.Err() == nil {
				continue
			}
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return Answer{}, fmt.Errorf("asking %s for the time: %w", server, err)
		}
		a, err := Parse(request, reply[:n], sent, time.Now(), floor)
		if err != nil {
			return Answer{}, fmt.Errorf("asking %s for the time: %w", server, err)
		}
		a.Server = server
		return a, nil
	}
}

// Parse reads the reply to a request that was sent and answered at the given
// local times.
func Parse(request, reply []byte, sent, received time.Time, floor time.Time) (Answer, error) {
	switch {
	case len(reply) < 48 || len(request) < 48:
		return Answer{}, fmt.Errorf("%w: %d bytes", ErrImplausible, len(reply))
	case reply[0]&7 != 4:
		return Answer{}, fmt.Errorf("%w: not from a server", ErrImplausible)
	case reply[0]>>6 == 3:
		return Answer{}, fmt.Errorf("%w: the server's clock is not set", ErrImplausible)
	case reply[1] == 0 || reply[1] > 15:
		return Answer{}, fmt.Errorf("%w: stratum %d", ErrImplausible, reply[1])
	case string(reply[24:32]) != string(request[40:48]):
		return Answer{}, fmt.Errorf("%w: to another request", ErrImplausible)
	}
	in, out := stamp(reply[32:40]), stamp(reply[40:48])
	if out.Before(floor) || out.Before(in) {
		return Answer{}, fmt.Errorf("%w: the time %s", ErrImplausible, out.UTC().Format(time.RFC3339))
	}
	return Answer{
		Offset: (in.Sub(sent) + out.Sub(received)) / 2,
		Delay:  received.Sub(sent) - out.Sub(in),
	}, nil
}

// stamp reads a 64-bit NTP time. Times with the top bit clear are after 7
// February 2036 (RFC 4330, section 3).
func stamp(b []byte) time.Time {
	seconds := int64(binary.BigEndian.Uint32(b))
	if seconds&0x80000000 == 0 {
		seconds += 1 << 32
	}
	fraction := uint64(binary.BigEndian.Uint32(b[4:]))
	return time.Unix(seconds+ntpEpoch, int64(fraction*1e9>>32))
}

// Floor reads the build time of the image: seconds since 1970 or RFC 3339. A
// missing or unreadable file gives the zero time, which bounds nothing.
func Floor(file string) time.Time {
	data, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}
	}
	text := strings.TrimSpace(string(data))
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return time.Unix(n, 0)
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t
	}
	return time.Time{}
}
