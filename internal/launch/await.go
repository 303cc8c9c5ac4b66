package launch

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
)

const awaitEvery = time.Second

// waitable says whether there will be an SSH server to wait for.
func waitable(v settings) error {
	if port := v[keyAPIPort]; port != strconv.Itoa(guestSSH) {
		return fail.New(fail.Usage, "%s waits for an SSH server, and the forwarded port leads to port %s of the machine", optWait, port).
			Hint("leave %s out, or set %s=%d", optWait, keyAPIPort, guestSSH)
	}
	return nil
}

// await waits until the SSH server of a machine answers, for as long as the
// machine runs. The record is not locked meanwhile. That the port can be
// connected to proves nothing: VirtualBox accepts before the guest does.
func (s *session) await(ctx context.Context, name string) error {
	sink := progress.Or(s.Progress)
	sink.Emit(progress.Event{ID: name, Phase: "waiting for SSH"})
	for {
		r, err := s.get(name)
		if err != nil {
			return err
		}
		if machine.Greets(ctx, net.JoinHostPort("127.0.0.1", r.values[localPort])) {
			break
		}
		switch state, err := s.state(ctx, r); {
		case ctx.Err() != nil:
		case err != nil:
			return fmt.Errorf("asking for the state of %q: %w", name, err)
		case state != machine.Running && state != machine.Paused:
			return fail.New(fail.Failed, "The machine %s does not run any more: it is %s", name, state).
				Hint("'cernvm-launch logs %s' shows what it wrote to its console", name)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the SSH server of %q: %w", name, ctx.Err())
		case <-time.After(awaitEvery):
		}
	}
	sink.Emit(progress.Event{ID: name, Phase: "SSH answers", Finished: true})
	return nil
}

// logs writes what a machine has written to its console since it was switched on.
func (s *session) logs(ctx context.Context, args []string) error {
	name, err := one(args, "logs")
	if err != nil {
		return err
	}
	r, err := s.get(name)
	if err != nil {
		return err
	}
	d, err := s.Drivers.Get(r.driver())
	if err != nil {
		return err
	}
	logger, ok := d.(machine.Logger)
	if !ok {
		return fail.New(fail.Usage, "driver %q keeps no log of the console", r.driver())
	}
	i, err := r.instance()
	if err != nil {
		return err
	}
	for offset := int64(0); ; {
		data, err := logger.Log(ctx, i, offset)
		if err != nil {
			return fmt.Errorf("reading the log of %q: %w", name, err)
		}
		if len(data) == 0 {
			return nil
		}
		if _, err := s.Out.Write(data); err != nil {
			return fmt.Errorf("writing the log of %q: %w", name, err)
		}
		offset += int64(len(data))
	}
}
