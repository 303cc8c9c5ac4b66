package reap

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Grace is how long a zombie may belong to somebody.
const Grace = 5 * time.Second

// Reaper collects orphans. Make one with New; one goroutine runs it.
type Reaper struct {
	proc  string
	self  int
	grace time.Duration
	now   func() time.Time
	seen  map[int]time.Time // zombies, with the moment they were first seen
}

// New returns a reaper for the children of this process.
func New() *Reaper {
	return &Reaper{proc: "/proc", self: os.Getpid(), grace: Grace, now: time.Now, seen: map[int]time.Time{}}
}

// Run collects until ctx ends.
func (r *Reaper) Run(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	defer signal.Stop(signals)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		case <-tick.C:
		}
		r.Pass()
	}
}

// Pass looks once and returns the processes it collected.
func (r *Reaper) Pass() []int {
	zombies := Zombies(r.proc, r.self)
	now := r.now()
	still := map[int]time.Time{}
	var collected []int
	for _, pid := range zombies {
		first, known := r.seen[pid]
		if !known {
			first = now
		}
		if now.Sub(first) < r.grace {
			still[pid] = first
			continue
		}
		if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err == nil && got == pid {
			collected = append(collected, pid)
		}
	}
	r.seen = still
	return collected
}

// Zombies returns the ended, uncollected children of a process.
func Zombies(proc string, parent int) []int {
	names, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var pids []int
	for _, d := range names {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(proc, d.Name(), "stat"))
		if err != nil {
			continue
		}
		if state, ppid, ok := parseStat(data); ok && state == 'Z' && ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parseStat reads state and parent from /proc/<pid>/stat, whose second field is
// a name in parentheses that may hold anything, parentheses too.
func parseStat(data []byte) (state byte, parent int, ok bool) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return 0, 0, false
	}
	f := bytes.Fields(data[end+1:])
	if len(f) < 2 || len(f[0]) != 1 {
		return 0, 0, false
	}
	parent, err := strconv.Atoi(string(f[1]))
	return f[0][0], parent, err == nil
}
