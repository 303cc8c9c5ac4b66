package mount

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// callers tells whether who waits for an answer is being killed.
//
// The kernel announces every signal that reaches a waiting process, and passes
// the answer EINTR on to whatever the process was doing. Programs do not expect
// that of regular files: execve(2) fails, and a page that was not read is a bus
// error. So a request goes on as if nothing had happened, unless the caller is
// about to die: then the kernel holds it until there is an answer, and it should
// not have to wait for the network.
type callers struct{ proc *os.Root }

// newCallers keeps /proc open: in a guest its name is gone when it is needed.
func newCallers() callers {
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		return callers{} // nobody looks killed, and everybody waits within the client's limits
	}
	return callers{proc}
}

func (c callers) close() {
	if c.proc != nil {
		_ = c.proc.Close()
	}
}

// killed reports whether SIGKILL is pending for the thread, which is also how
// the kernel marks the threads of a process that another fatal signal ends.
func (c callers) killed(thread uint32) bool {
	if c.proc == nil || thread == 0 { // 0 is a thread of another process namespace
		return false
	}
	status, err := c.proc.ReadFile(strconv.FormatUint(uint64(thread), 10) + "/status")
	if err != nil {
		return os.IsNotExist(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		const sigkill = 1 << (9 - 1)
		if set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil && set&sigkill != 0 {
			return true
		}
	}
	return false
}

// patient returns the context of a request, which ends when its caller is being
// killed. The function it returns frees what watches.
func (c callers) patient(cancel <-chan struct{}, thread uint32) (context.Context, context.CancelFunc) {
	p := &patience{callers: c, cancel: cancel, thread: thread, done: make(chan struct{}), over: make(chan struct{})}
	return p, sync.OnceFunc(func() { close(p.over) })
}

// patience is the context of one request. It begins to watch when somebody waits
// for it: most requests are answered from memory and never do.
type patience struct {
	callers callers
	cancel  <-chan struct{}
	thread  uint32
	once    sync.Once
	done    chan struct{} // closed when the caller is being killed
	over    chan struct{} // closed when the request is answered
}

func (p *patience) Deadline() (time.Time, bool) { return time.Time{}, false }
func (p *patience) Value(any) any               { return nil }

func (p *patience) Done() <-chan struct{} {
	p.once.Do(func() { go p.watch() })
	return p.done
}

func (p *patience) Err() error {
	select {
	case <-p.done:
		return context.Canceled
	default:
		return nil
	}
}

func (p *patience) watch() {
	select {
	case <-p.over:
		return
	case <-p.cancel:
	}
	// The kernel announces the first signal only, so look again.
	const again = 100 * time.Millisecond
	for !p.callers.killed(p.thread) {
		select {
		case <-p.over:
			return
		case <-time.After(again):
		}
	}
	close(p.done)
}
