package plugins

import (
	"context"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: cernvm/amiconfig/plugins/workqueue.py; the file has no line
// break at its end.
func workqueue() Plugin {
	return Plugin{
		Name: "workqueue", Does: "joins a Work Queue catalog, or is one",
		Keys: []Key{
			{Name: "catalog_server", Kind: Host, Meaning: "catalog to join; without it this machine is the catalog"},
			{Name: "workqueue_project", Kind: Text, Meaning: "project to work for", Default: "cernvm"},
			{Name: "workqueue_user", Kind: Text, Meaning: "user the workers run as", Default: "workqueue"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			var p problems
			lines := []string{"START_CATALOG_SERVER=yes"}
			if server := c.Section.Get("catalog_server", ""); server != "" {
				if err := host(server); err != nil {
					p.addf("catalog_server: %w", err)
					return p.err()
				}
				lines = []string{"CATALOG_SERVER=" + server + ":9097"}
				for _, o := range []struct{ key, name string }{{"workqueue_project", "WQ_PROJECT"}, {"workqueue_user", "WQ_USER"}} {
					v := c.Section.Get(o.key, "")
					if v == "" {
						continue
					}
					if word, err := shellWord(unquote(v)); err != nil {
						p.addf("%s: %w", o.key, err)
					} else {
						lines = append(lines, o.name+"="+word)
					}
				}
				lines = append(lines, "WQ_WORKERS="+strconv.Itoa(processors(c.Root)))
			}
			p.add(c.Root.WriteFile("/etc/workqueue.local", []byte(strings.Join(lines, "\n")), guest.Attr{Mode: 0o644}))
			p.add(c.Root.Service(ctx, []string{"workqueue"}, guest.Enable, guest.Start))
			return p.err()
		},
	}
}
