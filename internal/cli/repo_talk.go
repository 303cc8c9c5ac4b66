package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/talk"
	"github.com/micavm/mica/internal/fail"
)

func newRepoTalk(a *app) *cobra.Command {
	var cache string
	cmd := &cobra.Command{
		Use:   "talk NAME|DIR COMMAND...",
		Short: "Ask a mounted repository how it is, or tell it what to do",
		Long: `Send a command to the process behind a mount and show its answer. The mount is
given by the name of its repository, by its mountpoint or by its cache directory.

  revision, version, mountpoint, pid, parameters
  remount                    look for a newer revision now
  host info, host switch     servers: which there are, and on to the next
  proxy info, proxy group switch
  external host info, external host switch, external proxy info
  timeout info, max ttl info, nameserver get, nameserver set ADDRESS
  cache size, cache limit get
  cleanup MEGABYTES          shrink the cache to that
  evict PATH, pin PATH       drop a file from the cache, or keep it there for good
  detach nested catalogs     free the memory of catalogues nobody uses
  internal affairs           counters
  tear down to read-only     never write to the cache again

They are those of the original client's cvmfs_talk.`,
		Example: `  mica repo talk sw.example.org remount
  mica repo talk /mnt host info`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := controlSocket(a, args[0], cache)
			if err != nil {
				return err
			}
			return a.talk(cmd.Context(), socket, strings.Join(args[1:], " "))
		},
	}
	cmd.Flags().StringVar(&cache, "cache", "", "cache directory of the mount (default: that of 'repo mount')")
	return cmd
}

// talk sends a command and shows the reply.
func (a *app) talk(ctx context.Context, socket, command string) error {
	reply, err := talk.Send(ctx, socket, command)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fail.New(fail.NotFound, "nothing that is mounted answers at %s", socket).
			Hint("mount the repository with 'mica repo mount'").
			Hint("if its cache is elsewhere, or another user's, give the directory with --cache")
	case errors.Is(err, fs.ErrPermission):
		return fail.New(fail.HostLacks, "%w", err).Hint("only the user who mounted and its group may ask, and root")
	case err != nil:
		return fmt.Errorf("asking at %s: %w", socket, err)
	case reply == talk.Unknown:
		return fail.New(fail.Usage, "unknown command %q", command).Hint("see mica repo talk --help")
	}
	_, err = fmt.Fprintln(a.Out, reply)
	return err
}

// controlSocket finds the socket of a mount: by the name of the repository, or by
// a directory that is the mountpoint or the cache.
func controlSocket(a *app, of, cache string) (string, error) {
	name := of
	if info, err := os.Stat(of); err == nil && info.IsDir() {
		list, err := talk.Sockets(of)
		if err != nil {
			return "", err
		}
		switch {
		case len(list) == 1:
			return list[0], nil
		case len(list) > 1:
			return "", fail.New(fail.Usage, "%s is the cache of several mounts", of).Hint("give the name of the repository, and --cache %s", of)
		}
		buf := make([]byte, 256)
		n, err := unix.Getxattr(of, "user.fqrn", buf)
		if err != nil {
			return "", fail.New(fail.NotFound, "%s is neither a mounted repository nor the cache of one", of).
				Hint("mount the repository with 'mica repo mount'")
		}
		name = string(buf[:n])
	}
	if err := cvmfs.CheckName(name); err != nil {
		return "", fail.New(fail.Usage, "%w", err).Hint("give the name of the repository, its mountpoint or its cache directory")
	}
	if cache == "" {
		dir, err := a.repositoryCache(name)
		if err != nil {
			return "", err
		}
		cache = dir
	}
	return talk.Socket(cache, name), nil
}
