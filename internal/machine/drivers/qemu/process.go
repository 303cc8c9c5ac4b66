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
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("looking for qemu: %s: %w", f.Name(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// qemu is a process that holds a machine's pid file.
type qemu struct {
	handle
	dir string
	pid int
}

// find returns the machine's process, or nil where there is none. The handle
// stays with that process when its number is given to another.
func find(dir string) (*qemu, error) {
	for {
		pid, err := holder(dir)
		if err != nil || pid == 0 {
			return nil, err
		}
		h, err := openHandle(pid)
		if err != nil {
			return nil, fmt.Errorf("looking at qemu (process %d): %w", pid, err)
		}
		if again, err := holder(dir); err == nil && again == pid {
			return &qemu{h, dir, pid}, nil
		}
		h.close() // it ended in between
	}
}

// gone waits until the process has ended. It frees its files one after the
// other: the lock may be gone while a forwarded port is still held.
func (q *qemu) gone(ctx context.Context) error {
	for {
		pid, err := holder(q.dir)
		if err != nil {
			return err
		}
		if pid != q.pid && q.ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for qemu (process %d) to end: %w", q.pid, ctx.Err())
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
	q, err := find(dir)
	if err != nil || q == nil {
		return err
	}
	defer q.close()
	polite, cancel := context.WithTimeout(ctx, quitPatience)
	defer cancel()
	if m, err := connect(polite, dir, controlSocket); err == nil {
		_ = m.call(polite, "quit", nil, nil) // it may end before it answers
		m.close()
		if q.gone(polite) == nil {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ending qemu: %w", err)
	}
	if err := q.kill(); err != nil {
		return fmt.Errorf("ending qemu (process %d): %w", q.pid, err)
	}
	ctx, cancel = context.WithTimeout(ctx, killPatience)
	defer cancel()
	return q.gone(ctx)
}
