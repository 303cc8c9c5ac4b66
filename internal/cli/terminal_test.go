package cli_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// desk is a home with a boot image and a context, and mica to run in it.
type desk struct {
	*testing.T
	dir string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t, t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mica", fakeqemu.Program} { // the test binary is both, by its name
		if err := os.Symlink(self, filepath.Join(d.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(d.dir, "boot.iso"), drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"}), 0o600),
		os.WriteFile(filepath.Join(d.dir, "some.context"), []byte("[amiconfig]\nplugins=hostname\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = d.mica("destroy", "--force", "m").CombinedOutput() })
	return d
}

func (d *desk) mica(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(d.Context()), filepath.Join(d.dir, "mica"), args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "MICA_HOME="+filepath.Join(d.dir, "home"), "PATH="+d.dir+":"+os.Getenv("PATH"))
	return cmd
}

func (d *desk) create(more ...string) *exec.Cmd {
	return d.mica(append([]string{"create", "m", "some.context", "--image", "boot.iso", "--unverified", "--accel", "tcg", "--memory", "64", "--disk", "64M"}, more...)...)
}

func (d *desk) names() string {
	d.Helper()
	out, err := d.mica("list", "-o", "name").Output()
	if err != nil {
		d.Fatal(err)
	}
	return string(out)
}

// screen is a terminal with a program on it.
type screen struct {
	t   *testing.T
	tty *os.File
	cmd *exec.Cmd

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (d *desk) onTerminal(cmd *exec.Cmd) *screen {
	d.Helper()
	tty, err := pty.Start(cmd)
	if err != nil {
		d.Fatal(err)
	}
	s := &screen{t: d.T, tty: tty, cmd: cmd}
	d.Cleanup(func() { _ = tty.Close() })
	go func() {
		buf := make([]byte, 1024)
		for {
			n, err := tty.Read(buf)
			s.mu.Lock()
			s.out.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

func (s *screen) shows(want string) {
	s.t.Helper()
	for until := time.Now().Add(30 * time.Second); !strings.Contains(s.text(), want); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			s.t.Fatalf("the terminal shows %q, want %q in it", s.text(), want)
		}
	}
}

func (s *screen) types(keys string) {
	s.t.Helper()
	if _, err := s.tty.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) ends(code int) {
	s.t.Helper()
	_ = s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d; the terminal shows %q", got, code, s.text())
	}
}

func TestConsoleAndDestroyOnATerminal(t *testing.T) {
	d := newDesk(t)
	if out, err := d.create("--no-wait").CombinedOutput(); err != nil {
		t.Fatalf("create: %v\n%s", err, out)
	}
	s := d.onTerminal(d.mica("console", "m"))
	s.shows("Ctrl-] ends it")
	s.types("q\x03z") // Ctrl-C belongs to the guest
	s.shows("\x03")
	s.types("\x1d")
	s.ends(0)

	s = d.onTerminal(d.mica("destroy", "m"))
	s.shows("m is running. Destroy it and its disk? [y/N]")
	s.types("\n")
	s.ends(0)
	s.shows("left as it was")
	if got := d.names(); got != "m\n" {
		t.Errorf("machines = %q, want m", got)
	}
	s = d.onTerminal(d.mica("destroy", "m"))
	s.shows("[y/N]")
	s.types("y\n")
	s.ends(0)
	if got := d.names(); got != "" {
		t.Errorf("machines = %q, want none", got)
	}
}

// TestInterruptedWait sees that Ctrl-C ends the wait and leaves the machine.
func TestInterruptedWait(t *testing.T) {
	d := newDesk(t)
	cmd := d.create()
	s := d.onTerminal(cmd)
	record := filepath.Join(d.dir, "home", "machines", "m", "record.json")
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if data, err := os.ReadFile(record); err == nil && bytes.Contains(data, []byte(`"complete"`)) {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no machine")
		}
	}
	time.Sleep(200 * time.Millisecond) // from the last write to the wait
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	s.ends(130)
	s.shows(`no longer waiting for "m", which goes on`)
	s.shows("mica destroy --force m")
	if out, err := d.mica("list").Output(); err != nil || !strings.Contains(string(out), "running") {
		t.Errorf("list = %v\n%s\nwant m running", err, out)
	}
}
