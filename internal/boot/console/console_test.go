package console

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/tier"
)

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestEventsAreWholeLines(t *testing.T) {
	var human, serial, log buffer
	var shared sync.Mutex // the kernel, which respects quiet
	c := New(&human, []io.Writer{&serial}, &log, func(on bool) {
		if on {
			shared.Lock()
		} else {
			shared.Unlock()
		}
	})
	stop := make(chan struct{})
	var kernel sync.WaitGroup
	kernel.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				shared.Lock()
				_, _ = io.WriteString(&serial, "[ 1.0] noise without a line break")
				shared.Unlock()
			}
		}
	})
	var want []string
	for _, name := range []string{"a", "b", "c"} {
		c.Event(stage.Event{Stage: name, State: stage.Done, Detail: "x\ny"})
		want = append(want, name)
	}
	c.Close()
	close(stop)
	kernel.Wait()
	var got []string
	for _, line := range strings.Split(serial.String(), "\n") {
		if e, ok := stage.Parse(line); ok {
			got = append(got, e.Stage)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events read back (-want +got):\n%s", diff)
	}
	if human.String() != "" {
		t.Errorf("events on the human console: %q", human.String())
	}
	if !strings.HasPrefix(log.String(), "<7>mica: a done x | y") {
		t.Errorf("kernel log = %q", log.String())
	}
}

func TestLines(t *testing.T) {
	var human buffer
	c := New(&human, nil, nil, nil)
	c.Step("Starting networking", "check", true)
	c.Warn("from outside: \x1b[2Jx\ny")
	c.Close()
	text := human.String()
	if !strings.Contains(text, "[INF]\x1b[0m Starting networking...\x1b[0;32m check") {
		t.Errorf("step line = %q", text)
	}
	if strings.Contains(text, "\x1b[2J") || !strings.Contains(text, "?[2Jx\r\n      y") {
		t.Errorf("warning = %q, want the escape defused and the second line indented", text)
	}
}

type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.release; return len(p), nil }

func TestAStoppedTerminalStopsNobody(t *testing.T) {
	s := stuck{make(chan struct{})}
	defer close(s.release)
	c := New(s, nil, nil, nil)
	began := time.Now()
	for range 1000 {
		c.Info("line")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c.Flush(ctx)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("1000 lines on a stuck terminal took %v", took)
	}
	if c.Dropped() == 0 {
		t.Error("Dropped = 0, want more")
	}
}

func TestAsk(t *testing.T) {
	choices := []Choice{{'r', "retry"}, {'b', "reboot"}}
	open, _ := io.Pipe() // never says anything
	for _, tc := range []struct {
		name string
		in   io.Reader
		idle time.Duration
		want byte
	}{
		{"typed", strings.NewReader("R\n"), 0, 'r'},
		{"nonsense first", strings.NewReader("x\n\nretry?\nr\n"), 0, 'r'},
		{"nobody", open, 30 * time.Millisecond, 'b'},
		{"no terminal", strings.NewReader(""), 30 * time.Millisecond, 'b'},
	} {
		var out strings.Builder
		got := Ask(t.Context(), tc.in, func(s string) { out.WriteString(s) }, "What now?", choices, 'b', tc.idle)
		if got != tc.want {
			t.Errorf("%s: Ask = %c, want %c", tc.name, got, tc.want)
		}
		if !strings.Contains(out.String(), "r  retry") {
			t.Errorf("%s: menu = %q", tc.name, out.String())
		}
	}
}

func TestTerminal(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	dir := filepath.Join(sys, "class/tty/console")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ttyS0", "tty1"} {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for active, want := range map[string]string{"tty0 ttyS0\n": "ttyS0", "ttyS0 tty0\n": "tty1", "hvc0\n": "console", "": "console"} {
		if err := os.WriteFile(filepath.Join(dir, "active"), []byte(active), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := filepath.Base(Terminal(sys, dev)); got != want {
			t.Errorf("Terminal with %q = %s, want %s", active, got, want)
		}
	}
}

// TestShellHasItsTerminal checks with a real pseudo terminal that the shell can
// open /dev/tty, which needs a controlling terminal.
func TestShellHasItsTerminal(t *testing.T) {
	sh := tier.Tool(t, "sh")
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	defer tty.Close()
	var out buffer
	go func() { _, _ = io.Copy(&out, ptmx) }()
	err = Shell(t.Context(), []string{sh, "-c", "echo to-the-tty >/dev/tty; exit 3"}, tty.Name(), os.Environ())
	if err != nil {
		t.Errorf("Shell = %v, want no error for exit code 3", err)
	}
	for range 200 {
		if strings.Contains(out.String(), "to-the-tty") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("terminal shows %q, want to-the-tty", out.String())
}

func TestAfterClose(t *testing.T) {
	var human buffer
	c := New(&human, nil, nil, nil)
	c.Info("before")
	c.Close()
	c.Info("after")
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c.Flush(ctx)
	if text := human.String(); !strings.Contains(text, "before") || strings.Contains(text, "after") {
		t.Errorf("console = %q, want what was before Close only", text)
	}
	if c.Dropped() != 1 {
		t.Errorf("Dropped = %d, want 1", c.Dropped())
	}
}

// TestLineSurvivesAHangUp: the end of a shell's session hangs its terminal up.
func TestLineSurvivesAHangUp(t *testing.T) {
	tier.Root(t) // hangs a terminal up
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	var out buffer
	go func() { _, _ = io.Copy(&out, ptmx) }()
	c := Open(filepath.Dir(tty.Name()), nil) // no ttyS0 there: this checks that it is left out
	c.Close()
	l, err := openLine(tty.Name())
	if err != nil {
		t.Fatal(err)
	}
	// What the kernel does to a serial line then; pseudo terminals are spared.
	if err := unix.IoctlSetInt(int(tty.Fd()), unix.TIOCVHANGUP, 0); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close()
	if _, err := l.Write([]byte("still-here\n")); err != nil {
		t.Errorf("Write after the hang-up: %v", err)
	}
	l.drain()
	for range 200 {
		if strings.Contains(out.String(), "still-here") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("terminal shows %q, want still-here", out.String())
}
