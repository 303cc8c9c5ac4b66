package download

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
)

// The bounds of a download that Client leaves at zero.
const (
	defaultTries    = 5
	defaultStall    = 60 * time.Second
	defaultBackoff  = 500 * time.Millisecond
	longestBackoff  = 30 * time.Second
	connectPatience = 10 * time.Second
	maxRedirects    = 5
	maxRounds       = 100 // tries that got a little further each
)

// Client fetches files. The zero value works. It may be used from several
// goroutines at once.
type Client struct {
	Transport http.RoundTripper // nil is one that verifies TLS and heeds the proxy variables
	Log       *slog.Logger      // nil discards
	Progress  progress.Sink     // nil discards
	Agent     string            // the User-Agent; empty is "mica"

	Tries   int           // how often in a row nothing may come; 0 is 5
	Stall   time.Duration // how long a server may send nothing; 0 is a minute
	Backoff time.Duration // the wait before the second try, doubled before each other; 0 is half a second
	Jitter  func() float64
}

// Request is one file.
type Request struct {
	URL    string // http, https or file
	Path   string // where the file is to be; its folder exists
	SHA256 string // of its content, in hex; empty leaves it unverified
	Name   string // what to call it in progress events; empty is the last part of Path
	Max    int64  // the most bytes it may have; 0 is no bound
}

// Result says what is there now.
type Result struct {
	Size    int64
	SHA256  string
	Fetched bool // false: it was there already
}

func (c *Client) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// File makes sure that the file is there, and is right.
func (c *Client) File(ctx context.Context, r Request) (Result, error) {
	r.SHA256 = strings.ToLower(r.SHA256)
	if r.SHA256 != "" && !isDigest(r.SHA256) {
		return Result{}, fail.New(fail.Usage, "%q is no SHA-256 digest in hex", r.SHA256)
	}
	if r.Name == "" {
		r.Name = filepath.Base(r.Path)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return Result{}, unreadable(err)
	}
	free, err := c.lock(ctx, r)
	if err != nil {
		return Result{}, err
	}
	defer free()
	if have, err := c.present(ctx, r); err != nil || have != nil {
		return deref(have), err
	}
	switch u.Scheme {
	case "http", "https":
		return c.fetch(ctx, r)
	case "file":
		return c.copy(ctx, r, u)
	}
	return Result{}, fail.New(fail.Usage, "cannot fetch %q: mica fetches from http, https and file URLs", Shown(r.URL))
}

func deref(r *Result) Result {
	if r == nil {
		return Result{}
	}
	return *r
}

func isDigest(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == sha256.Size
}

func (c *Client) lock(ctx context.Context, r Request) (func(), error) {
	l, err := atomicfile.TryLock(r.Path + ".lock")
	if errors.Is(err, atomicfile.ErrLocked) {
		c.emit(progress.Event{ID: r.Name, Phase: "waiting for another command that downloads it"})
		l, err = atomicfile.Acquire(ctx, r.Path+".lock")
	}
	if err != nil {
		return nil, fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
	}
	return func() { _ = l.Unlock() }, nil
}

func (c *Client) emit(e progress.Event) { progress.Or(c.Progress).Emit(e) }

// present looks at the file that is there; nil means there is none. One with
// another digest is removed.
func (c *Client) present(ctx context.Context, r Request) (*Result, error) {
	f, err := os.Open(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, reader{ctx, f})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", r.Path, err)
	}
	got := Result{Size: size, SHA256: hex.EncodeToString(h.Sum(nil))}
	if r.SHA256 == "" || got.SHA256 == r.SHA256 {
		return &got, nil
	}
	c.log().Warn("a kept file is damaged, fetching it again", "path", r.Path, "want", r.SHA256, "have", got.SHA256)
	return nil, os.Remove(r.Path)
}

