package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// handler serves until the test ends.
func handler(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

func start(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// scripted is a client whose attempts end as answer says, without a network.
type scripted struct {
	mu    sync.Mutex
	log   []string // host and proxy of each request
	reply func(host, proxy string, r *http.Request) (status int, header, body string)
}

func (s *scripted) proxy(t *testing.T, name string) string {
	t.Helper()
	return handler(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.log = append(s.log, r.URL.Hostname()+" via "+name)
		s.mu.Unlock()
		status, header, body := s.reply(r.URL.Hostname(), name, r)
		if key, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(key, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// Each rule of retry and fail-over: what is asked, in order, when servers a and b
// stand behind proxies p and q of one group and r of the next.
func TestFailover(t *testing.T) {
	bad := func(body io.Reader) error {
		text, err := io.ReadAll(body)
		if err == nil && string(text) != "good" {
			err = fmt.Errorf("%w: %q", ErrBad, text)
		}
		return err
	}
	for _, test := range []struct {
		name  string
		reply func(host, proxy string, r *http.Request) (int, string, string)
		want  []string // P is the one of p and q that comes first, Q the other
		fails bool
	}{
		{
			"all is well", func(string, string, *http.Request) (int, string, string) { return 200, "", "good" },
			[]string{"a via P"},
			false,
		},
		{"bad data is asked for past caches", func(_, _ string, r *http.Request) (int, string, string) {
			if r.Header.Get("Cache-Control") == "no-cache" && r.Header.Get("Pragma") == "no-cache" {
				return 200, "", "good"
			}
			return 200, "", "stale"
		}, []string{"a via P", "a via P"}, false},
		{"bad data again is the server's fault", func(host, _ string, _ *http.Request) (int, string, string) {
			return 200, "", map[string]string{"a": "wrong", "b": "good"}[host]
		}, []string{"a via P", "a via P", "b via P"}, false},
		{"a page of a captive portal", func(_, proxy string, _ *http.Request) (int, string, string) {
			return 200, "Content-Type: text/html", "<html>log in</html>"
		}, []string{"a via P", "a via P", "b via P", "b via P"}, true},
		{"404 is the server's", func(host, _ string, _ *http.Request) (int, string, string) {
			return map[string]int{"a": 404, "b": 200}[host], "", "good"
		}, []string{"a via P", "b via P"}, false},
		{"5xx is the server's", func(host, _ string, _ *http.Request) (int, string, string) {
			return map[string]int{"a": 503, "b": 200}[host], "", "good"
		}, []string{"a via P", "b via P"}, false},
		{"400 is the server's", func(host, _ string, _ *http.Request) (int, string, string) {
			return map[string]int{"a": 400, "b": 200}[host], "", "good"
		}, []string{"a via P", "b via P"}, false},
		{"a redirect is the server's", func(host, _ string, _ *http.Request) (int, string, string) {
			return map[string]int{"a": 302, "b": 200}[host], "Location: http://a/", "good"
		}, []string{"a via P", "b via P"}, false},
		{"429 is tried again", func(host, _ string, _ *http.Request) (int, string, string) {
			return map[string]int{"a": 429, "b": 200}[host], "", "good"
		}, []string{"a via P", "a via P", "b via P"}, false},
		{"403 is the proxy's", func(_, proxy string, _ *http.Request) (int, string, string) {
			return map[string]int{"r": 200}[proxy] + 403*map[bool]int{true: 1}[proxy != "r"], "", "good"
		}, []string{"a via P", "a via Q", "a via r"}, false},
		{"503 of a proxy that says so", func(_, proxy string, _ *http.Request) (int, string, string) {
			if proxy != "r" {
				return 503, "X-Squid-Error: ERR_CONNECT_FAIL 111", ""
			}
			return 200, "", "good"
		}, []string{"a via P", "a via Q", "a via r"}, false},
		{"404 of a proxy that says so", func(_, proxy string, _ *http.Request) (int, string, string) {
			if proxy != "r" {
				return 404, "Proxy-Status: cache; error=dns_error", ""
			}
			return 200, "", "good"
		}, []string{"a via P", "a via Q", "a via r"}, false},
		{"the server after all proxies", func(host, _ string, _ *http.Request) (int, string, string) {
			return map[string]int{"a": 407, "b": 200}[host], "", "good"
		}, []string{"a via P", "a via Q", "a via r", "b via P"}, false},
		{
			"nothing left", func(string, string, *http.Request) (int, string, string) { return 407, "", "" },
			[]string{"a via P", "a via Q", "a via r", "b via P", "b via Q", "b via r"},
			true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &scripted{reply: test.reply}
			proxies := s.proxy(t, "p") + "|" + s.proxy(t, "q") + ";" + s.proxy(t, "r")
			c := start(t, Config{Servers: []string{"http://a", "http://b"}, Proxies: proxies, Retries: 1, Backoff: time.Millisecond})
			_, err := c.Get(t.Context(), "x", bad)
			if (err != nil) != test.fails {
				t.Errorf("Get: %v", err)
			}
			text := strings.Join(s.log, ", ")
			if strings.Contains(s.log[0], "via q") {
				text = strings.NewReplacer("via p", "via Q", "via q", "via P").Replace(text)
			} else {
				text = strings.NewReplacer("via p", "via P", "via q", "via Q").Replace(text)
			}
			if want := strings.Join(test.want, ", "); text != want {
				t.Errorf("asked %s, want %s", text, want)
			}
		})
	}
}

func TestGeoOrder(t *testing.T) {
	for _, test := range []struct {
		name          string
		servers       string
		proxies, back string
		answer        string
		max           int
		path, want    string
		spare         string
	}{
		{name: "servers", servers: "c a b", proxies: "P", answer: "3,1,2\n", path: "/cvmfs/x/api/v1.0/geo/127.0.0.1/a.test,b.test,c.test", want: "c a b"},
		{name: "the first of them", servers: "c a b", proxies: "P", answer: "2,3,1\n", max: 2, path: "/cvmfs/x/api/v1.0/geo/127.0.0.1/a.test,b.test,c.test", want: "b c"},
		{name: "no order, the given one", servers: "c a b", proxies: "P", answer: "1,2", max: 2, path: "/cvmfs/x/api/v1.0/geo/127.0.0.1/a.test,b.test,c.test", want: "c a"},
		{name: "and proxies", servers: "b a", proxies: "P", back: "http://f:1;http://g:1", answer: "4,2,1,3\n", path: "/cvmfs/x/api/v1.0/geo/127.0.0.1/a.test,b.test,f,g", want: "b a", spare: "g f"},
		{name: "only fall-back proxies", servers: "b a", back: "P;http://g:1", answer: "2,1,5,4,3\n", path: "/cvmfs/x/api/v1.0/geo/127.0.0.1/a.test,b.test,+PXYSEP+,127.0.0.1,g", want: "b a", spare: "g 127.0.0.1"},
		{name: "one server", servers: "a", proxies: "P", want: "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked []string
			proxy := handler(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/api/") {
					asked = append(asked, r.URL.Path)
					_, _ = io.WriteString(w, test.answer)
				}
			})
			var servers []string
			for s := range strings.FieldsSeq(test.servers) {
				servers = append(servers, "http://"+s+".test/cvmfs/x")
			}
			cfg := Config{Servers: servers, Proxies: strings.ReplaceAll(test.proxies, "P", proxy)}
			cfg.GeoOrder, cfg.MaxServers, cfg.FallbackProxies = true, test.max, strings.ReplaceAll(test.back, "P", proxy)
			c := start(t, cfg)
			c.lookup = func(context.Context, string) ([]string, error) { return nil, errors.New("none") }
			if _, err := c.Get(t.Context(), "x", read); err != nil {
				t.Fatal(err)
			}
			list, _ := c.Servers()
			var got []string
			for _, s := range list {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(s, "http://"), ".test/cvmfs/x"))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("servers %q, want %q", got, test.want)
			}
			var spare []string
			for i, g := range c.groups[min(c.fallback, len(c.groups)):] {
				spare = append(spare, g[0].name)
				if u, err := url.Parse(c.names[c.fallback+i][0]); err != nil || u.Hostname() != g[0].name {
					t.Errorf("group %d is %q by name and %q by address", i, c.names[c.fallback+i], g[0])
				}
			}
			if test.back != "" && strings.Join(spare, " ") != test.spare {
				t.Errorf("fall-back proxies %q, want %q", spare, test.spare)
			}
			for _, p := range asked {
				if p != test.path {
					t.Errorf("asked %q, want %q", p, test.path)
				}
			}
			if (test.path == "") != (len(asked) == 0) || len(asked) > geoAttempts {
				t.Errorf("asked %d times", len(asked))
			}
			before := len(asked)
			if _, err := c.Get(t.Context(), "y", read); err != nil || len(asked) != before {
				t.Errorf("asked again, %v", err)
			}
		})
	}
}

