package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Console implements machine.Consoler.
func (d *Driver) Console(ctx context.Context, i machine.Instance) (io.ReadWriteCloser, error) {
	// QEMU lets a second client connect and then ignores it.
	lock, err := atomicfile.TryLock(i.Spec.Path(consoleLock))
	if errors.Is(err, atomicfile.ErrLocked) {
		return nil, fail.New(fail.Conflict, "the console of %q is open elsewhere: %w", i.Spec.Name, err).
			Hint("close it there, or read along with 'mica logs --raw --follow %s'", i.Spec.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("opening console: %w", err)
	}
	conn, err := dial(ctx, i.Spec.Dir, serialSocket)
	if err != nil {
		_ = lock.Unlock()
		return nil, fmt.Errorf("opening console: %w", err)
	}
	return &console{conn, lock}, nil
}

type console struct {
	io.ReadWriteCloser
	lock *atomicfile.Lock
}

func (c *console) Close() error {
	return errors.Join(c.ReadWriteCloser.Close(), c.lock.Unlock())
}

// maxLog is what one call of Log returns at most.
const maxLog = 1 << 20

// Log implements machine.Logger.
func (d *Driver) Log(_ context.Context, i machine.Instance, offset int64) ([]byte, error) {
	f, err := os.Open(i.Spec.Path(consoleFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading console log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading console log: %w", err)
	}
	more := min(info.Size()-offset, maxLog)
	if more <= 0 {
		return nil, nil
	}
	data := make([]byte, more)
	n, err := f.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading console log: %w", err)
	}
	return data[:n], nil
}

// Describe implements machine.Describer.
func (d *Driver) Describe(ctx context.Context, i machine.Instance) (map[string]string, error) {
	facts := map[string]string{}
	if info, err := os.Stat(i.Spec.Path(diskFile)); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			const block = 512 // st_blocks counts these whatever the file system's own blocks are
			facts["disk_used_bytes"] = strconv.FormatInt(st.Blocks*block, 10)
		}
	}
	if info, err := os.Stat(i.Spec.Path(stateFile)); err == nil {
		facts["saved_bytes"] = strconv.FormatInt(info.Size(), 10)
	}
	pid, err := holder(i.Spec.Dir)
	if err != nil || pid == 0 {
		return facts, err
	}
	facts["pid"] = strconv.Itoa(pid)
	var l launch
	if err := readJSON(i.Spec.Path(launchFile), &l); err == nil {
		facts["accel"], facts["qemu"], facts["machine_type"] = l.Accel, l.Version, l.Machine
		facts["sandbox"] = strconv.FormatBool(l.Sandbox)
	}
	if facts["qemu_status"], err = d.ask(ctx, i, statusSocket); err != nil {
		return facts, err
	}
	return facts, nil
}
