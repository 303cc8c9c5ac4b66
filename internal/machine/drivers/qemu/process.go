package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const pidFile = "pid"

// holder returns the id of the process that holds the lock on the pid file, or
// 0 where there is none.
func holder(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, pidFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for qemu: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("looking for qemu: %s: %w", f.Name(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// gone waits until no process holds the pid file.
func gone(ctx context.Context, dir string) error {
	for {
		pid, err := holder(dir)
		if err != nil || pid == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for qemu (process %d) to end: %w", pid, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// How long QEMU may take to quit by itself, and to die when killed.
const (
	quitPatience = 5 * time.Second
	killPatience = 10 * time.Second
)

// end ends the machine's QEMU at once: by the monitor, so that it flushes its
// disks, and by the signal that cannot be ignored if that does not work.
func end(ctx context.Context, dir string) error {
	pid, err := holder(dir)
	if err != nil || pid == 0 {
		return err
	}
	polite, cancel := context.WithTimeout(ctx, quitPatience)
	defer cancel()
	if m, err := connect(polite, dir, controlSocket); err == nil {
		_ = m.call(polite, "quit", nil, nil) // it may end before it answers
		m.close()
		if gone(polite, dir) == nil {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ending qemu: %w", err)
	}
	return kill(ctx, dir, pid)
}

func kill(ctx context.Context, dir string, pid int) error {
	p, err := os.FindProcess(pid) // from here on p is that process and no later one of its number
	if err != nil {
		return fmt.Errorf("ending qemu: %w", err)
	}
	defer p.Release() //nolint:errcheck // nothing to lose
	if again, err := holder(dir); err != nil || again != pid {
		return err
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending qemu: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	return gone(ctx, dir)
}