// A client without a proxy goes by a name that nobody knows, the same each time.
func TestGeoName(t *testing.T) {
	kept := map[string]string{}
	state := State{Load: func(k string) string { return kept[k] }, Save: func(k, v string) { kept[k] = v }}
	c := start(t, Config{Servers: []string{"http://a"}, State: state})
	id := c.geoName(&proxy{})
	if !isUUID(id) || c.geoName(&proxy{}) != id || kept["uuid"] != id+"\n" {
		t.Errorf("name %q, kept %q", id, kept["uuid"])
	}
	kept["uuid"] = "../../etc"
	if got := c.geoName(&proxy{}); !isUUID(got) {
		t.Errorf("name %q from a damaged file", got)
	}
	c.cfg.GeoName = "here"
	if got := c.geoName(&proxy{name: "p", url: &url.URL{}}); got != "here" {
		t.Errorf("name %q, want the configured one", got)
	}
}

func TestParseOrder(t *testing.T) {
	for _, test := range []struct {
		text string
		n    int
		want []int
	}{
		{"2,1,3\n", 3, []int{1, 0, 2}},
		{"1", 1, []int{0}},
		{"1, 2", 2, []int{0, 1}},
		{"1,2\n\n", 2, []int{0, 1}},
		{"", 1, nil},
		{"1,2", 3, nil},
		{"1,1", 2, nil},
		{"0,1", 2, nil},
		{"1,3", 2, nil},
		{"a,b", 2, nil},
		{"1,,2", 2, nil},
		{"<html>", 1, nil},
		{"-1,2", 2, nil},
	} {
		got, err := parseOrder(test.text, test.n)
		if !slices.Equal(got, test.want) || (err == nil) != (test.want != nil) {
			t.Errorf("parseOrder(%q, %d) = %v, %v, want %v", test.text, test.n, got, err, test.want)
		}
	}
}

