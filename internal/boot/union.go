package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
)

// mountUnion lays the machine's own files over the repository's, and moves both
// sides into the result, where the running system finds them.
func mountUnion(_ context.Context, s *state, _ *report) error {
	if !isMountPoint(targetRoot) {
		lower := filepath.Join(readOnly, s.set.Path)
		if err := checkLower(lower, s.set.Path); err != nil {
			return err
		}
		s.load("overlay")
		if err := overlay(lower, s.rw("persistent"), s.rw("ovlwork"), targetRoot); err != nil {
			return err
		}
	}
	if err := os.Chmod(targetRoot, 0o755); err != nil {
		return fmt.Errorf("opening the root folder to everyone: %w", err)
	}
	for _, side := range []struct{ from, to string }{
		{readOnly, filepath.Join(targetRoot, "mnt/.ro")},
		{readWrite, filepath.Join(targetRoot, "mnt/.rw")},
	} {
		if err := os.MkdirAll(side.to, 0o755); err != nil {
			return fmt.Errorf("making %s: %w", side.to, err)
		}
		if !isMountPoint(side.from) {
			continue // moved by an earlier try
		}
		if err := again(func() error { return unix.Mount(side.from, side.to, "", unix.MS_MOVE, "") }); err != nil {
			return fmt.Errorf("moving %s to %s: %w", side.from, side.to, err)
		}
	}
	s.rwDir = filepath.Join(targetRoot, "mnt/.rw")
	return nil
}

// overlay mounts the union. Every option is given, since distributions build
// their kernels with different defaults: index and nfs_export would tie the upper
// side to one snapshot, metacopy and redirect_dir would leave files there that
// mean nothing without the lower side.
func overlay(lower, upper, work, target string) error {
	options := []string{
		"lowerdir=" + escapeOption(lower), "upperdir=" + escapeOption(upper), "workdir=" + escapeOption(work),
		"redirect_dir=off", "index=off", "metacopy=off", "xino=auto",
	}
	err := again(func() error { return unix.Mount("mica", target, "overlay", 0, strings.Join(options, ",")) })
	if err != nil {
		return fail.New(fail.Failed, "mounting the union file system: %w", err).
			Hint("look at the kernel's messages in the debug shell: dmesg | tail")
	}
	return nil
}

// escapeOption escapes what separates options and layers.
func escapeOption(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(path)
}

// checkLower makes sure that the folder of the operating system is there; if it
// is not, the error says what is.
func checkLower(dir, name string) error {
	fi, err := os.Stat(dir)
	if err == nil && fi.IsDir() {
		return nil
	}
	if err == nil {
		err = errors.New("not a folder")
	}
	var there []string
	if entries, rerr := os.ReadDir(readOnly); rerr == nil {
		for _, e := range entries {
			if e.IsDir() && len(there) < 20 {
				there = append(there, e.Name())
			}
		}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fail.New(fail.NotFound, "the folder %q of the repository: %w", "/"+name, err).
		Hint("cernvm_path names the folder that holds the operating system; the repository has: %s", strings.Join(there, ", "))
}

// again repeats a call that was interrupted by a signal, as package os does with
// its own: the file system is a process, waiting for it can be interrupted, and
// the Go runtime sends signals to itself.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
