package talk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

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

// Unknown is the reply to a command that is not known.
const Unknown = "unknown command"

// Answer answers one command.
func (c *Commands) Answer(ctx context.Context, line string) string {
	if f, ok := plain[line]; ok {
		return f(ctx, c)
	}
	for name, f := range withArgument {
		if line == name {
			return f.usage
		}
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return f.answer(ctx, c, strings.TrimSpace(rest))
		}
	}
	return Unknown
}

type answer = func(ctx context.Context, c *Commands) string

// plain are the commands without an argument.
var plain = map[string]answer{
	"pid": func(context.Context, *Commands) string { return strconv.Itoa(os.Getpid()) },
	"version": func(context.Context, *Commands) string {
		return client.CompatVersion + " (CernVM-FS Fuse Module)\n" + client.CompatVersion + " (Loader)"
	},
	"version patchlevel": func(context.Context, *Commands) string { return "0" },
	"revision": func(_ context.Context, c *Commands) string {
		return strconv.FormatUint(c.Repository.Revision(), 10)
	},
	"mountpoint":   func(_ context.Context, c *Commands) string { return c.Mountpoint },
	"parameters":   func(_ context.Context, c *Commands) string { return c.Parameters },
	"remount":      remount,
	"remount sync": remount,
	"max ttl info": func(_ context.Context, c *Commands) string {
		if ttl := c.Repository.MaxTTL(); ttl > 0 {
			return fmt.Sprintf("%d minutes", int(ttl.Minutes()))
		}
		return "unset"
	},
	"host info":          func(_ context.Context, c *Commands) string { return hostInfo(c.Repository.Servers()) },
	"external host info": func(_ context.Context, c *Commands) string { return hostInfo(c.Repository.ExternalServers()) },
	"host switch": func(_ context.Context, c *Commands) string {
		c.Repository.SwitchServer()
		return "OK"
	},
	"external host switch": func(_ context.Context, c *Commands) string {
		c.Repository.SwitchExternalServer()
		return "OK"
	},
	"proxy info":          func(_ context.Context, c *Commands) string { return proxyInfo(c.Repository.Proxies()) },
	"external proxy info": func(_ context.Context, c *Commands) string { return proxyInfo(c.Repository.ExternalProxies()) },
	"proxy group switch": func(_ context.Context, c *Commands) string {
		c.Repository.SwitchProxyGroup()
		return "OK"
	},
	"timeout info": func(_ context.Context, c *Commands) string {
		proxied, direct := c.Repository.Timeouts()
		return fmt.Sprintf("Timeout with proxy: %s\nTimeout without proxy: %s", seconds(proxied), seconds(direct))
	},
	"nameserver get": func(_ context.Context, c *Commands) string {
		list := c.Repository.Nameservers()
		if len(list) == 0 {
			return "no DNS server address set"
		}
		host, _, err := net.SplitHostPort(list[0])
		if err != nil {
			host = list[0]
		}
		return "DNS server address: " + host
	},
	"cache size": func(_ context.Context, c *Commands) string {
		bytes, _ := c.Repository.CacheUsage()
		pinned := c.Repository.PinnedBytes()
		return fmt.Sprintf("Current cache size is %dMB (%d Bytes), pinned: %dMB (%d Bytes)", bytes>>20, bytes, pinned>>20, pinned)
	},
	"cache limit get": func(_ context.Context, c *Commands) string {
		_, quota := c.Repository.CacheUsage()
		return fmt.Sprintf("%dMB", quota>>20)
	},
	"detach nested catalogs": func(_ context.Context, c *Commands) string {
		c.Repository.DetachCatalogs()
		return "OK"
	},
	"tear down to read-only": func(_ context.Context, c *Commands) string {
		c.Repository.StopWriting()
		c.Log.Info("no more writing to the cache")
		return "In read-only mode"
	},
	"internal affairs": affairs,
}

// withArgument are the commands with one.
var withArgument = map[string]struct {
	usage  string
	answer func(ctx context.Context, c *Commands, argument string) string
}{
	"nameserver set": {"Usage: nameserver set <host>", func(_ context.Context, c *Commands, ip string) string {
		if net.ParseIP(ip) == nil {
			return "Failed"
		}
		c.Repository.SetNameservers([]string{ip})
		return "DNS address set to " + ip
	}},
	"pin": {"Usage: pin <path>", func(ctx context.Context, c *Commands, path string) string {
		if err := c.Repository.Pin(ctx, path); err != nil {
			c.Log.Info("not pinned", "path", path, "err", err)
			return "No such regular file or pinning failed"
		}
		return "OK"
	}},
	"evict": {"Usage: evict <path>", func(ctx context.Context, c *Commands, path string) string {
		if err := c.Repository.Evict(ctx, path); err != nil {
			c.Log.Info("not evicted", "path", path, "err", err)
			return "No such regular file"
		}
		return "OK"
	}},
	"cleanup": {"Usage: cleanup <MB>", func(ctx context.Context, c *Commands, text string) string {
		megabytes, err := strconv.ParseInt(text, 10, 32)
		if err != nil || megabytes < 0 {
			return "Failed"
		}
		if err := c.Repository.EvictCache(ctx, megabytes<<20); err != nil {
			return "Not fully cleaned (there might be pinned chunks)"
		}
		return "OK"
	}},
}

// remount looks for a newer revision. Differs: the original first lets what the
// kernel remembers run out; here the new revision is shown at once to whoever
// asks, and the kernel asks when its time limit has passed.
func remount(ctx context.Context, c *Commands) string {
	changed, err := c.Repository.Refresh(ctx)
	switch {
	case errors.Is(err, client.ErrCacheFull):
		return "Failed (no space)"
	case err != nil:
		c.Log.Warn("no newer revision to be had", "repository", c.Repository.Name(), "err", err)
		return "Failed"
	case changed:
		return "New revision applied"
	}
	return "Catalog up to date"
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

func hostInfo(servers []string, active int) string {
	if len(servers) == 0 {
		return "No hosts defined"
	}
	var b strings.Builder
	for i, s := range servers {
		fmt.Fprintf(&b, "  [%d] %s (unprobed)\n", i, s)
	}
	fmt.Fprintf(&b, "Active host %d: %s\n", active, servers[active])
	return b.String()
}

func proxyInfo(groups [][]string, active string) string {
	if len(groups) == 0 {
		return "No proxies defined"
	}
	var b strings.Builder
	b.WriteString("Load-balance groups:\n")
	for i, g := range groups {
		fmt.Fprintf(&b, "[%d] %s\n", i, strings.Join(g, ", "))
	}
	group := slices.IndexFunc(groups, func(g []string) bool { return slices.Contains(g, active) })
	fmt.Fprintf(&b, "Active proxy: [%d] %s\n", group, active)
	return b.String()
}

// affairs are counters. Compat: form and names are those of the original's
// statistics (cvmfs: cvmfs/statistics.cc), as far as the same is counted.
func affairs(_ context.Context, c *Commands) string {
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