// A proxy name with several addresses is as many proxies, of which each can fail
// alone; what it stands for is looked up anew in time.
func TestProxyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string][]string{"p.test": {"192.0.2.1", "192.0.2.2", "2001:db8::1"}}
		c := start(t, Config{Servers: []string{"http://a"}, Proxies: "p.test:3128|192.0.2.9:1;gone.test:1;https://tls.test:2"})
		c.lookup = func(_ context.Context, h string) ([]string, error) {
			if a := answers[h]; a != nil {
				return a, nil
			}
			return nil, &net.DNSError{Err: "none", Name: h}
		}
		if err := c.prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		list := func() string {
			groups, _, _ := c.Proxies()
			for _, g := range groups {
				slices.Sort(g)
			}
			return listOf(groups)
		}
		if got, want := list(), "http://192.0.2.1:3128|http://192.0.2.2:3128|http://192.0.2.9:1;http://gone.test:1;https://tls.test:2"; got != want {
			t.Errorf("proxies %s, want %s", got, want)
		}
		if _, n := c.proxyFor("x"); n != 5 {
			t.Errorf("%d proxies to try, want 5", n)
		}
		first, _ := c.proxyFor("x")
		c.leaveProxy(first)
		if second, _ := c.proxyFor("x"); second.String() == first.String() {
			t.Errorf("%s is used after it failed", second)
		}
		// Looked up again after a minute, in the background; what failed stays so.
		answers["p.test"] = []string{"192.0.2.2", "192.0.2.3"}
		answers["gone.test"] = []string{"192.0.2.7"}
		time.Sleep(dnsFresh - time.Second)
		c.start()
		synctest.Wait()
		if strings.Contains(list(), "192.0.2.3") {
			t.Error("looked up again before its time")
		}
		time.Sleep(2 * time.Second)
		c.start()
		synctest.Wait()
		if got, want := list(), "http://192.0.2.2:3128|http://192.0.2.3:3128|http://192.0.2.9:1;http://192.0.2.7:1;https://tls.test:2"; got != want {
			t.Errorf("proxies %s, want %s", got, want)
		}
		// The name service is away: the old addresses stay.
		clear(answers)
		time.Sleep(2 * dnsFresh)
		c.start()
		synctest.Wait()
		if !strings.Contains(list(), "192.0.2.3") {
			t.Errorf("proxies %s with the name service away", list())
		}
	})
}