// fetch tries until the file is there, something permanent stands in the way, or
// nothing more comes.
func (c *Client) fetch(ctx context.Context, r Request) (Result, error) {
	p := part{path: r.Path + ".part", url: r.URL}
	if c.complete(ctx, r, &p) {
		return c.finish(r, &p)
	}
	tries, mismatches := 0, 0
	for round := 0; ; round++ {
		before := p.size()
		err := c.try(ctx, r, &p)
		if err == nil {
			got, err := c.finish(r, &p)
			if err == nil {
				return got, nil
			}
			// A part from another time may not fit; that is tried once more from
			// the beginning, and no more.
			if mismatches++; mismatches > 1 || !fail.Is(err, fail.Unverified) || !p.resumed {
				return Result{}, err
			}
			c.log().Warn("what was resumed does not match, starting anew", "url", Shown(r.URL))
			continue
		}
		var f *failure
		if ctx.Err() != nil || !errors.As(err, &f) || f.permanent {
			return Result{}, c.explain(ctx, r, err)
		}
		if tries++; p.size() > before {
			tries = 1
		}
		if tries >= or(c.Tries, defaultTries) || round >= maxRounds {
			return Result{}, c.explain(ctx, r, fmt.Errorf("%w (tried %d times)", err, round+1))
		}
		wait := c.wait(tries, f.after)
		c.log().Info("a download broke off", "url", Shown(r.URL), "error", err, "wait", wait)
		c.emit(progress.Event{ID: r.Name, Phase: fmt.Sprintf("trying again: %v", f.err)})
		if err := sleep(ctx, wait); err != nil {
			return Result{}, fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
		}
	}
}

// complete reports whether the part is the whole file: a command was cut short
// just before the end.
func (c *Client) complete(ctx context.Context, r Request, p *part) bool {
	n := p.size()
	if n == 0 || r.SHA256 == "" {
		return false
	}
	f, err := p.open(ctx, n)
	if err != nil {
		return false
	}
	f.Close()
	return hex.EncodeToString(p.hash.Sum(nil)) == r.SHA256
}

func or[T int | time.Duration](value, fallback T) T {
	if value == 0 {
		return fallback
	}
	return value
}

// wait is how long to wait before the next try: twice as long each time, half of
// it by chance, and not less than the server asked for, within reason.
func (c *Client) wait(try int, asked time.Duration) time.Duration {
	t := min(or(c.Backoff, defaultBackoff)<<min(try-1, 16), longestBackoff)
	jitter := rand.Float64
	if c.Jitter != nil {
		jitter = c.Jitter
	}
	t = t/2 + time.Duration(jitter()*float64(t/2))
	return max(t, min(asked, longestBackoff))
}

func sleep(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// finish verifies the part and gives it its name.
func (c *Client) finish(r Request, p *part) (Result, error) {
	got := Result{Size: p.written, SHA256: hex.EncodeToString(p.hash.Sum(nil)), Fetched: true}
	if r.SHA256 != "" && got.SHA256 != r.SHA256 {
		p.drop()
		return Result{}, fail.New(fail.Unverified, "downloading %s: the digest is %s, not %s", Shown(r.URL), got.SHA256, r.SHA256).
			Hint("the server has other content under this address, or it was changed on the way")
	}
	if err := os.Rename(p.path, r.Path); err != nil {
		return Result{}, fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
	}
	p.forget()
	if dir, err := os.Open(filepath.Dir(r.Path)); err == nil {
		_ = dir.Sync() // the file is whole; only its name could be lost
		dir.Close()
	}
	c.emit(progress.Event{ID: r.Name, Phase: "downloaded", Done: got.Size, Total: got.Size, Unit: progress.Bytes, Finished: true})
	return got, nil
}

// failure is what one try met.
type failure struct {
	err       error
	permanent bool
	after     time.Duration // how long the server asks us to wait
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func permanent(err error) error { return &failure{err: err, permanent: true} }

// explain gives the last error its class and hints.
func (c *Client) explain(ctx context.Context, r Request, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("downloading %s: %w", Shown(r.URL), ctx.Err())
	}
	var cert *tls.CertificateVerificationError
	var status *statusError
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fail.New(fail.Failed, "downloading %s: %w", Shown(r.URL), err).
			Hint("free some space in %s; the download goes on where it broke off", filepath.Dir(r.Path))
	case errors.As(err, &cert):
		return fail.New(fail.Unverified, "downloading %s: %w", Shown(r.URL), err).
			Hint("see that the clock of this computer is right and its CA certificates are installed (package ca-certificates)")
	case errors.As(err, &status) && (status.code == http.StatusNotFound || status.code == http.StatusGone):
		return fail.New(fail.NotFound, "downloading %s: %w", Shown(r.URL), err)
	case errors.As(err, &dns):
		return fail.New(fail.Refused, "downloading %s: %w", Shown(r.URL), err).Hint("see whether this computer is connected to the network")
	}
	var known *fail.Error
	if errors.As(err, &known) {
		return fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
	}
	return fail.New(fail.Refused, "downloading %s: %w", Shown(r.URL), err)
}

