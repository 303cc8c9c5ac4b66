package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/switchroot"
	"github.com/micavm/mica/internal/fail"
)

// handOver makes everything ready for the operating system: it checks that there
// is an init before anything is given up, and tells the system what it must know.
// The switch itself is leave's, after the last event is out.
func handOver(ctx context.Context, s *state, r *report) error {
	wanted, _ := s.cmd.Get("init")
	init, err := switchroot.FindInit(targetRoot, wanted)
	if err != nil {
		return fail.New(fail.NotFound, "%w", err).
			Hint("cernvm_path names the folder of the repository that is the root of an operating system; publish that tree whole, with its links")
	}
	s.init = init
	if err := adapt(s, r); err != nil {
		s.rec.note("%v", err)
		s.con.Warn("%v", err)
	}
	if s.cmd.Flag("cvmdebug") {
		s.con.Info("Debug mode: the operating system's root is %s. reset_root_password sets a new password for root; exit goes on with the boot.", targetRoot)
		if err := s.debugShell(ctx); err != nil {
			s.con.Error("%v", err)
		}
	}
	r.fact("init", init)
	r.say("%s", init)
	return nil
}

// leave switches to the operating system's root and becomes its init. It
// returns only if that failed.
func (s *state) leave(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s.con.Flush(ctx)
	// Terminals of the initramfs would be stale in the new one.
	_ = unix.Unmount("/dev/pts", unix.MNT_DETACH)
	if err := switchroot.Move(targetRoot, []string{"/run", "/dev", "/proc", "/sys"}); err != nil {
		return err
	}
	old, err := switchroot.Enter(targetRoot)
	if err != nil {
		return err
	}
	_ = takeConsole("/dev")
	if err := switchroot.Free(old); err != nil && !errors.Is(err, switchroot.ErrNotRAM) {
		s.rec.note("%v", err)
	}
	_ = old.Close()
	env := []string{"HOME=/", "TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range []string{"LANG", "TERM"} {
		if value, ok := s.cmd.Get(name); ok {
			env = append(env, name+"="+value)
		}
	}
	argv := append([]string{s.init}, args...)
	err = again(func() error {
		return syscall.Exec(s.init, argv, env)
	})
	return fmt.Errorf("running %s: %w", s.init, err)
}

// writePIDs leaves the numbers of the repository's processes where halt scripts of
// SysV systems look for whom to spare. Compat: cernvm-micro: 30cvmfs-save-pids.
func writePIDs(file string, pids ...int) error {
	var b strings.Builder
	for _, pid := range pids {
		b.WriteString(strconv.Itoa(pid) + "\n")
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(file), err)
	}
	return nil
}
