package amiconfig

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/stage"
)

// consoles lists the devices a host or a person may be watching: every console of
// the kernel, and the first serial port in any case.
func consoles(root string) []string {
	var list []string
	data, err := os.ReadFile(filepath.Join(root, "sys/class/tty/console/active"))
	if err == nil {
		for _, name := range strings.Fields(string(data)) {
			list = append(list, filepath.Join(root, "dev", name))
		}
	}
	serial := filepath.Join(root, "dev/ttyS0")
	if _, err := os.Stat(serial); err == nil && !slices.Contains(list, serial) {
		list = append(list, serial)
	}
	return list
}

// console writes to several terminals at once. Nobody may be listening: a write
// that does not go through is dropped, and never waited for long.
//
// No terminal stays open between writes. When a login prompt starts on a line,
// the kernel hangs the line up for everyone who has it open, and throws away what
// was written and not yet sent; so each write opens the line, waits until it is
// sent, and is repeated when the line was hung up meanwhile. A reader may see an
// event twice.
type console struct{ names []string }

func (c *console) emit(e stage.Event) { _, _ = c.Write([]byte(e.Line())) }

// Write implements io.Writer; it never fails.
func (c *console) Write(p []byte) (int, error) {
	const attempts = 3
	for _, name := range c.names {
		for range attempts {
			if !errors.Is(writeLine(name, p), unix.EIO) { // EIO: hung up
				break
			}
		}
	}
	return len(p), nil
}

// patience bounds how long one write waits for one line.
const patience = 2 * time.Second

// writeLine opens a terminal, writes p and waits until it is sent.
func writeLine(name string, p []byte) error {
	// Without O_NOCTTY a serial port could become this process's terminal, and
	// without O_NONBLOCK one without a carrier would stop it.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	end := time.Now().Add(patience)
	_ = f.SetWriteDeadline(end) // not every device can
	if _, err := f.Write(p); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for pending := 1; pending > 0 && time.Now().Before(end); {
		var ierr error
		if err := raw.Control(func(fd uintptr) { pending, ierr = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }); err != nil {
			return err
		}
		if ierr != nil { // hung up, or no terminal
			return ierr
		}
		if pending > 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}