func TestPreferredAddresses(t *testing.T) {
	all := []string{"2001:db8::1", "192.0.2.1", "192.0.2.2", "2001:db8::2"}
	for _, test := range []struct {
		tuning Tuning
		from   []string
		want   []string
	}{
		{Tuning{}, all, all[1:3]},
		{Tuning{PreferIPv6: true}, all, []string{all[0], all[3]}},
		{Tuning{PreferIPv6: true, IPv4Only: true}, all, all[1:3]},
		{Tuning{AddressesPerProxy: 1}, all, all[1:2]},
		{Tuning{}, all[:1], all[:1]},
		{Tuning{IPv4Only: true}, all[:1], nil},
	} {
		cfg := Config{Tuning: test.tuning}
		if got := cfg.preferred(test.from); !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q of %q, want %q", test.tuning, got, test.from, test.want)
		}
	}
}

// Sharding divides paths among the proxies of a group, and a proxy that fails
// moves only its own.
func TestShards(t *testing.T) {
	cfg := Config{Servers: []string{"http://a"}, Proxies: "http://192.0.2.1:1|http://192.0.2.2:1|http://192.0.2.3:1"}
	cfg.ShardProxies = true
	c, other := start(t, cfg), start(t, cfg)
	before := map[string]string{}
	count := map[string]int{}
	for i := range 300 {
		path := fmt.Sprintf("data/%02x/x", i)
		p, _ := c.proxyFor(path)
		if q, _ := other.proxyFor(path); q.String() != p.String() {
			t.Fatalf("%s goes to %s and, of another client, to %s", path, p, q)
		}
		before[path] = p.String()
		count[p.String()]++
	}
	for p, n := range count {
		if n < 60 || len(count) != 3 {
			t.Errorf("%d of 300 paths go to %s, %d proxies", n, p, len(count))
		}
	}
	gone, _ := c.proxyFor("data/00/x")
	c.leaveProxy(gone)
	for path, was := range before {
		now, _ := c.proxyFor(path)
		if was != gone.String() && now.String() != was {
			t.Errorf("%s moved from %s to %s", path, was, now)
		}
		if now.String() == gone.String() {
			t.Errorf("%s still goes to %s", path, gone)
		}
	}
}

func TestResetsCanBeSwitchedOff(t *testing.T) {
	now := &clock{time.Unix(1000, 0)}
	cfg := Config{Servers: []string{"http://a", "http://b"}, Proxies: "p:1;q:1", Now: now.now}
	cfg.ProxyResetAfter, cfg.HostResetAfter = -1, -1
	c := start(t, cfg)
	p, _ := c.proxyFor("")
	c.leaveProxy(p)
	c.leaveHost("http://a")
	now.t = now.t.Add(24 * time.Hour)
	c.mu.Lock()
	c.resolved = time.Time{}
	c.mu.Unlock()
	if _, host := c.start(); host != 1 || c.group != 1 {
		t.Errorf("server %d, group %d after a day, want 1 and 1", host, c.group)
	}
}

