package source

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
)

func TestClusterMaster(t *testing.T) {
	var posts atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/api/v1/clusters/abc 1/keys" || string(body) != `{"key":"master_ip","value":"10.0.0.5"}` || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %s", r.Method, r.URL.Path, body)
		}
		if posts.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	var slept time.Duration
	c := Cluster{Service: server.URL, Pin: "abc 1", Master: true, Address: netip.MustParseAddr("10.0.0.5"), Sleep: func(_ context.Context, d time.Duration) error { slept += d; return nil }}
	got, err := c.Contextualize(t.Context(), []byte("x "+MasterPlaceholder))
	if err != nil || string(got) != "x "+MasterPlaceholder || posts.Load() != 3 || slept != 2*clusterPause {
		t.Errorf("Contextualize = %q, %v after %d posts and %s", got, err, posts.Load(), slept)
	}
}

func TestClusterWorker(t *testing.T) {
	for _, tc := range []struct{ reply, want string }{
		{"master_ip: 10.10.25.5\n", "m=10.10.25.5 n=10.10.25.5"},
		{"2001:db8::1", "m=2001:db8::1 n=2001:db8::1"},
		{"10.10.25.5; rm -rf /", ""},
		{"fe80::1%$(reboot)", ""},
		{"<html>", ""},
	} {
		var ready atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/master_ready") && ready.Add(1) < 3:
				w.WriteHeader(http.StatusNotFound)
			case strings.HasSuffix(r.URL.Path, "/master_ip"):
				_, _ = w.Write([]byte(tc.reply))
			}
		}))
		c := Cluster{Service: server.URL, Pin: "p", Budget: 5 * time.Minute, Sleep: func(context.Context, time.Duration) error { return nil }}
		got, err := c.Contextualize(t.Context(), []byte("m="+MasterPlaceholder+" n="+MasterPlaceholder))
		if string(got) != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("reply %q: %q, %v; want %q", tc.reply, got, err, tc.want)
		}
		if err != nil && (!fail.Is(err, fail.TimedOut) || len(fail.Hints(err)) == 0) {
			t.Errorf("reply %q: %v has no remedy", tc.reply, err)
		}
		server.Close()
	}
}

func TestClusterIdle(t *testing.T) {
	if got, err := (Cluster{Service: "http://unused.example"}).Contextualize(t.Context(), []byte("x")); err != nil || string(got) != "x" {
		t.Errorf("without a pin: %q, %v", got, err)
	}
	if _, err := (Cluster{Service: "ftp://x", Pin: "p"}).Contextualize(t.Context(), nil); !fail.Is(err, fail.Usage) {
		t.Errorf("with an ftp service: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Cluster{Service: "http://127.0.0.1:1", Pin: "p"}).Contextualize(ctx, nil); err == nil {
		t.Error("a cancelled search goes on")
	}
}
