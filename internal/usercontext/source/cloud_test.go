package source

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// cloud is a network in which some addresses answer. It remembers every request.
type cloud struct {
	t     *testing.T
	addrs map[string]string // host:port of the cloud to that of a test server

	mu       sync.Mutex // guards requests
	requests []string
}

func newCloud(t *testing.T) *cloud { return &cloud{t: t, addrs: map[string]string{}} }

// serve makes host answer with h.
func (c *cloud) serve(host string, h http.Handler) *cloud {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.requests = append(c.requests, r.Method+" "+host+r.URL.RequestURI())
		c.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	c.t.Cleanup(server.Close)
	c.addrs[net.JoinHostPort(host, "80")] = server.Listener.Addr().String()
	return c
}

// client is the real client, on that network, and less patient.
func (c *cloud) client() *http.Client {
	client := NewClient()
	client.Timeout = 2 * time.Second
	tr := client.Transport.(*http.Transport)
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		to, ok := c.addrs[addr]
		if !ok {
			return nil, errors.New("no route to " + addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}
	c.t.Cleanup(tr.CloseIdleConnections)
	return client
}

func (c *cloud) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// env is a machine on that cloud.
func (c *cloud) env(platform string) Env {
	return Env{HTTP: c.client(), Platform: platform, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
}

// pages answers GET with fixed bodies, and 404 for everything else.
type pages map[string]string

func (p pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := p[r.URL.RequestURI()]
	if !ok || r.Method != http.MethodGet {
		http.Error(w, "<html>not here</html>", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte(body))
}

// imds is EC2's service. Tokens are "required", "optional" or "none".
type imds struct {
	pages
	tokens string
	expire int // how many requests a token lasts; 0 is for ever
	used   int
	mu     sync.Mutex // guards used
}

func (s *imds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/latest/api/token" {
		switch {
		case s.tokens == "none":
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.Method != http.MethodPut || r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "":
			w.WriteHeader(http.StatusBadRequest)
		default:
			_, _ = w.Write([]byte("the-token"))
		}
		return
	}
	s.mu.Lock()
	s.used++
	expired := s.expire > 0 && s.used == s.expire
	s.mu.Unlock()
	token := r.Header.Get("X-aws-ec2-metadata-token")
	if s.tokens == "required" && token != "the-token" || token != "" && token != "the-token" || expired {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.pages.ServeHTTP(w, r)
}

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@host"

func ec2Pages(userData string) pages {
	p := pages{
		"/2016-04-19/meta-data/instance-id":               "i-7f3a91c2",
		"/2016-04-19/meta-data/local-hostname":            "vm1.internal",
		"/2016-04-19/meta-data/public-keys/":              "0=default",
		"/2016-04-19/meta-data/public-keys/0/openssh-key": testKey + "\n",
	}
	if userData != "absent" {
		p["/2016-04-19/user-data"] = userData
	}
	return p
}

// drives is a Mounter of folders in memory.
type drives map[string]fstest.MapFS

func (d drives) Mount(_ context.Context, dev Device) (fs.FS, func() error, error) {
	files, ok := d[dev.Name]
	if !ok {
		return nil, nil, errors.New("bad superblock")
	}
	return files, func() error { return nil }, nil
}

func (d drives) ReadRaw(_ context.Context, dev Device, limit int) ([]byte, error) {
	f, ok := d[dev.Name]["raw"]
	if !ok {
		return nil, errors.New("no medium")
	}
	return f.Data[:min(limit, len(f.Data))], nil
}

func tree(files ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		m[files[i]] = &fstest.MapFile{Data: []byte(files[i+1]), Mode: 0o644}
	}
	return m
}

func iso(name, label string) Device {
	return Device{Name: name, Path: "/dev/" + name, Type: "iso9660", Label: label, Size: 1 << 20}
}

// attempt is what Find says about one source.
func attempt(f Found, name string) string {
	var all []string
	for _, a := range f.Tried {
		if a.Source == name {
			all = append(all, a.Result)
		}
	}
	return strings.Join(all, "; ")
}
