package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs/talk"
	"github.com/micavm/mica/internal/fail"
)

// command answers one request: what only a machine's root has, and what every
// mount has. "status json", "profile" and "quit" are not of the original.
func (p *process) command(ctx context.Context, line string) string {
	switch line {
	case "status json":
		text, err := json.Marshal(p.state())
		if err != nil {
			return err.Error()
		}
		return string(text)
	case "profile":
		return string(p.repo.Recorded().Text())
	case "remount", "remount sync":
		return "Catalog up to date" // the revision of a machine's root never changes
	case "quit":
		// After the reply; the process would be gone before it otherwise.
		time.AfterFunc(50*time.Millisecond, func() { p.quit(errors.New("told to quit")) })
		return "OK"
	}
	c := talk.Commands{Repository: p.repo, Mount: p.fuse, Mountpoint: p.config.Mountpoint, Log: p.log}
	return c.Answer(ctx, line)
}

func (p *process) state() Status {
	stats := p.repo.Stats()
	return Status{
		RootHash: p.repo.RootHash().String(), Tag: p.repo.Tag(), Revision: p.repo.Revision(),
		Objects: stats.Objects, Bytes: stats.Bytes, Sliced: stats.Sliced, Ahead: stats.Ahead, PeakMemory: p.peakMemory(),
		Profile: p.prefetched.Load(),
	}
}

// peakMemory is VmHWM, 0 if it cannot be told. The limit of getrusage would
// include what the parent had in use when it started this process.
func (p *process) peakMemory() int64 {
	if p.status == nil {
		return 0
	}
	buf := make([]byte, 8<<10)
	n, err := p.status.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	for line := range strings.Lines(string(buf[:n])) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// Talk sends one command to the process that serves the cache directory and
// returns its reply without the last line break.
func Talk(ctx context.Context, cacheDir, command string) (string, error) {
	sockets, err := talk.Sockets(cacheDir)
	if err != nil || len(sockets) == 0 {
		return "", fail.New(fail.NotFound, "no repository process serves %s", cacheDir).Hint("mount the repository first")
	}
	var all error
	for _, socket := range sockets { // more than one only if a process was killed
		reply, err := talk.Send(ctx, socket, command)
		if err == nil {
			return reply, nil
		}
		all = errors.Join(all, err)
	}
	return "", fmt.Errorf("asking the repository process: %w", all)
}

// ReadStatus asks the process that serves the cache directory.
func ReadStatus(ctx context.Context, cacheDir string) (Status, error) {
	reply, err := Talk(ctx, cacheDir, "status json")
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := json.Unmarshal([]byte(reply), &s); err != nil {
		return Status{}, fmt.Errorf("asking the repository process: it answered %.200q: %w", reply, err)
	}
	return s, nil
}

// TearDown makes the process stop writing to the cache, so that the file system
// below it can be remounted read-only while reading goes on.
func TearDown(ctx context.Context, cacheDir string) error {
	reply, err := Talk(ctx, cacheDir, "tear down to read-only")
	if err == nil && reply != "In read-only mode" {
		err = fmt.Errorf("asking the repository process to stop writing: it answered %.200q", reply)
	}
	return err
}
