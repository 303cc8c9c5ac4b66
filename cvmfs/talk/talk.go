package talk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/mount"
)

// Commands answers for one mounted repository.
type Commands struct {
	Repository *client.Repository
	Mount      *mount.Server
	Mountpoint string
	Parameters string // reply to "parameters", lines KEY=value    # from FILE
	Log        *slog.Logger
}

// The replies that say nothing but how it went.
const (
	Unknown = "unknown command" // to a command that is not known
	ok      = "OK"
	failed  = "Failed"
)

// IsFailure reports whether a reply says that a command was not carried out for a
// reason that the log has.
func IsFailure(reply string) bool { return strings.HasPrefix(reply, failed) }

// command is one that is known.
type command struct {
	usage  string // the reply if the argument is missing; empty if it takes none
	empty  bool   // the argument may be empty, once there is a blank for it
	answer func(ctx context.Context, c *Commands, argument string) string
}

// Answer answers one command.
func (c *Commands) Answer(ctx context.Context, line string) string {
	name, argument := line, ""
	for {
		if found, known := commands[name]; known {
			switch blank := len(name) < len(line); {
			case found.usage == "" && blank:
				return Unknown
			case found.usage != "" && argument == "" && (!blank || !found.empty):
				return found.usage
			}
			return found.answer(ctx, c, argument)
		}
		i := strings.LastIndexByte(name, ' ')
		if i < 0 {
			return Unknown
		}
		name, argument = name[:i], strings.TrimSpace(line[i+1:])
	}
}

var commands = merge(network, externalNetwork, cache, map[string]command{
	"pid":          plain(func(*Commands) string { return strconv.Itoa(os.Getpid()) }),
	"pid cachemgr": plain(func(*Commands) string { return strconv.Itoa(os.Getpid()) }),
	"version": plain(func(*Commands) string {
		return client.CompatVersion + " (CernVM-FS Fuse Module)\n" + client.CompatVersion + " (Loader)"
	}),
	"version patchlevel": plain(func(*Commands) string { return "0" }),
	"revision":           plain(func(c *Commands) string { return strconv.FormatUint(c.Repository.Revision(), 10) }),
	"mountpoint":         plain(func(c *Commands) string { return c.Mountpoint }),
	"device id":          plain(func(c *Commands) string { return c.Mount.Device() }),
	"parameters":         plain(func(c *Commands) string { return c.Parameters }),
	"remount":            {answer: remount},
	"remount sync":       {answer: remount},
	"chroot": {usage: "Usage: chroot <hash>", answer: func(ctx context.Context, c *Commands, text string) string {
		root, err := cvmfs.ParseHash(text)
		if err == nil {
			err = c.Repository.SetRoot(ctx, root)
		}
		return c.done("chroot", text, err)
	}},
	"max ttl info": plain(func(c *Commands) string {
		if ttl := c.Repository.MaxTTL(); ttl > 0 {
			return fmt.Sprintf("%d minutes", int(ttl.Minutes()))
		}
		return "unset"
	}),
	"max ttl set": {usage: "Usage: max ttl set <minutes>", answer: func(_ context.Context, c *Commands, text string) string {
		minutes, valid := number(text)
		if !valid {
			return failed
		}
		c.Repository.SetMaxTTL(time.Duration(minutes) * time.Minute)
		return ok
	}},
	"open catalogs": plain(func(c *Commands) string {
		var b strings.Builder
		for _, a := range c.Repository.OpenCatalogs() {
			fmt.Fprintf(&b, "%s-> %s\n", strings.Repeat("    ", a.Depth), a.At)
		}
		return b.String()
	}),
	"detach nested catalogs": plain(func(c *Commands) string {
		c.Repository.DetachCatalogs()
		return ok
	}),
	"tear down to read-only": plain(func(c *Commands) string {
		c.Repository.StopWriting()
		c.Log.Info("no more writing to the cache")
		return "In read-only mode"
	}),
	"internal affairs": plain(affairs),
	"latency":          plain(latency),
	"reset error counters": plain(func(c *Commands) string {
		c.Mount.ResetFailures()
		return ok
	}),
})

