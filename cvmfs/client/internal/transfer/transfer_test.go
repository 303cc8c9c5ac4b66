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
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseProxies(t *testing.T) {
	for _, test := range []struct {
		list, environment string
		want              [][]string
	}{
		{"", "", [][]string{{"DIRECT"}}},
		{"DIRECT", "", [][]string{{"DIRECT"}}},
		{"http://a:3128", "", [][]string{{"http://a:3128"}}},
		{"a:3128|b:3128;DIRECT", "", [][]string{{"http://a:3128", "http://b:3128"}, {"DIRECT"}}},
		{" a:1 | b:2 ; ; DIRECT ", "", [][]string{{"http://a:1", "http://b:2"}, {"DIRECT"}}},
		{"auto;DIRECT", "http://p:8080", [][]string{{"http://p:8080"}, {"DIRECT"}}},
		{"auto;DIRECT", "p:1|q:2", [][]string{{"http://p:1", "http://q:2"}, {"DIRECT"}}},
		{"auto;DIRECT", "", [][]string{{"DIRECT"}}},
		{"auto", "", [][]string{{"DIRECT"}}},
		{"[2001:db8::1]:3128", "", [][]string{{"http://[2001:db8::1]:3128"}}},
	} {
		got, err := ParseProxies(test.list, test.environment, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("ParseProxies(%q): %v", test.list, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("ParseProxies(%q) (-want +got):\n%s", test.list, diff)
		}
	}
	for _, list := range []string{"a|auto", "ftp://a", "http://", "a b", "http://a:port"} {
		if got, err := ParseProxies(list, "", slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("ParseProxies(%q) = %v, want an error", list, got)
		}
	}
}

func FuzzParseProxies(f *testing.F) {
	for _, seed := range []string{"", "DIRECT", "a:1|b:2;c;DIRECT", "auto;DIRECT", "http://[::1]:3128", ";;|", "auto|a"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, list, environment string) {
		groups, err := ParseProxies(list, environment, slog.New(slog.DiscardHandler))
		if err != nil {
			return
		}
		if len(groups) == 0 {
			t.Fatalf("ParseProxies(%q) has no group", list)
		}
		if _, err := makeProxies(groups, nil); err != nil {
			t.Errorf("ParseProxies(%q) = %q, of which no proxies can be made: %v", list, groups, err)
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
	now.t = now.t.Add(hostResetAfter - time.Second)
	get(b)
	now.t = now.t.Add(2 * time.Second)
	get(a)
}

func TestProxyGroups(t *testing.T) {
	bad, good := 200, 200
	p, q := server(t, &bad), server(t, &good)
	now := &clock{time.Unix(1000, 0)}
	c, err := New(Config{Servers: []string{"http://origin.invalid"}, Proxies: [][]string{{p}, {q}}, Now: now.now})
	if err != nil {
		t.Fatal(err)
	}
	active := func(want string) {
		t.Helper()
		if _, err := c.Get(t.Context(), "x", read); err != nil {
			t.Error(err)
		}
		if _, got := c.Proxies(); got != want {
			t.Errorf("active proxy %q, want %q", got, want)
		}
	}
	active(p)
	bad = 407
	active(q)
	bad = 200
	now.t = now.t.Add(proxyResetAfter - time.Second)
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
		c, err := New(Config{Servers: []string{"http://origin.invalid"}, Proxies: [][]string{proxies}})
		if err != nil {
			t.Fatal(err)
		}
		_, active := c.Proxies()
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
	d := newDialer(time.Now, []string{"192.0.2.1", "[2001:db8::1]:5353"})
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
