package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// diskNames are the ends of the names of files that hold what a machine wrote.
var diskNames = []string{".vdi", ".vmdk", ".vhd", ".hdd", ".qcow2", ".raw", ".sav"}

// prune removes, after a question, what is left of machines that were never
// finished, and of those that their platform does not know any more. One whose
// disk is still there is only spoken of: a platform that does not answer for a
// machine today may do so tomorrow.
//
// Differs: the original has no such operation. It drops the records of all
// machines that VirtualBox does not list, at each command and without a word.
func (s *session) prune(ctx context.Context, args []string) error {
	force := len(args) == 1 && args[0] == optForce
	if len(args) > 0 && !force {
		return usage("Invalid arguments: 'prune' takes %s or nothing", optForce)
	}
	all, err := s.records()
	if err != nil {
		return err
	}
	var left []*record
	for _, r := range all {
		why, err := s.prunable(ctx, r)
		switch {
		case err != nil:
			s.tell("note: skipping %s: %s", r.name(), oneLine(err.Error()))
		case why != "":
			s.say("%s: %s", r.name(), why)
			left = append(left, r)
		}
	}
	if len(left) == 0 {
		return nil
	}
	if !force {
		answer, err := s.ask(ctx, "Do you really want to remove what is left of them? [y/N]: ")
		if err != nil || !yes(answer) {
			return err
		}
	}
	var failed []error
	for _, r := range left {
		failed = append(failed, s.pruneOne(ctx, r))
	}
	return errors.Join(failed...)
}

// prunable says why a record can go, or nothing. A machine that another command
// is at work on is left out.
func (s *session) prunable(ctx context.Context, r *record) (string, error) {
	if r.values[micaPhase] != "" {
		free, err := s.tryLock(recordPrefix + r.id + lockSuffix)
		if errors.Is(err, atomicfile.ErrLocked) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		free()
		return "half made or half destroyed", nil
	}
	state, err := s.state(ctx, r)
	if err != nil || state != machine.Absent {
		return "", err
	}
	disk, err := holdsDisk(r.folder())
	if err != nil {
		return "", err
	}
	if disk != "" {
		return "", fail.New(fail.Conflict, "%s does not know it, but its disk is there: %s", r.driver(), disk)
	}
	return "gone from " + r.driver(), nil
}

// pruneOne removes what is left of a machine, if that still is so under its lock.
func (s *session) pruneOne(ctx context.Context, was *record) error {
	free, err := s.lock(ctx, recordPrefix+was.id+lockSuffix, "machine "+was.name())
	if err != nil {
		return err
	}
	defer free()
	r, err := readRecord(s.runDir(), was.id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	h := &held{record: r}
	if h.driver, err = s.Drivers.Get(r.driver()); err != nil {
		return err
	}
	if r.values[micaPhase] == "" {
		state, err := s.state(ctx, r)
		if err != nil {
			return fmt.Errorf("asking for the state of %q: %w", r.name(), err)
		}
		if state != machine.Absent {
			return nil
		}
	}
	return s.clear(ctx, h)
}

// holdsDisk returns the path of a disk below dir, or nothing.
func holdsDisk(dir string) (string, error) {
	found := ""
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !e.IsDir() && slices.Contains(diskNames, strings.ToLower(filepath.Ext(path))):
			found = path
			return fs.SkipAll
		}
		return nil
	})
	return found, err
}
