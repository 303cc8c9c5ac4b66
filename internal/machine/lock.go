package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
)

const lockFile = "lock"

// lock keeps other commands off one machine. It is atomicfile.Lock with one
// difference: the file goes away with the machine's folder, so whoever waited
// for it must see that what it got is no longer the machine's lock.
type lock struct{ f *os.File }

// unlock says so, and does not leave it to the closing: a program that is just
// being started has a copy of the descriptor until it runs, and would hold on.
func (l *lock) unlock() {
	_ = unix.Flock(int(l.f.Fd()), unix.LOCK_UN)
	_ = l.f.Close()
}

// newLock takes the lock of a folder nobody else knows yet.
func newLock(dir string) (*lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return grab(f)
}

func grab(f *os.File) (*lock, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		_ = f.Close()
		return nil, &busyError{pid: strings.TrimSpace(string(holder[:n]))}
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return &lock{f}, nil
}

type busyError struct{ pid string }

func (e *busyError) Error() string { return "locked by process " + e.pid }

// tryLock takes the lock of an existing machine, or fails at once: with
// fs.ErrNotExist where there is no such folder, with a *busyError where another
// command has it.
func tryLock(dir string) (*lock, error) {
	for {
		f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) {
			// A folder without a lock was not made here, or its removal was cut
			// short; one who holds the folder's name may lock it all the same.
			if _, serr := os.Stat(dir); serr != nil {
				return nil, serr
			}
			f, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
		}
		if err != nil {
			return nil, err
		}
		l, err := grab(f)
		if err != nil {
			return nil, err
		}
		mine, err1 := l.f.Stat()
		there, err2 := os.Stat(filepath.Join(dir, lockFile))
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return l, nil
		}
		l.unlock() // destroyed meanwhile, or made anew
	}
}

// patience is how long a command waits for another one on the same machine.
const patience = 10 * time.Second

// waitLock takes the lock, waiting for another command to end.
func waitLock(ctx context.Context, dir, name string) (*lock, error) {
	deadline := time.Now().Add(patience)
	for {
		l, err := tryLock(dir)
		var busy *busyError
		if !errors.As(err, &busy) {
			return l, err
		}
		if time.Now().After(deadline) {
			return nil, fail.New(fail.Conflict, "machine %q is busy: %w", name, err).Hint("wait for the other command, or end it")
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for machine %q: %w", name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
