package download

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/progress"
)

// part is a file that is not complete.
type part struct {
	path, url string
	hash      hash.Hash // of what is there
	written   int64
	resumed   bool // some of it is from an earlier command or try
}

// about is what the server said of the content whose beginning a part holds. Of
// the URL there is the digest: it may hold a password.
type about struct {
	Source       string `json:"url_sha256"`
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
}

// validator is the value for If-Range: only a strong one may be used.
func (a about) validator() string {
	if a.ETag != "" && !strings.HasPrefix(a.ETag, "W/") {
		return a.ETag
	}
	return a.LastModified
}

func (p *part) notes() string { return p.path + ".json" }

func (p *part) size() int64 {
	info, err := os.Stat(p.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// drop removes the part, forget only what is known of it.
func (p *part) drop() {
	_ = os.Remove(p.path)
	p.forget()
}

func (p *part) forget() { _ = os.Remove(p.notes()) }

// known returns what the server said of the part; nothing where it is of another
// URL.
func (p *part) known() about {
	var a about
	data, err := os.ReadFile(p.notes())
	if err != nil || json.Unmarshal(data, &a) != nil || a.Source != source(p.url) {
		return about{}
	}
	return a
}

func source(address string) string {
	sum := sha256.Sum256([]byte(address))
	return hex.EncodeToString(sum[:])
}

// open opens the part to go on after n bytes, whose hash it computes.
func (p *part) open(ctx context.Context, n int64) (*os.File, error) {
	f, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p.hash, p.written, p.resumed = sha256.New(), n, n > 0
	if err = f.Truncate(n); err == nil {
		_, err = io.CopyN(p.hash, reader{ctx, f}, n)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// statusError is an answer that is no content.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return "the server says " + e.text }

// client is made anew for each try: connections are not kept, so that a try after
// a failure begins with a fresh one.
func (c *Client) client() *http.Client {
	transport := c.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: connectPatience}).DialContext,
			TLSHandshakeTimeout:   connectPatience,
			ResponseHeaderTimeout: or(c.Stall, defaultStall),
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:     true,
			DisableKeepAlives:     true,
		}
	}
	return &http.Client{Transport: transport, CheckRedirect: redirect}
}

func redirect(r *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	switch {
	case len(via) > maxRedirects:
		return permanent(fmt.Errorf("more than %d redirects", maxRedirects))
	case last.URL.Scheme == "https" && r.URL.Scheme != "https":
		return permanent(fmt.Errorf("redirect from https to %q", r.URL.Scheme))
	}
	return nil
}

// ask sends a request and returns an answer with content.
func (c *Client) ask(ctx context.Context, address string, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, permanent(err)
	}
	agent := c.Agent
	if agent == "" {
		agent = "mica"
	}
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Accept-Encoding", "identity") // ranges and digests are of the file itself
	for key, value := range header {
		req.Header.Set(key, value)
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return nil, classify(err)
	}
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent && header["Range"] != "":
		return resp, nil
	}
	_ = resp.Body.Close()
	f := &failure{err: &statusError{resp.StatusCode, resp.Status}, permanent: true}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusRequestedRangeNotSatisfiable,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		f.permanent = false
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
			f.after = min(time.Duration(seconds), 3600) * time.Second
		}
	}
	return nil, f
}

// classify says whether another try may help.
func classify(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var address *url.Error // names the URL, after redirects another one, with its signature
	if errors.As(err, &address) {
		err = address.Err
	}
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	f = &failure{err: err}
	switch {
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &dns) && dns.IsNotFound,
		errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), strings.Contains(err.Error(), "unsupported protocol scheme"):
		f.permanent = true
	}
	return f
}

// try makes one attempt to bring the part to its end.
func (c *Client) try(ctx context.Context, r Request, p *part) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	header := map[string]string{}
	offset := p.size()
	validator := p.known().validator()
	if validator == "" && r.SHA256 == "" { // nothing would tell old from new
		offset = 0
	}
	if offset > 0 {
		header["Range"] = fmt.Sprintf("bytes=%d-", offset)
		if validator != "" {
			header["If-Range"] = validator
		}
	}
	c.emit(progress.Event{ID: r.Name, Phase: "downloading", Done: offset, Unit: progress.Bytes})
	resp, err := c.ask(ctx, r.URL, header)
	if err != nil {
		var status *statusError
		if errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable {
			p.drop()
		}
		return err
	}
	defer resp.Body.Close()
	if offset, err = begins(resp, offset); err != nil {
		p.drop()
		return err
	}
	if err := c.refuse(r, resp, offset); err != nil {
		return err
	}
	a := about{Source: source(r.URL), ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified")}
	if data, err := json.Marshal(a); err != nil {
		return permanent(err)
	} else if err := atomicfile.Write(p.notes(), data, 0o600); err != nil {
		return permanent(err)
	}
	f, err := p.open(ctx, offset)
	if err != nil {
		return permanent(err)
	}
	err = c.pour(ctx, stop, r, p, f, resp)
	if serr := f.Sync(); err == nil && serr != nil {
		err = permanent(serr)
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = permanent(cerr)
	}
	return err
}

// begins returns the offset that an answer's content begins at.
func begins(resp *http.Response, asked int64) (int64, error) {
	if resp.StatusCode == http.StatusOK {
		return 0, nil
	}
	var first, last, total int64
	text := resp.Header.Get("Content-Range")
	if n, err := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &total); n < 2 || err != nil && n != 2 || first != asked {
		return 0, &failure{err: fmt.Errorf("the server sends range %q, asked for one from %d", text, asked)}
	}
	return asked, nil
}

// refuse looks at what an answer says of itself.
func (c *Client) refuse(r Request, resp *http.Response, offset int64) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "text/html" && !strings.HasSuffix(BaseName(r.URL), ".html") {
		return permanent(fmt.Errorf("the server sends a web page in place of the file: a login page of the network, or a wrong address"))
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return permanent(fmt.Errorf("the server sends the file in encoding %q, which was not asked for", encoding))
	}
	if r.Max > 0 && resp.ContentLength > 0 && offset+resp.ContentLength > r.Max {
		return permanent(tooLarge(r, offset+resp.ContentLength))
	}
	return nil
}

const (
	chunk = 256 << 10
	often = 250 * time.Millisecond // between two progress events
)

// pour copies the content into the part. stop is called when nothing has come
// for too long.
func (c *Client) pour(ctx context.Context, stop func(), r Request, p *part, f *os.File, resp *http.Response) error {
	var total int64
	if resp.ContentLength >= 0 {
		total = p.written + resp.ContentLength
	}
	patience := or(c.Stall, defaultStall)
	watchdog := time.AfterFunc(patience, stop)
	defer watchdog.Stop()
	buf := make([]byte, chunk)
	var told time.Time
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			watchdog.Reset(patience)
			if r.Max > 0 && p.written+int64(n) > r.Max {
				return permanent(tooLarge(r, p.written+int64(n)))
			}
			if _, werr := f.Write(buf[:n]); werr != nil {
				return permanent(werr)
			}
			p.hash.Write(buf[:n])
			p.written += int64(n)
			if now := time.Now(); now.Sub(told) >= often {
				told = now
				c.emit(progress.Event{ID: r.Name, Phase: "downloading", Done: p.written, Total: total, Unit: progress.Bytes})
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil && !watchdog.Stop():
			return &failure{err: fmt.Errorf("the server sent nothing for %s", patience)}
		case err != nil:
			return classify(err)
		}
	}
}
