//go:build !linux

package qemu

import (
	"errors"
	"os"
	"syscall"
)

// handle refers to a process by its number, which is the best there is here.
type handle struct{ p *os.Process }

func openHandle(pid int) (handle, error) {
	p, err := os.FindProcess(pid)
	return handle{p}, err
}

func (h handle) close() { _ = h.p.Release() }

// ended reports whether the process is gone.
func (h handle) ended() bool { return h.p.Signal(syscall.Signal(0)) != nil }

func (h handle) kill() error {
	if err := h.p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
