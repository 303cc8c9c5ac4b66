package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Source is where a repository is read from: a Store, or a web server.
type Source interface {
	String() string
	// Open reads a file; one that does not exist gives an error that wraps
	// fs.ErrNotExist.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
}

// OpenSource returns the repository at an http, https or file URL, in a bucket, or
// in a directory; the name is the last element of its path.
func OpenSource(location string) (Source, string, error) {
	if strings.HasPrefix(location, "http://") || strings.HasPrefix(location, "https://") {
		return newServer(location)
	}
	if path, ok := strings.CutPrefix(location, "file://"); ok {
		u, err := url.Parse(location)
		if err != nil || !strings.HasPrefix(path, "/") || u.RawQuery != "" || u.Fragment != "" {
			return nil, "", fmt.Errorf("source %q: a file URL has the form file:///path: %w", location, errors.ErrUnsupported)
		}
		location = u.Path
	}
	root, name, err := Split(location)
	if err != nil {
		return nil, "", err
	}
	s, err := Open(root, name)
	return s, name, err
}

// Server is a repository on a web server, to be read only.
type Server struct {
	base   string
	client *http.Client
	pause  time.Duration // before the second try, doubled after it
	stall  time.Duration // an answer that stands still for so long is given up
}

const (
	serverTries = 4
	userAgent   = "cvmfs mica replica" // Compat: some proxies let only clients of that name through
)

func newServer(location string) (*Server, string, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, "", fmt.Errorf("source: %w", redact(err))
	}
	path := strings.TrimRight(u.Path, "/")
	name := path[strings.LastIndexByte(path, '/')+1:]
	if u.Host == "" || name == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, "", fmt.Errorf("source %q: want the URL of a repository, http://HOST/cvmfs/NAME: %w", u.Redacted(), errors.ErrUnsupported)
	}
	transport := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		// Hashes are over stored bytes, so that no other coding may be asked for.
		DisableCompression:    true,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
	}
	return &Server{base: strings.TrimRight(u.String(), "/"), client: &http.Client{Transport: transport}, pause: 500 * time.Millisecond, stall: time.Minute}, name, nil
}

// String returns the URL.
func (s *Server) String() string { return s.base }

// Close ends idle connections.
func (s *Server) Close() { s.client.CloseIdleConnections() }

// Open gets a file. A server that cannot be reached or fails is asked again.
func (s *Server) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	pause := s.pause
	for try := 1; ; try++ {
		body, again, err := s.get(ctx, name)
		if err == nil || !again || try == serverTries {
			return body, err
		}
		jitter := time.Duration(rand.Int64N(int64(pause)/2 + 1)) //nolint:gosec // only spreads the load
		select {
		case <-time.After(pause + jitter):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause *= 2
	}
}

// get asks once; again says whether another try may help.
func (s *Server) get(caller context.Context, name string) (body io.ReadCloser, again bool, err error) {
	ctx, cancel := context.WithCancel(caller)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/"+name, nil)
	if err != nil {
		cancel()
		return nil, false, err
	}
	request.Header.Set("User-Agent", userAgent)
	answer, err := s.client.Do(request)
	if err != nil {
		cancel()
		return nil, caller.Err() == nil, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		cancel()
		err := fmt.Errorf("getting %s/%s: the server answers %s", s.base, name, answer.Status)
		if answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusGone {
			return nil, false, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
		}
		return nil, answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests, err
	}
	b := &patient{ReadCloser: answer.Body, limit: s.stall, end: cancel}
	b.timer = time.AfterFunc(s.stall, func() { b.stalled.Store(true); cancel() })
	return b, false, nil
}

var errStalled = fmt.Errorf("the transfer stands still: %w", io.ErrUnexpectedEOF)

// patient gives up on a body that brings nothing for too long.
type patient struct {
	io.ReadCloser
	timer *time.Timer
	limit time.Duration
	end   context.CancelFunc

	stalled atomic.Bool
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	if n > 0 {
		p.timer.Reset(p.limit)
	}
	if err != nil && p.stalled.Load() {
		err = errStalled
	}
	return n, err
}

func (p *patient) Close() error {
	p.timer.Stop()
	err := p.ReadCloser.Close()
	p.end()
	return err
}
