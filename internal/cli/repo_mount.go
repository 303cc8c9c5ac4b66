package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/config"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/talk"
	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
)

// readyFD is where a mount in the background reports to.
const readyFD = 3

func newRepoMount(a *app) *cobra.Command {
	f := mountFlags{repoSource: repoSource{mounting: true}}
	var foreground bool
	cmd := &cobra.Command{
		Use:   "mount URL|DIR|NAME MOUNTPOINT",
		Short: "Mount a repository",
		Long: `Mount a repository, read-only, at an existing directory. It follows the newest
revision unless --tag, --date or --root-hash fix one. Unmount it with umount.
Mounting takes root.

With --record the file system's end is also that of a list of what was read through
it, in order, as far as it came from the repository: a profile, which 'mica repo
profile attach' puts beside the repository and 'mica repo slice' makes a disk of.

The mount answers the commands of 'mica repo talk' at a socket in its cache
directory.`,
		Example: `  mica repo mount http://cvmfs.example.org/cvmfs/sw.example.org /mnt --key sw.example.org.pub
  mica repo mount /srv/cvmfs/sw.example.org /mnt --key sw.example.org.pub --tag stable`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !foreground && !f.child {
				return mountInBackground(cmd.Context(), a)
			}
			return mountHere(cmd.Context(), a, &f, args)
		},
	}
	f.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&foreground, "foreground", false, "stay in the foreground; the mount ends with Ctrl-C")
	flags.BoolVar(&f.suid, "suid", false, "honour setuid bits and file capabilities")
	flags.BoolVar(&f.private, "private", false, "let nobody but the mounting user in")
	flags.BoolVar(&f.claim, "claim-ownership", false, "show all files as belonging to the mounting user")
	flags.BoolVar(&f.countOpens, "count-opens", false, "count what is opened, for 'mica repo talk' and attributes; each opening then takes longer")
	flags.StringVar(&f.uidMap, "uid-map", "", "file of lines 'UID UID': who owns files, and who is shown; * stands for all others")
	flags.StringVar(&f.gidMap, "gid-map", "", "the same for groups")
	flags.StringVar(&f.record, "record", "", "file for a profile of what is read, written when the mount ends")
	flags.BoolVar(&f.child, "background-child", false, "")
	_ = flags.MarkHidden("background-child")
	return cmd
}

// mountFlags are those of 'repo mount'.
type mountFlags struct {
	repoSource
	suid, private, claim, child, countOpens bool
	uidMap, gidMap, record                  string
}

// owners says whom files are shown to belong to.
func (f *mountFlags) owners() (o client.Owners, err error) {
	o.UIDs, o.GIDs, o.WorldReadable = client.IDMap(f.conf.UIDs), client.IDMap(f.conf.GIDs), f.conf.WorldReadable
	for file, to := range map[string]*client.IDMap{f.uidMap: &o.UIDs, f.gidMap: &o.GIDs} {
		if file == "" {
			continue
		}
		m, err := config.ReadIDMap(file)
		if err != nil {
			return o, fail.New(fail.Usage, "%w", err)
		}
		*to = client.IDMap(m)
	}
	if f.claim || f.conf.ClaimOwnership && !f.given("claim-ownership") && f.uidMap+f.gidMap == "" {
		o.Claim = &client.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())} //nolint:gosec // never negative here
	}
	return o, nil
}

// open opens the repository for a mount.
func (f *mountFlags) open(ctx context.Context, a *app, source string) (*client.Repository, error) {
	opt, err := f.options(a, source)
	if err != nil {
		return nil, err
	}
	if opt.Owners, err = f.owners(); err != nil {
		return nil, err
	}
	if f.record != "" {
		opt.Record = profile.MaxObjects
		if f.record, err = filepath.Abs(f.record); err != nil {
			return nil, err
		}
	}
	return a.openRepository(ctx, opt)
}

