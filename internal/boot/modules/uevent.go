package modules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Events is a subscription to what the kernel says about hardware.
type Events struct{ f *os.File }

// Listen subscribes to the kernel's uevents (NETLINK_KOBJECT_UEVENT).
func Listen() (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listening for new hardware: %w", err)
	}
	const kernelGroup = 1
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listening for new hardware: %w", err)
	}
	return &Events{os.NewFile(uintptr(fd), "uevents")}, nil
}

// Close ends the subscription.
func (e *Events) Close() error { return e.f.Close() }

// Each calls found with the alias of each device that appears, until ctx ends.
func (e *Events) Each(ctx context.Context, found func(alias string)) error {
	stop := context.AfterFunc(ctx, func() { _ = e.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64*1024)
	for {
		n, err := e.f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS): // some were lost; the next ones still come
			continue
		case err != nil:
			return fmt.Errorf("listening for new hardware: %w", err)
		}
		if alias, ok := ParseUevent(buf[:n]); ok {
			found(alias)
		}
	}
}

// ParseUevent returns the alias in a message about a device that was added.
func ParseUevent(data []byte) (alias string, ok bool) {
	added := false
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, found := bytes.Cut(field, []byte{'='})
		if !found {
			continue
		}
		switch string(key) {
		case "ACTION":
			added = string(value) == "add"
		case "MODALIAS":
			alias = string(value)
		}
	}
	return alias, added && alias != ""
}
