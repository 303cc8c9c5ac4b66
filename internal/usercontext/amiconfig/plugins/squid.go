package plugins

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/squid.py: the same lines in the same
// file, included first.
func squid() Plugin {
	return Plugin{
		Name: "squid", Does: "runs a web cache for CernVM-FS clients",
		Keys: []Key{
			{Name: "backends", Kind: List, Meaning: "servers that may be asked through the cache"},
			{Name: "cache_dir", Kind: Path, Meaning: "where the cache is", Default: "/var/spool/squid"},
			{Name: "cache_dir_size", Kind: Integer, Meaning: "size of the cache in MB", Default: "50000"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			var p problems
			dir := c.Section.Get("cache_dir", "/var/spool/squid")
			if !path.IsAbs(dir) || !plainWord.MatchString(dir) {
				p.addf("cache_dir: %q is not a directory", dir)
				dir = "/var/spool/squid"
			}
			size, err := number(c.Section.Get("cache_dir_size", "50000"), 1, 1<<30)
			if err != nil {
				p.addf("cache_dir_size: %w", err)
				size = 50000
			}
			lines := []string{
				"max_filedesc 8192", "maximum_object_size 1024 MB", "cache_mem 128 MB", "maximum_object_size_in_memory 128 KB",
				"cache_dir ufs " + dir + " " + strconv.Itoa(size) + " 16 256",
			}
			allow := false
			for _, b := range list(c.Section.Get("backends", "")) {
				if err := host(b); err != nil {
					p.addf("backends: %w", err)
					continue
				}
				lines, allow = append(lines, "acl backend dst "+b), true
			}
			if allow {
				lines = append(lines, "http_access allow backend")
			}
			if !p.add(squidFiles(c.Root, lines)) {
				return p.err()
			}
			if _, err := c.Root.Run(ctx, "squid", "-z", "-N"); err != nil {
				p.addf("making the cache: %w", err)
			}
			p.add(c.Root.Service(ctx, []string{"squid", "squid3"}, guest.Enable, guest.Restart))
			return p.err()
		},
	}
}

func squidFiles(root *guest.Root, lines []string) error {
	const main, own = "/etc/squid/squid.conf", "/etc/squid/cernvm.conf"
	data, err := root.ReadFile(main)
	if err != nil {
		return fmt.Errorf("no squid to configure: %w", err)
	}
	var p problems
	p.add(root.WriteFile(own, guest.Text(lines), guest.Attr{Mode: 0o644}))
	if len(data) > 0 { // Compat: an empty file stays empty
		p.add(root.Edit(main, guest.Attr{Backup: true}, func(old []string) []string {
			out := []string{"include " + own}
			for _, l := range old {
				if f := strings.Fields(l); len(f) == 2 && f[0] == "include" && f[1] == own {
					continue
				}
				out = append(out, l)
			}
			return out
		}))
	}
	if root.Exists("/etc/sysconfig") {
		p.add(root.Edit("/etc/sysconfig/squid", guest.Attr{}, func(old []string) []string {
			var out []string
			for _, l := range old {
				if !strings.HasPrefix(strings.TrimSpace(l), "ulimit -n") {
					out = append(out, l)
				}
			}
			return append(out, "ulimit -n 10000")
		}))
	}
	return p.err()
}