// mountHere mounts and stays until the file system is unmounted or ctx ends.
func mountHere(ctx context.Context, a *app, f *mountFlags, args []string) error {
	var ready *os.File
	if f.child { // the terminal's signals are not meant for it
		signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
		ready = os.NewFile(readyFD, "ready")
	}
	lines := &mount.LogBuffer{}
	a.log = slog.New(lines.Handler(a.log.Handler()))
	r, err := f.open(ctx, a, args[0])
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was written but a cache
	if limit, err := mount.RaiseFileLimit(f.conf.Files); err != nil {
		_, _ = fmt.Fprintf(a.Err, "mica: no more than %d files can be open in this mount, CVMFS_NFILES wants %d: %v\n", limit, f.conf.Files, err)
	}
	m, err := mount.Mount(ctx, r, args[1], mount.Options{
		AllowOther: !f.private, Suid: f.suid || f.conf.Suid, Unchecked: f.conf.Unchecked, KernelTimeout: f.conf.KernelTimeout,
		CountOpens: f.countOpens || f.conf.Timed, Timed: f.conf.Timed, Visible: visible[f.conf.MagicListed], LogBuffer: lines, Log: a.log,
	})
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fail.New(fail.HostLacks, "%w", err).Hint("mounting takes root; 'mica repo ls' and 'mica repo get' do not")
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOTDIR):
		return fail.New(fail.HostLacks, "%w", err).Hint("check that %s is a directory and that /dev/fuse is there", args[1])
	case err != nil:
		return err
	}
	_, _ = fmt.Fprintf(a.Err, "mica: revision %d of %s mounted at %s\n", r.Revision(), r.Name(), args[1])
	following, stop := context.WithCancel(ctx)
	var follower sync.WaitGroup
	defer a.answer(following, f, talk.Commands{Repository: r, Mount: m, Mountpoint: args[1], Log: a.log})()
	defer follower.Wait()
	defer stop()
	if ready != nil {
		if err := leaveTerminal(); err != nil {
			return errors.Join(err, m.Unmount())
		}
		_, _ = io.WriteString(ready, "ready\n")
		_ = ready.Close()
	}
	if !r.Pinned() && !f.conf.Frozen {
		follower.Go(func() { r.Follow(following) })
	}
	select {
	case <-m.Done():
		return writeRecord(f.record, r)
	case <-ctx.Done():
	}
	if err := m.Unmount(); err != nil {
		return fail.New(fail.Conflict, "%w", err).Hint("close what is open below %s, then run umount", args[1])
	}
	return writeRecord(f.record, r)
}

// visible is what the configuration's words mean to a mount.
var visible = map[config.Listing]mount.Visibility{
	config.ListedAsUsual: mount.Hidden, config.ListedNever: mount.Hidden, config.ListedOnRoot: mount.RootOnly, config.ListedEverywhere: mount.Everywhere,
}

// answer opens the control socket of a mount and returns what closes it, which is
// called after ctx has ended. A mount without one is still a mount.
func (a *app) answer(ctx context.Context, f *mountFlags, c talk.Commands) (done func()) {
	var lines strings.Builder
	for _, v := range f.values { // Compat: the original's form (cvmfs: cvmfs/options.cc)
		fmt.Fprintf(&lines, "%s=%s    # from %s\n", v.Name, v.Value, v.Origin)
	}
	c.Parameters = lines.String()
	if abs, err := filepath.Abs(c.Mountpoint); err == nil {
		c.Mountpoint = abs
	}
	control, err := talk.ListenBeside(c.Repository.CacheDir(), c.Repository.Name())
	if err != nil {
		_, _ = fmt.Fprintf(a.Err, "mica: this mount does not answer 'mica repo talk': %v\n", err)
		return func() {}
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { control.Serve(ctx, a.log, c.Answer) })
	return func() {
		if err := control.Close(); err != nil {
			a.log.Warn("closing the control socket", "err", err)
		}
		tasks.Wait()
	}
}

// writeRecord writes what a mount has read to a file, if one is named.
func writeRecord(file string, r *client.Repository) error {
	if file == "" {
		return nil
	}
	return atomicfile.Write(file, r.Recorded().Text(), 0o644)
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
