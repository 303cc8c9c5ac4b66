package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/clock"
)

// timeBudget is how long the boot waits for the time. It runs beside other
// stages, so on a network that answers it costs nothing.
const timeBudget = 2 * time.Second

// setTime lifts the clock to the build time of the image, which it cannot be
// before, and asks the network for the right one.
func setTime(ctx context.Context, s *state, r *report) error {
	floor := clock.Floor(buildTime)
	if time.Now().Before(floor) {
		if err := setClock(floor); err != nil {
			return err
		}
		r.say("clock was before the build of the image and was set to it")
	}
	if !s.online() {
		return skipped("no network")
	}
	servers := timeServers(s)
	ctx, cancel := context.WithTimeoutCause(ctx, timeBudget, errors.New("no answer in 2 s"))
	defer cancel()
	answer, err := clock.Query(ctx, servers, floor)
	if err != nil {
		// Many networks let nobody out to a time server. The clock of the platform,
		// not before the build of the image, has to do.
		s.rec.note("%v", err)
		return skipped("no time server answered; the clock says %s", time.Now().UTC().Format(time.RFC3339))
	}
	if answer.Offset.Abs() <= clock.Worth {
		r.say("clock is right (%s)", answer.Server)
		return nil
	}
	if err := setClock(time.Now().Add(answer.Offset)); err != nil {
		return err
	}
	r.say("clock was off by %s (%s)", answer.Offset.Round(time.Millisecond), answer.Server)
	return nil
}

func setClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("setting the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// timeServers lists whom to ask: the network's own servers, the platform's, the
// public pool.
func timeServers(s *state) []string {
	var servers []string
	for _, c := range s.configs {
		for _, a := range c.NTP {
			servers = append(servers, a.String())
		}
	}
	vendor, _ := os.ReadFile("/sys/class/dmi/id/sys_vendor")
	switch {
	case strings.HasPrefix(string(vendor), "Amazon"):
		servers = append(servers, "169.254.169.123")
	case strings.HasPrefix(string(vendor), "Google"):
		servers = append(servers, "169.254.169.254")
	}
	return append(servers, "0.pool.ntp.org", "1.pool.ntp.org", "2.pool.ntp.org")
}
