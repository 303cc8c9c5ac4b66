package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
)

const (
	dialTimeout  = 2 * time.Second
	replyTimeout = 5 * time.Second
	tries        = 3
)

// NewClient returns the client for metadata services: it knows no proxy, follows
// no redirect, unpacks nothing by itself, and does not wait long.
func NewClient() *http.Client {
	return &http.Client{
		Timeout: replyTimeout,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   replyTimeout,
			ResponseHeaderTimeout: replyTimeout,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   2,
			IdleConnTimeout:       10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// status is a reply that is not the wanted one.
type status struct {
	url  string
	code int
}

func (e *status) Error() string { return fmt.Sprintf("%s: HTTP status %d", e.url, e.code) }

func hasStatus(err error, codes ...int) bool {
	var s *status
	if !errors.As(err, &s) {
		return false
	}
	for _, c := range codes {
		if s.code == c {
			return true
		}
	}
	return false
}

// request is one request and how its reply is judged.
type request struct {
	method string // GET if empty
	url    string
	host   string // Host header, if it is not the one of the URL
	header map[string]string
	limit  int // bytes
	check  func(http.Header) error
}

// fetch sends a request until it is answered, at most three times. A service
// that is there and says no is asked once; one that does not answer, or is not
// ready yet, again.
func (s *search) fetch(ctx context.Context, r request) ([]byte, error) {
	if s.HTTP == nil {
		return nil, errNothing
	}
	var err error
	for n := range tries {
		if n > 0 {
			if s.Sleep(ctx, time.Duration(n)*500*time.Millisecond) != nil {
				break
			}
		}
		var body []byte
		if body, err = s.once(ctx, r); err == nil {
			return body, nil
		}
		var st *status
		if errors.As(err, &st) && st.code < 500 && st.code != http.StatusTooManyRequests {
			return nil, err
		}
		if errors.Is(err, errTooLarge) || errors.Is(err, errImpostor) || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

var (
	errTooLarge = errors.New("the reply is too large")
	errImpostor = errors.New("another service answers at this address")
)

func (s *search) once(ctx context.Context, r request) ([]byte, error) {
	method := r.method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, r.url, nil)
	if err != nil {
		return nil, err
	}
	if r.host != "" {
		req.Host = r.host
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &status{r.url, resp.StatusCode}
	}
	if r.check != nil {
		if err := r.check(resp.Header); err != nil {
			return nil, fmt.Errorf("%s: %w", r.url, err)
		}
	}
	limit := r.limit
	if limit == 0 {
		limit = maxMeta
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.url, err)
	}
	if len(body) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", r.url, errTooLarge, limit)
	}
	return body, nil
}

// optional fetches something that need not be there.
func (s *search) optional(ctx context.Context, r request) (body []byte, there bool, err error) {
	body, err = s.fetch(ctx, r)
	if hasStatus(err, http.StatusNotFound, http.StatusNoContent) {
		return nil, false, nil
	}
	return body, err == nil, err
}

// identifier is a short value of a metadata service, such as an instance id. The
// page of a router or of a hotel, which answers any request, is none.
func identifier(body []byte) string {
	text := strings.TrimSpace(string(body))
	if len(text) > 128 || strings.ContainsAny(text, "<> {}") || strings.ContainsFunc(text, unicode.IsControl) {
		return ""
	}
	return text
}
