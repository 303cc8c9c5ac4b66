package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/fail"
)

// readyFD is where a mount in the background reports to.
const readyFD = 3

func newRepoMount(a *app) *cobra.Command {
	var s repoSource
	var foreground, suid, private, child bool
	cmd := &cobra.Command{
		Use:   "mount URL|DIR|NAME MOUNTPOINT",
		Short: "Mount a repository",
		Long: `Mount a repository, read-only, at an existing directory. It follows the newest
revision unless --tag or --root-hash fix one. Unmount it with umount. Mounting
takes root.`,
		Example: `  mica repo mount http://cvmfs.example.org/cvmfs/sw.example.org /mnt --key sw.example.org.pub
  mica repo mount /srv/cvmfs/sw.example.org /mnt --key sw.example.org.pub --tag stable`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !foreground && !child {
				return mountInBackground(cmd.Context(), a)
			}
			return mountHere(cmd.Context(), a, &s, args, mount.Options{AllowOther: !private, Suid: suid, Log: a.log}, child)
		},
	}
	s.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&foreground, "foreground", false, "stay in the foreground; the mount ends with Ctrl-C")
	f.BoolVar(&suid, "suid", false, "honour setuid bits and file capabilities")
	f.BoolVar(&private, "private", false, "let nobody but the mounting user in")
	f.BoolVar(&child, "background-child", false, "")
	_ = f.MarkHidden("background-child")
	return cmd
}

// mountHere mounts and stays until the file system is unmounted or ctx ends.
func mountHere(ctx context.Context, a *app, s *repoSource, args []string, opt mount.Options, child bool) error {
	var ready *os.File
	if child { // the terminal's signals are not meant for it
		signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
		ready = os.NewFile(readyFD, "ready")
	}
	r, err := s.open(ctx, a, args[0])
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was written but a cache
	m, err := mount.Mount(ctx, r, args[1], opt)
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fail.New(fail.HostLacks, "%w", err).Hint("mounting takes root; 'mica repo ls' and 'mica repo get' do not")
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENODEV):
		return fail.New(fail.HostLacks, "%w", err).Hint("check that %s is a directory and that /dev/fuse is there", args[1])
	case err != nil:
		return err
	}
	_, _ = fmt.Fprintf(a.Err, "mica: revision %d of %s mounted at %s\n", r.Revision(), r.Name(), args[1])
	if ready != nil {
		if err := leaveTerminal(); err != nil {
			return errors.Join(err, m.Unmount())
		}
		_, _ = io.WriteString(ready, "ready\n")
		_ = ready.Close()
	}
	following, stop := context.WithCancel(ctx)
	var follower sync.WaitGroup
	if !r.Pinned() {
		follower.Go(func() { r.Follow(following, nil) })
	}
	defer follower.Wait()
	defer stop()
	select {
	case <-m.Done():
		return nil
	case <-ctx.Done():
	}
	if err := m.Unmount(); err != nil {
		return fail.New(fail.Conflict, "%w", err).Hint("close what is open below %s, then run umount", args[1])
	}
	return nil
}

// leaveTerminal gives up the standard error of the command that started this
// process: whoever reads a pipe to its end would wait for the mount's.
func leaveTerminal() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("going to the background: %w", err)
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), int(os.Stderr.Fd()), 0); err != nil {
		return fmt.Errorf("going to the background: %w", err)
	}
	return nil
}

// mountInBackground runs the same command line in a process of its own and waits
// until its mount stands.
func mountInBackground(ctx context.Context, a *app) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("starting the mount: %w", err)
	}
	receive, send, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting the mount: %w", err)
	}
	defer receive.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("starting the mount: %w", err)
	}
	defer null.Close()
	process, err := os.StartProcess(exe, append(append([]string{}, os.Args...), "--background-child"), &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{null, null, os.Stderr, send},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	_ = send.Close()
	if err != nil {
		return fmt.Errorf("starting the mount: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = process.Kill() })
	defer stop()
	word, err := io.ReadAll(io.LimitReader(receive, 64))
	if err == nil && strings.TrimSpace(string(word)) == "ready" {
		return process.Release()
	}
	state, waitErr := process.Wait()
	if waitErr != nil {
		return fmt.Errorf("starting the mount: %w", errors.Join(err, waitErr))
	}
	return exitCode(max(1, state.ExitCode())) // it has said why on standard error
}
