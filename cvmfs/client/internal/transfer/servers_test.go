package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A list that is set may say auto as one that was configured may; one of no use
// leaves what was there.
func TestSetProxiesDiscovers(t *testing.T) {
	answer := "PROXY 192.0.2.2:8080; DIRECT"
	web := handler(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "script") })
	c := start(t, Config{
		Servers: []string{"http://a.test"}, Proxies: "192.0.2.1:1",
		Tuning: Tuning{PACURLs: []string{web}, EvaluatePAC: func(context.Context, []byte, string, string) (string, error) {
			if answer == "" {
				return "", errors.New("syntax error")
			}
			return answer, nil
		}},
	})
	list := func() string {
		groups, _, _ := c.Proxies()
		return listOf(groups)
	}
	for _, test := range []struct {
		list, answer, want string
		fails              bool
	}{
		{"auto;192.0.2.3:3", answer, "http://192.0.2.2:8080;DIRECT;http://192.0.2.3:3", false},
		{"auto", "", "http://192.0.2.2:8080;DIRECT;http://192.0.2.3:3", true},
		{"gopher://x", "", "http://192.0.2.2:8080;DIRECT;http://192.0.2.3:3", true},
		{"auto;192.0.2.4:4", "", "http://192.0.2.4:4", false},
	} {
		answer = test.answer
		if err := c.SetProxies(t.Context(), test.list); (err != nil) != test.fails {
			t.Errorf("SetProxies(%q): %v", test.list, err)
		}
		if got := list(); got != test.want {
			t.Errorf("after SetProxies(%q): %s, want %s", test.list, got, test.want)
		}
	}
	// Before the first request it is what that one uses.
	late := start(t, Config{Servers: []string{"http://a.test"}, Proxies: "192.0.2.1:1"})
	if err := late.SetProxies(t.Context(), "192.0.2.9:9"); err != nil {
		t.Fatal(err)
	}
	if err := late.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, active, _ := late.Proxies(); active != "http://192.0.2.9:9" {
		t.Errorf("active proxy %s", active)
	}
}

// No password is in what people read: messages and the log.
func TestNoPasswordShown(t *testing.T) {
	var log strings.Builder
	c := start(t, Config{
		Servers: []string{"http://jane:secret@a.invalid", "http://joe:hidden@b.invalid"}, Proxies: "http://jim:private@127.0.0.1:1", Retries: -1,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	_, err := c.Get(t.Context(), "x", read)
	if err == nil {
		t.Fatal("got an answer")
	}
	errs := []error{err, c.SetProxies(t.Context(), "http://jim:private@:1|auto"), c.SetProxies(t.Context(), "http://jim:private@127.0.0.1:2;DIRECT")}
	c.SwitchProxyGroup()
	c.SwitchServer()
	text := fmt.Sprint(errs, log.String())
	for _, word := range []string{"secret", "hidden", "private", "jim"} {
		if strings.Contains(text, word) {
			t.Errorf("%q is in\n%s", word, text)
		}
	}
	if !strings.Contains(text, "http://***@a.invalid through http://***@127.0.0.1:1") {
		t.Errorf("the error does not tell who failed:\n%s", text)
	}
}

// Whoever waits for another's preparation can give up.
func TestSetProxiesGivesUp(t *testing.T) {
	c := start(t, Config{Servers: []string{"http://a.test"}})
	<-c.ready
	defer c.unlockProxies()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no patience")
	cancel(why)
	if err := c.SetProxies(ctx, "DIRECT"); !errors.Is(err, why) {
		t.Errorf("error %v, want %v", err, why)
	}
}

// Without a server a request fails at once, and the first that is named gets the
// next one.
func TestNoServer(t *testing.T) {
	c := start(t, Config{})
	if _, err := c.Get(t.Context(), "x", read); !errors.Is(err, ErrNoServer) {
		t.Errorf("error %v, want %v", err, ErrNoServer)
	}
	c.SwitchServer()
	if err := errors.Join(c.ProbeServers(t.Context(), "x"), c.OrderServers(t.Context())); err != nil {
		t.Errorf("comparing none: %v", err)
	}
	s := handler(t, func(http.ResponseWriter, *http.Request) {})
	if err := c.SetServers([]string{s}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), "x", read); err != nil || got != s {
		t.Errorf("answered by %q, %v", got, err)
	}
}

// Changes and requests at the same time do not disturb each other: every server
// and every proxy works, so that every request must.
func TestChangesUnderLoad(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) { // any order of servers will do
		for i := range strings.Split(path.Base(r.URL.Path), ",") {
			_, _ = io.WriteString(w, strings.Repeat(",", min(i, 1))+strconv.Itoa(i+1))
		}
	}
	a, b, p, q := handler(t, serve), handler(t, serve), handler(t, serve), handler(t, serve)
	c := start(t, Config{Servers: []string{a, b}})
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := c.Get(t.Context(), "x", func(body io.Reader) error {
					_, err := io.Copy(io.Discard, body)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	steps := []func() error{
		func() error { return c.SetServers([]string{b}) },
		func() error { return c.SetProxies(t.Context(), p+"|"+q+";DIRECT") },
		func() error { return c.SetServers([]string{a, b}) },
		func() error { return c.ProbeServers(t.Context(), "x") },
		func() error { return c.SetFallbackProxies(t.Context(), q) },
		func() error { c.RebalanceProxies(); c.SwitchProxyGroup(); c.SwitchServer(); return nil },
		func() error { return c.OrderServers(t.Context()) },
		func() error { return c.SetProxies(t.Context(), "DIRECT") },
		func() error { return c.SetFallbackProxies(t.Context(), "") },
	}
	for range 20 {
		for i, step := range steps {
			if err := step(); err != nil {
				t.Errorf("step %d: %v", i, err)
			}
		}
	}
	close(done)
	all.Wait()
}
