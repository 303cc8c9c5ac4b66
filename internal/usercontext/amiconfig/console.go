package amiconfig

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

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
type console struct{ files []*os.File }

func openConsoles(names []string) *console {
	c := &console{}
	for _, name := range names {
		// Without O_NOCTTY a serial port could become this process's terminal, and
		// without O_NONBLOCK one without a carrier would stop it.
		f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
		if err == nil {
			c.files = append(c.files, f)
		}
	}
	return c
}

func (c *console) emit(e stage.Event) { _, _ = c.Write([]byte(e.Line())) }

// Write implements io.Writer; it never fails.
func (c *console) Write(p []byte) (int, error) {
	for _, f := range c.files {
		_ = f.SetWriteDeadline(time.Now().Add(2 * time.Second)) // not every device can
		_, _ = f.Write(p)
	}
	return len(p), nil
}

func (c *console) close() {
	for _, f := range c.files {
		_ = f.Close()
	}
}