// A failure is held back longer each time, and no longer after a quiet while.
func TestThrottle(t *testing.T) {
	now := &clock{time.Unix(1000, 0)}
	c := start(t, Config{Servers: []string{"http://a"}, Now: now.now})
	var got []time.Duration
	for range 8 {
		got = append(got, c.penalty())
	}
	now.t = now.t.Add(penaltyReset)
	got = append(got, c.penalty())
	const ms = time.Millisecond
	if diff := cmp.Diff([]time.Duration{32 * ms, 64 * ms, 128 * ms, 256 * ms, 512 * ms, 1024 * ms, 2000 * ms, 2000 * ms, 32 * ms}, got); diff != "" {
		t.Errorf("penalties (-want +got):\n%s", diff)
	}
}

func TestRedirects(t *testing.T) {
	var self string
	self = handler(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case r.URL.Path == "/out":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusMovedPermanently)
		case r.URL.Path == "/nowhere":
			w.WriteHeader(http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/hop"):
			n := int(r.URL.Path[4] - '0')
			http.Redirect(w, r, self+map[bool]string{true: "/end", false: fmt.Sprintf("/hop%d", n-1)}[n == 1], http.StatusTemporaryRedirect)
		}
	})
	for path, follows := range map[string]bool{"hop1": true, "hop4": true, "hop5": false, "loop": false, "out": false, "nowhere": false} {
		for _, follow := range []bool{false, true} {
			cfg := Config{Servers: []string{self}}
			cfg.FollowRedirects = follow
			c := start(t, cfg)
			_, err := c.Get(t.Context(), path, read)
			if (err == nil) != (follow && follows) {
				t.Errorf("%s, following %v: %v", path, follow, err)
			}
			var failed *Error
			if err != nil && (!errors.As(err, &failed) || failed.Attempts[0].Class != HostHTTP) {
				t.Errorf("%s, following %v: %v", path, follow, err)
			}
		}
	}
}

// A proxy that never works is tried until the caller gives up.
func TestIndefiniteFailover(t *testing.T) {
	n := 0
	s := &scripted{reply: func(string, string, *http.Request) (int, string, string) {
		if n++; n < 6 {
			return 407, "", ""
		}
		return 200, "", "x"
	}}
	cfg := Config{Servers: []string{"http://a"}, Proxies: s.proxy(t, "p") + ";" + s.proxy(t, "q"), Backoff: time.Millisecond}
	cfg.IndefiniteFailover, cfg.BackoffMax = true, time.Millisecond
	c := start(t, cfg)
	if _, err := c.Get(t.Context(), "x", read); err != nil || n != 6 {
		t.Errorf("Get: %v after %d requests", err, n)
	}
}

