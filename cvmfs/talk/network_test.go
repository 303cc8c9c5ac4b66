package talk_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/talk"
)

// counting serves a repository and counts what it is asked for.
type counting struct {
	url      string
	requests atomic.Int64
	delay    atomic.Int64 // nanoseconds
	order    string       // the reply to the Geo-API; none if it is empty

	mu   sync.Mutex
	asks []string // of the Geo-API
}

func newCounting(t *testing.T, dir, order string) *counting {
	c := &counting{order: order}
	files := http.FileServer(http.Dir(dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			c.mu.Lock()
			c.asks = append(c.asks, r.URL.Path)
			c.mu.Unlock()
			if c.order == "" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(c.order))
			return
		}
		c.requests.Add(1)
		time.Sleep(time.Duration(c.delay.Load()))
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// newProxy is a forward proxy that counts.
func newProxy(t *testing.T) *counting {
	c := &counting{}
	through := httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// network is a repository behind servers and proxies of which each counts.
type network struct {
	*talk.Commands
	t *testing.T
}

func newNetwork(t *testing.T, change func(*client.Options)) network {
	r := openSmall(t, change)
	return network{t: t, Commands: &talk.Commands{Repository: r, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
}

func (n network) want(command, want string) {
	n.t.Helper()
	if got := strings.TrimSuffix(n.Answer(n.t.Context(), command), "\n"); got != want {
		n.t.Errorf("%s: %q, want %q", command, got, want)
	}
}

// asks fetches a file anew and returns how many requests each has had for it.
func (n network) asks(path string, of ...*counting) []int64 {
	n.t.Helper()
	n.want("evict "+path, "OK")
	var before []int64
	for _, c := range of {
		before = append(before, c.requests.Load())
	}
	n.want("pin "+path, "OK")
	for i, c := range of {
		before[i] = c.requests.Load() - before[i]
	}
	return before
}

// What is set is what the next download uses.
func TestServersSet(t *testing.T) {
	dir := cvmfstest.Small(t).Dir
	a, b, c := newCounting(t, dir, ""), newCounting(t, dir, ""), newCounting(t, dir, "")
	n := newNetwork(t, func(o *client.Options) { o.Servers = []string{a.url} })
	check := func(want ...int64) {
		t.Helper()
		if got := n.asks("/README", a, b, c); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("requests %v, want %v", got, want)
		}
	}
	check(1, 0, 0)
	n.want("host set "+b.url+"/; "+c.url, "OK")
	n.want("host info", fmt.Sprintf("  [0] %s (unprobed)\n  [1] %s (unprobed)\nActive host 0: %s", b.url, c.url, b.url))
	check(0, 1, 0)
	n.want("host switch", "OK")
	check(0, 0, 1)
	for _, bad := range []string{"not a URL", "gopher://x/y", ";"} {
		n.want("host set "+bad, "Failed")
	}
	check(0, 0, 1) // nothing has changed
	n.want("host set "+a.url, "OK")
	check(1, 0, 0)
}

// The one that answers first comes first, one that does not answer last.
func TestServersProbed(t *testing.T) {
	dir := cvmfstest.Small(t).Dir
	slow, fast := newCounting(t, dir, ""), newCounting(t, dir, "")
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	n := newNetwork(t, func(o *client.Options) { o.Servers = []string{slow.url, gone.URL, fast.url} })
	slow.delay.Store(int64(100 * time.Millisecond))
	n.want("host probe", "OK")
	lines := strings.Split(n.Answer(t.Context(), "host info"), "\n")
	if len(lines) < 4 || !strings.HasPrefix(lines[0], "  [0] "+fast.url+" (") || !strings.HasPrefix(lines[1], "  [1] "+slow.url+" (1") ||
		!strings.HasSuffix(lines[0], " ms)") || lines[2] != "  [2] "+gone.URL+" (host down)" || lines[3] != "Active host 0: "+fast.url {
		t.Errorf("after the probe:\n%s", strings.Join(lines, "\n"))
	}
	if got := n.asks("/README", slow, fast); got[0] != 0 || got[1] != 1 {
		t.Errorf("requests to the slow and the fast one %v", got)
	}
}

// The servers say which of them are near, and are asked each time.
func TestServersPlaced(t *testing.T) {
	dir := cvmfstest.Small(t).Dir
	// Both have the same name, so that they stay in the order they were given in.
	a, b := newCounting(t, dir, "2,1\n"), newCounting(t, dir, "2,1\n")
	n := newNetwork(t, func(o *client.Options) { o.Servers = []string{a.url, b.url} })
	n.want("host probe geo", "OK")
	n.want("host info", fmt.Sprintf("  [0] %s (geographically ordered)\n  [1] %s (geographically ordered)\nActive host 0: %s", b.url, a.url, b.url))
	if got := n.asks("/README", a, b); got[0] != 0 || got[1] != 1 {
		t.Errorf("requests %v", got)
	}
	if asked := len(a.asks) + len(b.asks); asked != 1 {
		t.Errorf("the order was asked for %d times", asked)
	}
	n.want("host probe geo", "OK")
	n.want("host switch", "OK")
	if got := n.asks("/README", a, b); got[0] != 0 || got[1] != 1 {
		t.Errorf("requests after the order was turned round again %v", got)
	}
	a.order, b.order = "1,1\n", ""
	n.want("host probe geo", "Failed")
}

func TestProxiesSet(t *testing.T) {
	origin := newCounting(t, cvmfstest.Small(t).Dir, "")
	p, q := newProxy(t), newProxy(t)
	n := newNetwork(t, func(o *client.Options) { o.Servers = []string{origin.url} })
	check := func(want ...int64) {
		t.Helper()
		if got := n.asks("/README", p, q, origin); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("requests %v, want %v", got, want)
		}
	}
	info := func(groups ...string) string {
		text := "Load-balance groups:\n"
		for i, g := range groups {
			text += fmt.Sprintf("[%d] %s\n", i, g)
		}
		return text + "Active proxy: [0] " + groups[0]
	}
	check(0, 0, 1)
	n.want("proxy set "+p.url, "OK")
	n.want("proxy info", info(p.url))
	check(1, 0, 1)
	for _, bad := range []string{"auto", ";", "auto|" + q.url} {
		if got := n.Answer(t.Context(), "proxy set "+bad); !strings.HasPrefix(got, "Failed") {
			t.Errorf("proxy set %s: %q", bad, got)
		}
	}
	check(1, 0, 1)
	n.want("proxy set DIRECT", "OK")
	n.want("proxy fallback "+q.url, "OK") // whoever has some never goes direct
	n.want("proxy info", info(q.url)+"\nFirst fallback group: [0]")
	check(0, 1, 1)
	n.want("proxy set "+p.url+";DIRECT", "OK")
	n.want("proxy info", info(p.url, q.url)+"\nFirst fallback group: [1]")
	check(1, 0, 1)
	n.want("proxy group switch", "OK")
	check(0, 1, 1)
	n.want("proxy fallback ", "OK") // what was taken away comes back
	n.want("proxy info", info(p.url, "DIRECT"))
	n.want("proxy fallback", "Usage: proxy fallback <proxy list>")
}

// Whoever shares the load is chosen by chance, and again when told so.
func TestProxiesRebalanced(t *testing.T) {
	origin := newCounting(t, cvmfstest.Small(t).Dir, "")
	p, q := newProxy(t), newProxy(t)
	n := newNetwork(t, func(o *client.Options) {
		o.Servers, o.Proxies = []string{origin.url}, p.url+"|"+q.url
	})
	var seen [2]bool
	for i := 0; i < 64 && (!seen[0] || !seen[1]); i++ {
		n.want("proxy rebalance", "OK")
		got := n.asks("/README", p, q)
		seen[0], seen[1] = seen[0] || got[0] > 0, seen[1] || got[1] > 0
	}
	if !seen[0] || !seen[1] {
		t.Errorf("of two proxies that share the load these were used: %v", seen)
	}
}

// A shorter timeout counts for the next request.
func TestTimeoutSet(t *testing.T) {
	slow := newCounting(t, cvmfstest.Small(t).Dir, "")
	n := newNetwork(t, func(o *client.Options) { o.Servers, o.Timeout, o.Retries = []string{slow.url}, time.Minute, -1 })
	slow.delay.Store(int64(3 * time.Second)) // twice the timeout is for the answer, and connecting
	n.want("timeout set 1 1", "OK")
	n.want("evict /README", "OK")
	n.want("pin /README", "No such regular file or pinning failed")
}
