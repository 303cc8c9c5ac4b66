package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/mount"
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

  revision, version, version patchlevel, mountpoint, device id, parameters
  pid, pid cachemgr          of the one process that there is
  remount, remount sync      look for a newer revision now
  chroot HASH                show the revision with that root catalogue, until the
                             next look for a newer one
  max ttl info, max ttl set MINUTES
  open catalogs, detach nested catalogs
                             catalogues in memory; close those nobody uses
  internal affairs, reset error counters
  latency                    how long requests took, if CVMFS_INSTRUMENT_FUSE is yes

Servers, proxies and names. What is set counts from the next request on:

  host info                  which servers there are, and which is in use
  host switch, host set URL;URL...
  host probe                 order them by how fast they answer
  host probe geo             order them by where they are
  proxy info, proxy set LIST, proxy fallback LIST
  proxy rebalance            another one of those that share the load
  proxy group switch         on to the next group
  timeout info, timeout set PROXIED DIRECT
                             in seconds
  nameserver get, nameserver set ADDRESS
  external host info, external host switch, external host set URL;URL...
  external proxy info, external proxy set LIST
                             the same for the content of external files

The cache:

  cache instance, cache size, cache limit get, cache limit set MEGABYTES
  cache list, cache list pinned, cache list catalogs
                             one object a line, by its hash
  cleanup MEGABYTES          shrink the cache to that
  cleanup rate MINUTES       how often it was shrunk since
  evict PATH, pin PATH       drop a file from the cache, or keep it there for good
  tear down to read-only     never write to the cache again

They are those of the original client's cvmfs_talk.`,
		Example: `  mica repo talk sw.example.org remount
  mica repo talk /mnt host info
  mica repo talk /mnt "proxy set http://squid1:3128|http://squid2:3128"`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := controlSocket(cmd.Context(), a, args[0], cache)
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
	case talk.IsFailure(reply):
		return fail.New(fail.Failed, "%s: the mount answers %q", command, reply).
			Hint("its log says why: getfattr --only-values -n user.logbuffer MOUNTPOINT")
	}
	_, err = fmt.Fprintln(a.Out, reply)
	return err
}

// controlSocket finds the socket of a mount: by the name of the repository, or by
// a directory that is the mountpoint or the cache.
func controlSocket(ctx context.Context, a *app, of, cache string) (string, error) {
	name, device := of, ""
	if info, err := os.Stat(of); err == nil && info.IsDir() {
		list, err := talk.Sockets(of)
		if err != nil {
			return "", err
		}
		if len(list) > 0 {
			name = talk.RepositoryOf(list[0])
			if slices.ContainsFunc(list, func(s string) bool { return talk.RepositoryOf(s) != name }) {
				return "", fail.New(fail.Usage, "%s is the cache of several repositories", of).Hint("give the name of one, and --cache %s", of)
			}
			return socketOfMount(ctx, of, of, name, "")
		}
		buf := make([]byte, 256)
		n, err := unix.Getxattr(of, "user.fqrn", buf)
		if err != nil {
			return "", fail.New(fail.NotFound, "%s is neither a mounted repository nor the cache of one", of).
				Hint("mount the repository with 'mica repo mount'")
		}
		name = string(buf[:n])
		if device, err = mount.DeviceOf(of); err != nil {
			return "", err
		}
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
	return socketOfMount(ctx, of, cache, name, device)
}

// socketOfMount returns the socket of the mount on a device, or else that of the
// first mount that answers.
func socketOfMount(ctx context.Context, of, cache, name, device string) (string, error) {
	list, err := talk.SocketsOf(cache, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, socket := range list {
		reply, err := talk.Send(ctx, socket, "device id")
		switch {
		case errors.Is(err, fs.ErrPermission):
			return socket, nil // whoever uses it says so
		case err == nil && (device == "" || reply == device):
			return socket, nil
		}
	}
	if device != "" && len(list) > 0 {
		return "", fail.New(fail.NotFound, "the mount at %s does not answer in %s", of, cache).
			Hint("if its cache is elsewhere, give the directory with --cache")
	}
	return talk.Socket(cache, name), nil
}
