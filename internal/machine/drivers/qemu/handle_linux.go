package qemu

import (
	"errors"

	"golang.org/x/sys/unix"
)

// handle refers to one process for good (pidfd). The zero value, and one of a
// process that was gone already, is of an ended process.
type handle struct{ fd int }

func openHandle(pid int) (handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return handle{-1}, nil
	}
	return handle{fd}, err
}

func (h handle) close() {
	if h.fd >= 0 {
		_ = unix.Close(h.fd)
	}
}

// ended reports whether the process has closed its files for good, reaped or not.
func (h handle) ended() bool {
	if h.fd < 0 {
		return true
	}
	poll := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 1
}

func (h handle) kill() error {
	if h.fd < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(h.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