func merge(all ...map[string]command) map[string]command {
	one := map[string]command{}
	for _, m := range all {
		maps.Copy(one, m)
	}
	return one
}

// plain is a command without an argument that takes no time.
func plain(answer func(c *Commands) string) command {
	return command{answer: func(_ context.Context, c *Commands, _ string) string { return answer(c) }}
}

// done is the reply to a command that was carried out, or failed. Differs: a list
// of servers or proxies, or a number, of which no sense can be made changes nothing
// and gets the answer "Failed"; the original says "OK".
func (c *Commands) done(name, argument string, err error) string {
	if err != nil {
		c.Log.Warn("command failed", "command", name, "argument", client.Masked(argument), "err", err)
		return failed
	}
	c.Log.Info("command done", "command", name, "argument", client.Masked(argument))
	return ok
}

// number reads a count of minutes, seconds or megabytes.
func number(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 32)
	return n, err == nil && n >= 0
}

// remount looks for a newer revision. Differs: the original first lets what the
// kernel remembers run out; here the new revision is shown at once to whoever
// asks, and the kernel asks when its time limit has passed.
func remount(ctx context.Context, c *Commands, _ string) string {
	changed, err := c.Repository.Refresh(ctx)
	switch {
	case errors.Is(err, client.ErrCacheFull):
		return "Failed (no space)"
	case err != nil:
		c.Log.Warn("no newer revision to be had", "repository", c.Repository.Name(), "err", err)
		return failed
	case changed:
		return "New revision applied"
	}
	return "Catalog up to date"
}

// affairs are counters. Compat: form and names are those of the original's
// statistics (cvmfs: cvmfs/statistics.cc), as far as the same is counted.
func affairs(c *Commands) string {
	var b strings.Builder
	b.WriteString("Name|Value|Description\n")
	line := func(name string, value int64, what string) { fmt.Fprintf(&b, "%s|%d|%s\n", name, value, what) }
	s := c.Repository.Stats()
	line("catalog_mgr.n_attached", int64(s.Catalogs), "open catalogs")
	line("download.sz_transfer_time", s.Transfer.Milliseconds(), "time spent on downloads (ms)")
	line("download.sz_transferred_bytes", s.Bytes, "bytes downloaded")
	line("fetch.n_downloads", s.Objects, "objects downloaded")
	line("fetch.n_failures", s.Failures, "objects that could not be had")
	line("fetch.n_hits", s.CacheHits, "objects found in the cache")
	m := c.Mount.Counters()
	line("cvmfs.n_io_error", m.Failures, "requests that failed")
	if m.Counted {
		line("cvmfs.n_fs_open", m.Opens, "files opened")
		line("cvmfs.n_fs_dir_open", m.DirOpens, "directories opened")
		line("cvmfs.no_open_files", int64(m.OpenFiles), "files open now")
		line("cvmfs.no_open_dirs", int64(m.OpenDirs), "directories open now")
	}
	return b.String()
}

// latency is a table of how long requests took: columns of shares, a row a kind.
// Compat: its form is the original's (cvmfs: cvmfs/talk.cc), and so is that all
// counts are zero without CVMFS_INSTRUMENT_FUSE. Differs: there is no row for
// forget_multi, whose members are counted one by one.
func latency(c *Commands) string {
	shares := []float64{.1, .2, .25, .3, .4, .5, .6, .7, .75, .8, .9, .95, .99, .999, .9999}
	var b strings.Builder
	b.WriteString(`"repository","action","total_count","time_unit"`)
	for _, s := range shares {
		fmt.Fprintf(&b, ",%0.5f", s)
	}
	b.WriteByte('\n')
	for _, l := range c.Mount.Latencies() {
		fmt.Fprintf(&b, "%q,%q,%d,%q", c.Repository.Name(), l.Request, l.Count, "nanoseconds")
		for _, s := range shares {
			fmt.Fprintf(&b, ",%d", l.Quantile(s).Nanoseconds())
		}
		b.WriteByte('\n')
	}
	return b.String()
}
