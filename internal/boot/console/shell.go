package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Terminal returns the device behind /dev/console: that file itself can be
// nobody's controlling terminal, so a shell on it has no job control and no
// Ctrl-C. The kernel lists its consoles, the one that /dev/console means last.
func Terminal(sys, dev string) string {
	data, err := os.ReadFile(filepath.Join(sys, "class/tty/console/active"))
	if err == nil {
		if names := strings.Fields(string(data)); len(names) > 0 {
			name := names[len(names)-1]
			if name == "tty0" {
				name = "tty1" // tty0 is whichever is in front; a shell needs a fixed one
			}
			if file := filepath.Join(dev, name); exists(file) {
				return file
			}
		}
	}
	return filepath.Join(dev, "console")
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// Shell runs an interactive shell on a terminal of its own session and waits for
// its end. The exit code of the shell is no error.
func Shell(ctx context.Context, argv []string, terminal string, env []string) error {
	tty, err := os.OpenFile(terminal, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("starting a shell: %w", err)
	}
	defer tty.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("starting a shell: %w", err)
	}
	return nil
}

// Choice is one line of a menu.
type Choice struct {
	Key  byte // what to type, in lower case
	Text string
}

// Ask shows a menu and returns the key that was typed. Without any input for
// idle it returns fallback; idle 0 waits for ever. Input that ends (no terminal)
// counts as none: with idle 0 Ask then returns fallback after a minute, since a
// machine without a console must not wait for a person.
func Ask(ctx context.Context, in io.Reader, out func(string), title string, choices []Choice, fallback byte, idle time.Duration) byte {
	var b strings.Builder
	b.WriteString("\n" + title + "\n")
	for _, c := range choices {
		fmt.Fprintf(&b, "  %c  %s\n", c.Key, c.Text)
	}
	if idle > 0 {
		fmt.Fprintf(&b, "Without an answer in %d s: %c.\n", int(idle.Seconds()), fallback)
	}
	b.WriteString("> ")
	out(b.String())
	lines := make(chan string)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(lines)
		r := bufio.NewReader(in)
		for {
			line, err := r.ReadString('\n')
			if line != "" {
				select {
				case lines <- line:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	var timeout <-chan time.Time
	if idle > 0 {
		timer := time.NewTimer(idle)
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return fallback
		case <-timeout:
			return fallback
		case line, open := <-lines:
			if !open {
				lines = nil
				if timeout == nil {
					timeout = time.After(time.Minute)
				}
				continue
			}
			// Somebody is there: no haste any more.
			if idle > 0 {
				timeout = nil
			}
			word := strings.ToLower(strings.TrimSpace(line))
			for _, c := range choices {
				if word == string(c.Key) {
					return c.Key
				}
			}
			out("> ")
		}
	}
}