// What auto stands for comes from the first script that can be had and runs.
func TestDiscovery(t *testing.T) {
	web := handler(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gone.dat":
			w.WriteHeader(http.StatusNotFound)
		case "/long.dat":
			_, _ = io.CopyN(w, zeros{}, maxScript+10)
		default:
			_, _ = io.WriteString(w, r.URL.Path)
		}
	})
	evaluate := func(_ context.Context, script []byte, url, host string) (string, error) {
		if url != "http://a.test:8000/cvmfs/x/.cvmfspublished" || host != "a.test" {
			return "", fmt.Errorf("asked for %q, %q", url, host)
		}
		switch string(script) {
		case "/bad.dat":
			return "", errors.New("syntax error")
		case "/good.dat":
			return "PROXY p.test:3128; SOCKS s:1; PROXY 192.0.2.2:8080 ; DIRECT", nil
		case "/direct.dat":
			return "DIRECT", nil
		}
		return "", errors.New("unexpected script")
	}
	kept := map[string]string{}
	state := State{Load: func(k string) string { return kept[k] }, Save: func(k, v string) { kept[k] = v }}
	discover := func(proxies, spare string, scripts ...string) string {
		t.Helper()
		cfg := Config{Servers: []string{"http://a.test:8000/cvmfs/x", "http://b.test"}, Proxies: proxies, State: state}
		for _, s := range scripts {
			cfg.PACURLs = append(cfg.PACURLs, web+"/"+s)
		}
		cfg.EvaluatePAC, cfg.FallbackProxies = evaluate, spare
		c := start(t, cfg)
		c.lookup = func(context.Context, string) ([]string, error) { return nil, errors.New("none") }
		if err := c.prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		groups, _, _ := c.Proxies()
		return listOf(groups)
	}
	const found = "http://p.test:3128;http://192.0.2.2:8080;DIRECT"
	for _, test := range []struct {
		proxies, spare, scripts, want string
	}{
		{"auto", "", "good.dat", found},
		{"auto;http://q:1", "", "gone.dat long.dat bad.dat good.dat direct.dat", found + ";http://q:1"},
		{"auto", "", "direct.dat good.dat", "DIRECT"},
		{"auto", "http://f:1", "good.dat", "http://p.test:3128;http://192.0.2.2:8080;http://f:1"},
		{"auto", "http://f:1", "direct.dat", "http://f:1"},
		{"auto;DIRECT", "", "gone.dat", "DIRECT"},
		{"auto;http://q:1", "", "gone.dat", "http://q:1"},
		{"http://q:1", "", "good.dat", "http://q:1"},
	} {
		clear(kept)
		if got := discover(test.proxies, test.spare, strings.Fields(test.scripts)...); got != test.want {
			t.Errorf("proxies %q with %s: %s, want %s", test.proxies, test.scripts, got, test.want)
		}
	}
	// What was found the last time stands in for auto, for the same configuration.
	clear(kept)
	discover("auto;http://q:1", "", "good.dat")
	kept["proxies"] = strings.ReplaceAll(kept["proxies"], "good.dat", "gone.dat")
	if got := discover("auto;http://q:1", "", "gone.dat"); got != found+";http://q:1" {
		t.Errorf("with a discovery that fails: %s", got)
	}
	if got := discover("auto;http://z:1", "", "gone.dat"); got != "http://z:1" {
		t.Errorf("with another configuration: %s", got)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestReadAnswer(t *testing.T) {
	for answer, want := range map[string]string{
		"": "DIRECT", "DIRECT": "DIRECT", "SOCKS a:1": "DIRECT", "PROXY a:1": "http://a:1", "proxy a:1;DIRECT": "http://a:1;DIRECT",
		"HTTPS a:1; HTTP b:2": "https://a:1;http://b:2", "PROXY a|b:1": "DIRECT", "PROXY auto": "DIRECT", "PROXY": "DIRECT",
		"PROXY a : 1": "http://a:1", "undefined": "DIRECT", ";;": "DIRECT",
	} {
		if got := listOf(readAnswer(answer)); got != want {
			t.Errorf("readAnswer(%q) = %s, want %s", answer, got, want)
		}
	}
}

// A client is prepared once, for all requests that came meanwhile; one that gives
// up leaves it to the others.
func TestPreparedOnce(t *testing.T) {
	release := make(chan struct{})
	var mu sync.Mutex
	runs := 0
	cfg := Config{Servers: []string{"http://192.0.2.1"}, Proxies: "auto;DIRECT"}
	cfg.PACURLs = []string{handler(t, func(http.ResponseWriter, *http.Request) {})}
	cfg.EvaluatePAC = func(ctx context.Context, _ []byte, _, _ string) (string, error) {
		mu.Lock()
		runs++
		mu.Unlock()
		select {
		case <-release:
			return "DIRECT", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	c := start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.prepare(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("prepare that gave up: %v", err)
	}
	close(release)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := c.prepare(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if runs != 2 {
		t.Errorf("the script ran %d times, want twice", runs)
	}
}
