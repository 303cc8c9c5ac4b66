package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/stage"
)

// ANSI colours of the original.
const (
	plain  = "\x1b[0m"
	bold   = "\x1b[1;37m"
	green  = "\x1b[0;32m"
	yellow = "\x1b[0;33m"
	red    = "\x1b[0;31m"
)

// Console writes events and lines. Its methods may be called concurrently.
type Console struct {
	human io.Writer
	event []io.Writer
	log   io.Writer // kernel log, may be nil
	quiet func(on bool)

	queue   chan message
	done    chan struct{}
	mu      sync.Mutex // guards dropped, closed
	dropped int
	closed  bool
}

type message struct {
	text  string
	event bool
	log   string
	flush chan struct{}
}

// New starts a console over the given writers: one for people, those for
// events, and the kernel log (nil for none). Close ends it. quiet is called
// around each piece of output to keep others off the line; nil does nothing.
func New(human io.Writer, events []io.Writer, log io.Writer, quiet func(on bool)) *Console {
	if quiet == nil {
		quiet = func(bool) {}
	}
	c := &Console{human: human, event: events, log: log, quiet: quiet, queue: make(chan message, 256), done: make(chan struct{})}
	go c.write()
	return c
}

// Open starts the console of this machine: people read /dev/console, events go
// to every serial console of the kernel command line and to ttyS0 if there is
// one. What cannot be opened is left out: a guest without a serial port boots
// too.
func Open(dev string, names []string) *Console {
	var events []io.Writer
	if !slices.Contains(names, "ttyS0") {
		names = append(names, "ttyS0")
	}
	for _, name := range names {
		if !serial(name) {
			continue
		}
		// ttyS1…3 exist as device files on machines that have no such port.
		if line, err := openLine(filepath.Join(dev, name)); err == nil {
			events = append(events, line)
		}
	}
	var human io.Writer = io.Discard
	if f, err := os.OpenFile(filepath.Join(dev, "console"), os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		human = f
	}
	var log io.Writer
	if f, err := os.OpenFile(filepath.Join(dev, "kmsg"), os.O_WRONLY, 0); err == nil {
		log = f
	}
	return New(human, events, log, hush)
}

// line is a serial line. When the session of a shell on it ends, the kernel
// hangs it up for everyone who has it open, this process too: it is then opened
// again.
type line struct {
	path string
	f    *os.File
}

func openLine(path string) (*line, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &line{path, f}, nil
}

// Write implements io.Writer.
func (l *line) Write(p []byte) (int, error) {
	n, err := l.f.Write(p)
	if !errors.Is(err, unix.EIO) {
		return n, err
	}
	again, err := openLine(l.path)
	if err != nil {
		return 0, err
	}
	_ = l.f.Close()
	l.f = again.f
	return l.f.Write(p)
}

// drain waits until the line has sent its output.
func (l *line) drain() { _ = unix.IoctlSetInt(int(l.f.Fd()), unix.TCSBRK, 1) }

// serial reports whether a console device is a serial line or its like, rather
// than a screen.
func serial(name string) bool {
	for _, prefix := range []string{"ttyS", "ttyAMA", "ttyUSB", "hvc", "ttysclp", "xvc"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// hush keeps kernel messages off the consoles, or lets them through again.
func hush(on bool) {
	action := unix.SYSLOG_ACTION_CONSOLE_ON
	if on {
		action = unix.SYSLOG_ACTION_CONSOLE_OFF
	}
	_, _ = unix.Klogctl(action, nil)
}

// Event writes a stage event.
func (c *Console) Event(e stage.Event) {
	c.put(message{text: e.Line(), event: true, log: e.Stage + " " + string(e.State) + " " + oneLine(e.Detail)})
}

// Step writes the line of a step that is over: "[INF] text... check".
func (c *Console) Step(text, result string, ok bool) {
	colour := green
	if !ok {
		colour = red
	}
	c.put(message{text: fmt.Sprintf("\r%s[INF]%s %s...%s %s%s\r\n", bold, plain, text, colour, result, plain)})
}

// Info writes a line of its kind, as Warn and Error do.
func (c *Console) Info(format string, args ...any) { c.say("INF", bold, format, args...) }

// Warn writes a warning.
func (c *Console) Warn(format string, args ...any) { c.say("WRN", yellow, format, args...) }

// Error writes an error.
func (c *Console) Error(format string, args ...any) { c.say("ERR", red, format, args...) }

func (c *Console) say(mark, colour, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.put(message{
		text: fmt.Sprintf("\r%s[%s]%s %s\r\n", colour, mark, plain, strings.ReplaceAll(Printable(text), "\n", "\r\n      ")),
		log:  mark + " " + oneLine(text),
	})
}

// Text writes text as it is, for a menu or a prompt.
func (c *Console) Text(text string) {
	c.put(message{text: strings.ReplaceAll(text, "\n", "\r\n")})
}

// Flush waits until everything so far is written, or ctx ends.
func (c *Console) Flush(ctx context.Context) {
	m := message{flush: make(chan struct{})}
	for !c.offer(m) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return
		case <-c.done:
			return
		}
	}
	select {
	case <-m.flush:
	case <-ctx.Done():
	case <-c.done:
	}
}

// Close writes what is left and ends the console, but waits no longer than a
// second. What is written afterwards is dropped.
func (c *Console) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Flush(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.queue)
	}
}

// Dropped returns how many pieces of output did not fit in the queue.
func (c *Console) Dropped() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

func (c *Console) put(m message) {
	if !c.offer(m) {
		c.mu.Lock()
		c.dropped++
		c.mu.Unlock()
	}
}

// offer puts a message into the queue if the console is open and has room.
func (c *Console) offer(m message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	select {
	case c.queue <- m:
		return true
	default:
		return false
	}
}

func (c *Console) write() {
	defer close(c.done)
	for m := range c.queue {
		if m.flush != nil {
			close(m.flush)
			continue
		}
		c.quiet(true)
		if m.event {
			for _, w := range c.event {
				_, _ = io.WriteString(w, m.text)
				drain(w)
			}
		} else {
			_, _ = io.WriteString(c.human, m.text)
			drain(c.human)
		}
		c.quiet(false)
		if c.log != nil && m.log != "" {
			// Priority debug: in dmesg, but on no console unless asked for.
			_, _ = io.WriteString(c.log, "<7>mica: "+m.log)
		}
	}
}

// drain waits until a terminal has sent its output: only then may the kernel
// speak again.
func drain(w io.Writer) {
	switch t := w.(type) {
	case *line:
		t.drain()
	case *os.File:
		_ = unix.IoctlSetInt(int(t.Fd()), unix.TCSBRK, 1)
	}
}

// Printable replaces control characters other than line breaks: text that came
// from outside must not steer a terminal.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		return '?'
	}, text)
}

func oneLine(text string) string {
	const most = 800 // a kernel log record holds 1 KiB
	text = strings.ReplaceAll(Printable(text), "\n", " | ")
	return text[:min(len(text), most)]
}
