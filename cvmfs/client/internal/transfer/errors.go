package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// ErrBad is wrapped by the error of an Accept function when the received bytes
// are wrong. Any other error of it is a local one and ends the request.
var ErrBad = errors.New("wrong data received")

// ErrNoServer says that there is no server to ask.
var ErrNoServer = errors.New("no server given")

// ErrNoProxy says that a list names no proxy that can be used.
var ErrNoProxy = errors.New("no usable proxy")

// Class says who is to blame for a failed attempt, which decides what is tried
// next.
type Class uint8

// The classes. Each comes for the server and for the proxy in front of it.
const (
	Local           Class = iota // this machine: disk, cancelled request
	HostResolve                  // the name is not known
	HostConnection               // no connection
	HostTooSlow                  // timeout, or less than the lowest bearable speed
	HostShort                    // the connection ended early
	HostHTTP                     // an error status
	ProxyResolve                 // as above, of the proxy
	ProxyConnection              //
	ProxyTooSlow                 //
	ProxyShort                   //
	ProxyHTTP                    //
	BadData                      // the bytes are not what was asked for
	NotFound                     // the server says that it has no such object
)

var classNames = map[Class]string{
	Local: "local", HostResolve: "host-resolve", HostConnection: "host-connection", HostTooSlow: "host-too-slow",
	HostShort: "host-short", HostHTTP: "host-http", ProxyResolve: "proxy-resolve", ProxyConnection: "proxy-connection",
	ProxyTooSlow: "proxy-too-slow", ProxyShort: "proxy-short", ProxyHTTP: "proxy-http", BadData: "bad-data", NotFound: "not-found",
}

func (c Class) String() string { return classNames[c] }

// transferError reports whether the same request may well succeed a moment later.
func (c Class) transferError() bool {
	switch c {
	case HostConnection, HostTooSlow, HostShort, ProxyConnection, ProxyTooSlow, ProxyShort:
		return true
	}
	return false
}

func (c Class) proxyError() bool { return c >= ProxyResolve && c <= ProxyHTTP }

// Attempt is one try that failed.
type Attempt struct {
	Server string
	Proxy  string // DIRECT or a URL
	Class  Class
	Status int // of HTTP, 0 if there was none
	Err    error
}

func (a Attempt) String() string {
	way := ""
	if a.Proxy != Direct && a.Proxy != "" {
		way = " through " + Masked(a.Proxy)
	}
	return fmt.Sprintf("%s%s: %v", Masked(a.Server), way, a.Err)
}

// secret is the name and the password in a URL.
var secret = regexp.MustCompile(`(://)[^/@\s]*@`)

// Masked returns a text with stars for what its URLs have in front of the host, so
// that no password gets into messages and logs.
func Masked(text string) string { return secret.ReplaceAllString(text, "${1}***@") }

// Error is a request that failed for good.
type Error struct {
	Path     string
	Attempts []Attempt // in order, never empty
}

// maxAttempts bounds what is remembered of a request that never gives up.
const maxAttempts = 100

func (e *Error) add(a Attempt) {
	if len(e.Attempts) == maxAttempts {
		e.Attempts = append(e.Attempts[:0], e.Attempts[maxAttempts/2:]...)
	}
	e.Attempts = append(e.Attempts, a)
}

// Error names every server and proxy that was tried, once each.
func (e *Error) Error() string {
	var parts []string
	seen := map[string]bool{}
	for _, a := range e.Attempts {
		if text := a.String(); !seen[text] {
			seen[text] = true
			parts = append(parts, text)
		}
	}
	return fmt.Sprintf("getting %q: %s", e.Path, strings.Join(parts, "; "))
}

// Unwrap returns the causes of all attempts.
func (e *Error) Unwrap() []error {
	causes := make([]error, 0, len(e.Attempts))
	for _, a := range e.Attempts {
		causes = append(causes, a.Err)
	}
	return causes
}

// Missing reports whether every server that was reached lacks the object.
func (e *Error) Missing() bool {
	for _, a := range e.Attempts {
		if a.Class != NotFound {
			return false
		}
	}
	return true
}

var (
	errWhole     = errors.New("gave all of a file where a part was asked for")
	errAbsent    = errors.New("no such object")
	errSlow      = errors.New("too slow")
	errRequest   = errors.New("the request cannot be made")
	errRedirect  = errors.New("answered with a redirect, which is not followed")
	errRedirects = errors.New("redirects lead on and on, or to where they must not")
)

// statusError is an HTTP answer that is not 200.
type statusError int

func (s statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("answered with status %d %s", int(s), http.StatusText(int(s))))
}

// classify finds the class of a failed round trip or read.
func classify(err error, viaProxy bool) Class {
	var class Class
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	var untrusted *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.Is(err, errRequest):
		return Local
	case errors.Is(err, errSlow):
		class = HostTooSlow
	case errors.As(err, &untrusted), errors.As(err, &alert):
		class = HostHTTP // trying again would not help
	case errors.As(err, &dns):
		class = HostResolve
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		class = HostConnection
	case errors.As(err, &timeout) && timeout.Timeout():
		class = HostTooSlow
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Local
	default:
		class = HostShort
	}
	if viaProxy {
		class += ProxyResolve - HostResolve
	}
	return class
}

// classifyStatus finds the class of an answer that is not 200. All headers are
// there by now, so that a proxy's own error is told from the server's.
func classifyStatus(resp *http.Response, viaProxy, followed bool) (Class, error) {
	status := resp.StatusCode
	err := error(statusError(status))
	class := HostHTTP
	switch {
	case viaProxy && (resp.Header.Get("X-Squid-Error") != "" || strings.Contains(resp.Header.Get("Proxy-Status"), "error=")):
		class = ProxyHTTP
	case status == http.StatusNotFound:
		class = NotFound
	case status == http.StatusOK:
		err = errWhole
	case status == http.StatusTooManyRequests:
		class = HostConnection
	case status >= 300 && status < 400:
		err = errRedirect
		if followed {
			err = errRedirects
		}
	case status >= 500 || status == http.StatusBadRequest:
	case viaProxy:
		class = ProxyHTTP
	}
	return class, err
}

// cause drops the URL that net/http puts in front: the attempt names it anyway.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
