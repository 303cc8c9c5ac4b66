package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/micavm/mica/internal/machine"
)

// VirtualBox empties the log file whenever the machine's process starts, also
// to go on from saved memory. So what was written before a save is kept under
// other names: serial.log.a1, serial.log.a2 and so on are the earlier parts of
// the log. serial.log.1 is that of the time before.
const (
	partPrefix = logFile + ".a"
	lastLog    = logFile + ".1"
	maxLog     = 1 << 20 // what one call of Log returns at most
)

// parts are the earlier parts of the log, in order.
func parts(s machine.Spec) []string {
	var all []string
	for n := 1; ; n++ {
		path := s.Path(fmt.Sprintf("%s%d", partPrefix, n))
		if _, err := os.Lstat(path); err != nil {
			return all
		}
		all = append(all, path)
	}
}

// newLog makes way for the log of a machine that is switched on.
func newLog(s machine.Spec) error {
	if err := moveLog(s, lastLog); err != nil {
		return err
	}
	earlier := parts(s)
	slices.Reverse(earlier) // whoever is killed here leaves no gap
	for _, path := range earlier {
		if err := removeFile(path); err != nil {
			return err
		}
	}
	return nil
}

// continueLog makes way for the log of a machine that goes on.
func continueLog(s machine.Spec) error {
	return moveLog(s, fmt.Sprintf("%s%d", partPrefix, len(parts(s))+1))
}

func moveLog(s machine.Spec, name string) error {
	if err := os.Rename(s.Path(logFile), s.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the console log: %w", err)
	}
	return nil
}

// Log implements machine.Logger.
func (d *Driver) Log(_ context.Context, i machine.Instance, offset int64) ([]byte, error) {
	var all []byte
	for _, path := range append(parts(i.Spec), i.Spec.Path(logFile)) {
		data, size, err := readPart(path, max(offset, 0), maxLog-int64(len(all)))
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
		offset -= size
		if len(all) == maxLog {
			break
		}
	}
	return all, nil
}

// readPart returns what a file holds from offset on, and its size.
func readPart(path string, offset, limit int64) ([]byte, int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading console log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("reading console log: %w", err)
	}
	more := min(info.Size()-offset, limit)
	if more <= 0 {
		return nil, info.Size(), nil
	}
	data := make([]byte, more)
	n, err := f.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("reading console log: %w", err)
	}
	return data[:n], info.Size(), nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