// copy serves file:// URLs, all or nothing.
func (c *Client) copy(ctx context.Context, r Request, u *url.URL) (Result, error) {
	src, err := openURL(r, u)
	if err != nil {
		return Result{}, err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return Result{}, fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
	}
	if r.Max > 0 && info.Size() > r.Max {
		return Result{}, tooLarge(r, info.Size())
	}
	dst, err := atomicfile.Create(r.Path, 0o600)
	if err != nil {
		return Result{}, fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
	}
	defer dst.Close() //nolint:errcheck // Commit reports
	h := sha256.New()
	size, err := io.Copy(io.MultiWriter(dst, h), reader{ctx, src})
	if err != nil {
		return Result{}, c.explain(ctx, r, err)
	}
	got := Result{Size: size, SHA256: hex.EncodeToString(h.Sum(nil)), Fetched: true}
	if r.SHA256 != "" && got.SHA256 != r.SHA256 {
		return Result{}, fail.New(fail.Unverified, "downloading %s: the digest is %s, not %s", Shown(r.URL), got.SHA256, r.SHA256)
	}
	return got, dst.Commit()
}

// openURL opens the plain file that a file URL names.
func openURL(r Request, u *url.URL) (*os.File, error) {
	if u.Host != "" && u.Host != "localhost" {
		return nil, fail.New(fail.Usage, "cannot fetch %q: a file URL names no other computer", Shown(r.URL)).Hint("write file:///path")
	}
	f, err := os.Open(filepath.FromSlash(u.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail.New(fail.NotFound, "downloading %s: %w", Shown(r.URL), err)
	}
	if err != nil {
		return nil, fmt.Errorf("downloading %s: %w", Shown(r.URL), err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fail.New(fail.Usage, "downloading %s: it is no file", Shown(r.URL))
	}
	return f, nil
}

func tooLarge(r Request, size int64) error {
	return fail.New(fail.Refused, "downloading %s: it has %d bytes, at most %d are wanted", Shown(r.URL), size, r.Max)
}

// reader stops reading when ctx is cancelled.
type reader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Shown is a URL as it may be told: a password and a query, which as a rule is a
// signature or a token, are left out.
func Shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the URL"
	}
	if u.RawQuery != "" {
		u.RawQuery = "..."
	}
	return u.Redacted()
}

// unreadable tells why a URL cannot be read, without the URL: where a password in
// it ends is not known.
func unreadable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fail.New(fail.Usage, "reading the URL: %w", err)
}

// BaseName returns the last part of a URL's path, as a file's name: without what
// follows a '?' or '#'. It is empty where there is none that could be used: a
// backslash would lead to another folder on Windows.
func BaseName(address string) string {
	if at := strings.IndexAny(address, "?#"); at >= 0 {
		address = address[:at]
	}
	name := path.Base(address)
	if name == "." || name == ".." || name == "/" || strings.HasSuffix(address, "/") || strings.Contains(name, `\`) {
		return ""
	}
	return name
}
