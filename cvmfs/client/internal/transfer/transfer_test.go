package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChain(t *testing.T) {
	script := func(context.Context, []byte, string, string) (string, error) { return "", nil }
	for _, test := range []struct {
		list, environment, spare string
		pac                      bool
		want                     [][]string
		fallback                 int
	}{
		{"", "", "", false, [][]string{{"DIRECT"}}, 1},
		{"DIRECT", "", "", false, [][]string{{"DIRECT"}}, 1},
		{"http://a:3128", "", "", false, [][]string{{"http://a:3128"}}, 1},
		{"a:3128|b:3128;DIRECT", "", "", false, [][]string{{"http://a:3128", "http://b:3128"}, {"DIRECT"}}, 2},
		{" a:1 | b:2 ; ; DIRECT ", "", "", false, [][]string{{"http://a:1", "http://b:2"}, {"DIRECT"}}, 2},
		{"auto;DIRECT", "http://p:8080", "", false, [][]string{{"http://p:8080"}, {"DIRECT"}}, 2},
		{"auto;DIRECT", "p:1|q:2", "", true, [][]string{{"http://p:1", "http://q:2"}, {"DIRECT"}}, 2},
		{"auto;DIRECT", "p:1;auto", "", false, [][]string{{"http://p:1"}, {"DIRECT"}}, 2},
		{"auto;DIRECT", "", "", false, [][]string{{"DIRECT"}}, 1},
		{"auto;DIRECT", "", "", true, [][]string{{"auto"}, {"DIRECT"}}, 2},
		{"auto", "", "", false, [][]string{{"DIRECT"}}, 1},
		{"[2001:db8::1]:3128", "", "", false, [][]string{{"http://[2001:db8::1]:3128"}}, 1},
		// T17: whoever has proxies to fall back to never goes direct.
		{"DIRECT", "", "f:1;g:2", false, [][]string{{"http://f:1"}, {"http://g:2"}}, 0},
		{"a:1|DIRECT;DIRECT", "", "f:1;DIRECT", false, [][]string{{"http://a:1"}, {"http://f:1"}}, 1},
		{"a:1;DIRECT", "", "DIRECT", false, [][]string{{"http://a:1"}, {"DIRECT"}}, 2},
		{"auto;DIRECT", "DIRECT", "f:1", false, [][]string{{"http://f:1"}}, 0},
	} {
		cfg := Config{Proxies: test.list, Environment: test.environment, Log: slog.New(slog.DiscardHandler)}
		cfg.FallbackProxies = test.spare
		if test.pac {
			cfg.EvaluatePAC, cfg.PACURLs = script, []string{"auto"}
		}
		got, fallback, err := chain(cfg)
		if err != nil || fallback != test.fallback {
			t.Errorf("chain(%q, %q, %q): fall-back from %d, %v, want %d", test.list, test.environment, test.spare, fallback, err, test.fallback)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("chain(%q, %q, %q) (-want +got):\n%s", test.list, test.environment, test.spare, diff)
		}
	}
	for _, list := range []string{"a|auto", "ftp://a", "http://", "a b", "http://a:port", "http://:80"} {
		if got, _, err := chain(Config{Proxies: list, Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("chain(%q) = %v, want an error", list, got)
		}
	}
}

func FuzzChain(f *testing.F) {
	for _, seed := range []string{"", "DIRECT", "a:1|b:2;c;DIRECT", "auto;DIRECT", "http://[::1]:3128", ";;|", "auto|a"} {
		f.Add(seed, seed, seed)
	}
	f.Fuzz(func(t *testing.T, list, environment, spare string) {
		cfg := Config{Servers: []string{"http://a"}, Proxies: list, Environment: environment}
		cfg.FallbackProxies = spare
		c, err := New(cfg)
		if err != nil {
			return
		}
		defer c.Close()
		groups, active, _ := c.Proxies()
		if len(groups) == 0 || active == "" {
			t.Fatalf("proxies %q, %q, %q give %q, active %q", list, environment, spare, groups, active)
		}
		if c.fallback < len(c.names) && slices.ContainsFunc(c.names, func(g []string) bool { return slices.Contains(g, Direct) }) {
			t.Errorf("proxies %q with %q to fall back to go direct: %q", list, spare, c.names)
		}
	})
}

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func read(body io.Reader) error {
	_, err := io.Copy(io.Discard, body)
	return err
}

// server answers with a status that the test sets.
func server(t *testing.T, status *int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(*status)
		_, _ = io.WriteString(w, "body")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// A server that was left is tried again first after half an hour, a proxy after
// five minutes.
func TestReturnsToPreferred(t *testing.T) {
	first, second := 500, 200
	a, b := server(t, &first), server(t, &second)
	now := &clock{time.Unix(1000, 0)}
	c, err := New(Config{Servers: []string{a, b}, Now: now.now})
	if err != nil {
		t.Fatal(err)
	}
	get := func(want string) {
		t.Helper()
		if got, err := c.Get(t.Context(), "x", read); err != nil || got != want {
			t.Errorf("Get from %q, %v, want %q", got, err, want)
		}
	}
	get(b)
	first = 200
	get(b)
	now.t = now.t.Add(defaultHostResetAfter - time.Second)
	get(b)
	now.t = now.t.Add(2 * time.Second)
	get(a)
}

func TestProxyGroups(t *testing.T) {
	bad, good := 200, 200
	p, q := server(t, &bad), server(t, &good)
	now := &clock{time.Unix(1000, 0)}
	c, err := New(Config{Servers: []string{"http://origin.invalid"}, Proxies: p + ";" + q, Now: now.now})
	if err != nil {
		t.Fatal(err)
	}
	active := func(want string) {
		t.Helper()
		if _, err := c.Get(t.Context(), "x", read); err != nil {
			t.Error(err)
		}
		if _, got, _ := c.Proxies(); got != want {
			t.Errorf("active proxy %q, want %q", got, want)
		}
	}
	active(p)
	bad = 407
	active(q)
	bad = 200
	now.t = now.t.Add(defaultProxyResetAfter - time.Second)
	active(q)
	now.t = now.t.Add(2 * time.Second)
	active(p)
	// Both refuse: an error that names them.
	bad, good = 407, 407
	_, err = c.Get(t.Context(), "x", read)
	var failed *Error
	if !errors.As(err, &failed) || len(failed.Attempts) != 2 || !strings.Contains(err.Error(), p) || !strings.Contains(err.Error(), q) {
		t.Errorf("Get: error %v", err)
	}
}

func TestLoadBalance(t *testing.T) {
	ok := 200
	proxies := []string{server(t, &ok), server(t, &ok), server(t, &ok)}
	used := map[string]bool{}
	for range 60 {
		c, err := New(Config{Servers: []string{"http://origin.invalid"}, Proxies: strings.Join(proxies, "|")})
		if err != nil {
			t.Fatal(err)
		}
		_, active, _ := c.Proxies()
		used[active] = true
	}
	if len(used) != len(proxies) {
		t.Errorf("%d of %d proxies are ever chosen", len(used), len(proxies))
	}
}

func TestClasses(t *testing.T) {
	status := 200
	url := server(t, &status)
	for _, test := range []struct {
		status int
		want   Class
	}{{404, NotFound}, {500, HostHTTP}, {400, HostHTTP}, {429, HostConnection}, {301, HostHTTP}, {403, HostHTTP}} {
		status = test.status
		c, err := New(Config{Servers: []string{url}})
		if err != nil {
			t.Fatal(err)
		}
		var failed *Error
		if _, err := c.Get(t.Context(), "x", read); !errors.As(err, &failed) || failed.Attempts[0].Class != test.want || failed.Attempts[0].Status != test.status {
			t.Errorf("status %d: error %v", test.status, err)
		} else if failed.Missing() != (test.status == 404) {
			t.Errorf("status %d: missing %v", test.status, failed.Missing())
		}
	}
}

func TestLocalErrorEndsAtOnce(t *testing.T) {
	ok := 200
	c, err := New(Config{Servers: []string{server(t, &ok), server(t, &ok)}, Retries: 3})
	if err != nil {
		t.Fatal(err)
	}
	mine := errors.New("my own")
	calls := 0
	_, err = c.Get(t.Context(), "x", func(io.Reader) error { calls++; return mine })
	if !errors.Is(err, mine) || calls != 1 {
		t.Errorf("Get: error %v after %d calls, want %v after 1", err, calls, mine)
	}
	calls = 0
	_, err = c.Get(t.Context(), "x", func(io.Reader) error { calls++; return fmt.Errorf("%w: x", ErrBad) })
	if !errors.Is(err, ErrBad) || calls != 4 { // each server twice, the second time past caches
		t.Errorf("Get: error %v after %d calls, want %v after 4", err, calls, ErrBad)
	}
}

func TestFileServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with space")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"file://" + dir, "file://localhost" + dir, "file://" + strings.ReplaceAll(dir, " ", "%20")} {
		c, err := New(Config{Servers: []string{url}})
		if err != nil {
			t.Errorf("%q: %v", url, err)
			continue
		}
		var got []byte
		if _, err := c.Get(t.Context(), "x", func(r io.Reader) (err error) { got, err = io.ReadAll(r); return err }); err != nil || string(got) != "content" {
			t.Errorf("%q: %q, %v", url, got, err)
		}
		var failed *Error
		if _, err := c.Get(t.Context(), "y", read); !errors.As(err, &failed) || !failed.Missing() {
			t.Errorf("%q: missing object: %v", url, err)
		}
	}
	for _, url := range []string{"file://host/x", "ftp://x", "/x", "http://[", "file:x"} {
		if _, err := New(Config{Servers: []string{url}}); err == nil {
			t.Errorf("New with server %q succeeded", url)
		}
	}
}

func TestCancelled(t *testing.T) {
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(hang) })
	c, err := New(Config{Servers: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := c.Get(ctx, "x", read); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
		t.Errorf("Get: error %v after %v", err, time.Since(start))
	}
}

func TestNameservers(t *testing.T) {
	d := newDialer(Config{Now: time.Now, Nameservers: []string{"192.0.2.1", "[2001:db8::1]:5353"}})
	if diff := cmp.Diff([]string{"192.0.2.1:53", "[2001:db8::1]:5353"}, d.nameservers); diff != "" {
		t.Errorf("nameservers (-want +got):\n%s", diff)
	}
	// An answer that was good once is good enough when the name service is away.
	d.setNameservers([]string{"127.0.0.1:1"})
	d.names["origin.invalid"] = answer{addresses: []string{"192.0.2.7"}, at: time.Now().Add(-time.Hour)}
	if got, err := d.lookup(t.Context(), "origin.invalid"); err != nil || got[0] != "192.0.2.7" {
		t.Errorf("lookup with the name service away = %v, %v", got, err)
	}
}
