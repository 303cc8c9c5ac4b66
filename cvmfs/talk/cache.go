package talk

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs/client"
)

// leastLimit is the lowest limit that can be set, in megabytes. Compat: the
// original's.
const leastLimit = 1000

// cache has the commands about what is kept on disk.
var cache = map[string]command{
	"cache instance": plain(func(c *Commands) string {
		dir := c.Repository.CacheDir()
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
		return "Posix cache manager (cache directory: " + dir + ")"
	}),
	"cache size": plain(func(c *Commands) string {
		bytes, _ := c.Repository.CacheUsage()
		pinned := c.Repository.PinnedBytes()
		return fmt.Sprintf("Current cache size is %dMB (%d Bytes), pinned: %dMB (%d Bytes)", bytes>>20, bytes, pinned>>20, pinned)
	}),
	"cache list":          {answer: list(func(client.Cached) bool { return true })},
	"cache list pinned":   {answer: list(func(o client.Cached) bool { return o.Pinned })},
	"cache list catalogs": {answer: list(func(o client.Cached) bool { return o.Catalog })},
	"cache limit get": plain(func(c *Commands) string {
		if _, quota := c.Repository.CacheUsage(); quota > 0 {
			return strconv.FormatInt(quota>>20, 10)
		}
		return "-1"
	}),
	"cache limit set": {usage: "Usage: cache limit set <MB>", answer: func(_ context.Context, c *Commands, text string) string {
		megabytes, valid := number(text)
		if !valid || megabytes < leastLimit {
			return fmt.Sprintf("New limit too low (minimum %d)", leastLimit)
		}
		c.Repository.SetCacheQuota(megabytes << 20)
		return ok
	}},
	"cleanup rate": {usage: "Usage: cleanup rate <period in mn>", answer: func(_ context.Context, c *Commands, text string) string {
		minutes, valid := number(text)
		if !valid {
			return failed
		}
		return strconv.Itoa(c.Repository.Cleanups(time.Duration(minutes) * time.Minute))
	}},
	"cleanup": {usage: "Usage: cleanup <MB>", answer: func(ctx context.Context, c *Commands, text string) string {
		megabytes, valid := number(text)
		if !valid {
			return failed
		}
		if err := c.Repository.EvictCache(ctx, megabytes<<20); err != nil {
			return "Not fully cleaned (there might be pinned chunks)"
		}
		return ok
	}},
	"pin": {usage: "Usage: pin <path>", answer: func(ctx context.Context, c *Commands, path string) string {
		if err := c.Repository.Pin(ctx, path); err != nil {
			c.Log.Info("not pinned", "path", path, "err", err)
			return "No such regular file or pinning failed"
		}
		return ok
	}},
	"evict": {usage: "Usage: evict <path>", answer: func(ctx context.Context, c *Commands, path string) string {
		if err := c.Repository.Evict(ctx, path); err != nil {
			c.Log.Info("not evicted", "path", path, "err", err)
			return "No such regular file"
		}
		return ok
	}},
}

// list names objects, one a line. Differs: the original keeps the path that each
// object was first wanted for; here the cache knows none, so that catalogues, open
// ones and those that hang below them, are listed as there, and all else is a hash.
func list(wanted func(client.Cached) bool) func(context.Context, *Commands, string) string {
	return func(ctx context.Context, c *Commands, _ string) string {
		all, err := c.Repository.Cached(ctx)
		if err != nil {
			c.Log.Warn("the cache cannot be listed", "err", err)
			return "Cache cannot list its entries"
		}
		var b strings.Builder
		for _, o := range all {
			switch {
			case !wanted(o):
			case o.Catalog:
				fmt.Fprintf(&b, "file catalog at %s:%s (%s)\n", c.Repository.Name(), "/"+strings.TrimPrefix(o.At, "/"), o.Hash)
			default:
				b.WriteString(o.Hash.String() + "\n")
			}
		}
		return b.String()
	}
}
