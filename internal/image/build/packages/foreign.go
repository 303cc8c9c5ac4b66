package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/run"
)

// foreign says that the packages are for other computers than this one. Debian
// and Go call the architectures in question the same.
func (c Cache) foreign() bool { return c.Architecture != "" && c.Architecture != runtime.GOARCH }

// state is where apt's lists of foreign packages are: an absolute path, since apt
// runs in other folders.
func (c Cache) state() string {
	state := filepath.Join(c.Dir, "apt-"+c.Architecture)
	if abs, err := filepath.Abs(state); err == nil {
		return abs
	}
	return state
}

// apt is one of apt's programs. For foreign packages it is one that knows no
// others and has its state in the cache: neither apt's configuration on this
// computer nor dpkg's is changed or asked for it. The archives and their keys are
// this computer's.
func (c Cache) apt(name, dir string, args ...string) run.Command {
	if c.foreign() {
		var options []string
		for _, o := range []string{
			"APT::Architecture=" + c.Architecture, "APT::Architectures=" + c.Architecture, "APT::Sandbox::User=root", "Acquire::Languages=none",
			"Dir::State=" + c.state(), "Dir::State::status=/dev/null", "Dir::Cache=" + filepath.Join(c.state(), "cache"),
		} {
			options = append(options, "-o", o)
		}
		args = append(options, args...)
	}
	return run.Command{Name: name, Args: args, Dir: dir}
}

// Update gets the lists of foreign packages if there are none yet, or anew. Those
// of this computer's own are its administrator's.
func (c Cache) Update(ctx context.Context, anew bool) error {
	if !c.foreign() {
		return nil
	}
	done := filepath.Join(c.state(), "updated")
	if _, err := os.Stat(done); err == nil && !anew {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for package lists: %w", err)
	}
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(c.state(), dir), 0o755); err != nil {
			return fmt.Errorf("making folder for package lists: %w", err)
		}
	}
	l, err := atomicfile.Acquire(ctx, filepath.Join(c.Dir, ".lock"))
	if err != nil {
		return fmt.Errorf("locking package cache: %w", err)
	}
	defer l.Unlock() //nolint:errcheck // nothing depends on it
	progress.Or(c.Progress).Emit(progress.Event{ID: "packages", Phase: "getting the lists of " + c.Architecture})
	// Without this, a list that cannot be had is only warned of.
	if _, err := c.Run.Run(ctx, c.apt("apt-get", "", "update", "-q", "-o", "APT::Update::Error-Mode=any")); err != nil {
		return c.explain(fmt.Errorf("getting package lists of %s: %w", c.Architecture, err))
	}
	if err := atomicfile.Write(done, nil, 0o644); err != nil {
		return fmt.Errorf("noting that package lists are there: %w", err)
	}
	return nil
}
