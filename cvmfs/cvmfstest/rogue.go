package cvmfstest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Fault answers a request in place of the files.
type Fault func(w http.ResponseWriter, r *http.Request, files http.Handler)

// Rogue serves a repository over HTTP and misbehaves as it is told. Its methods
// may be called at any time.
type Rogue struct {
	Base string // URL of the repository

	server *httptest.Server
	files  atomic.Pointer[http.Handler]

	mu       sync.Mutex // guards the following
	rule     func(path string, n int) Fault
	requests map[string]int // by path
	fresh    map[string]int // those that asked not to be answered from a cache
}

// NewRogue serves the repository in the directory repo, whose last part is the
// repository's name.
func NewRogue(t testing.TB, repo string) *Rogue {
	t.Helper()
	s := &Rogue{requests: map[string]int{}, fresh: map[string]int{}}
	s.Serve(repo)
	prefix := "/cvmfs/" + path.Base(repo)
	s.server = httptest.NewServer(http.StripPrefix(prefix, s))
	t.Cleanup(s.server.Close)
	s.Base = s.server.URL + prefix
	return s
}

// ServeHTTP implements http.Handler.
func (s *Rogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := s.requests[r.URL.Path]
	s.requests[r.URL.Path]++
	if r.Header.Get("Cache-Control") == "no-cache" {
		s.fresh[r.URL.Path]++
	}
	var f Fault
	if s.rule != nil {
		f = s.rule(r.URL.Path, n)
	}
	s.mu.Unlock()
	files := *s.files.Load()
	if f == nil {
		files.ServeHTTP(w, r)
		return
	}
	f(w, r, files)
}

// Serve goes on with the files of another directory.
func (s *Rogue) Serve(repo string) {
	h := http.FileServer(http.Dir(repo))
	s.files.Store(&h)
}

// Set says how to behave from now on: rule gets the path below the repository
// and how often it was asked for before, and returns nil for a right answer. It
// forgets the requests so far. A nil rule makes an honest server.
func (s *Rogue) Set(rule func(path string, n int) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rule = rule
	clear(s.requests)
	clear(s.fresh)
}

// Count returns how often a path was asked for.
func (s *Rogue) Count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// Requests calls visit for each path that was asked for. fresh is how many of the
// n requests wanted no cache on the way to answer.
func (s *Rogue) Requests(visit func(path string, n, fresh int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, n := range s.requests {
		visit(p, n, s.fresh[p])
	}
}

// Total returns the number of requests.
func (s *Rogue) Total() int {
	total := 0
	s.Requests(func(_ string, n, _ int) { total += n })
	return total
}

// IsObject tells a path of an object from those of the signed files.
func IsObject(path string) bool { return strings.HasPrefix(path, "/data/") }

// Status is a fault that answers with an error of HTTP.
func Status(code int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.Error(w, "no", code) }
}

// Body is a fault that gives some bytes for whatever is asked for.
func Body(data []byte) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write(data) }
}

// Faults are what servers, and all that comes between them and a client, have
// been seen to do.
var Faults = map[string]Fault{
	"hangs": func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Second):
		}
	},
	"crawls": func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := answer(r, files)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		for i := range data {
			if _, err := w.Write(data[i : i+1]); err != nil || r.Context().Err() != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	},
	"cuts": func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := answer(r, files)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		abort()
	},
	"hangs up": func(http.ResponseWriter, *http.Request, http.Handler) { abort() },
	"shortens": func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := answer(r, files)
		_, _ = w.Write(data[:max(len(data)-1, 0)])
	},
	"lengthens": func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		_, _ = w.Write(append(answer(r, files), 'x'))
	},
	"garbles": func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		data := answer(r, files)
		data[len(data)/2] ^= 1
		_, _ = w.Write(data)
	},
	"swaps": func(w http.ResponseWriter, r *http.Request, files http.Handler) { // a good answer to another question
		r = r.Clone(r.Context())
		r.URL.Path = "/.cvmfsreflog"
		files.ServeHTTP(w, r)
	},
	"empties": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.Header().Set("Content-Length", "0") },
	"captures": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { // as the login page of a wireless network does
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>please log in</html>")
	},
	"zips": func(w http.ResponseWriter, r *http.Request, files http.Handler) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(append([]byte{0x1f, 0x8b}, answer(r, files)...))
	},
	"never ends": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		zeros := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
	},
	"redirects": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	},
	"redirects in a circle": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Location", r.RequestURI)
		w.WriteHeader(http.StatusFound)
	},
	"403": Status(http.StatusForbidden), "404": Status(http.StatusNotFound), "429": Status(http.StatusTooManyRequests),
	"500": Status(http.StatusInternalServerError), "503": Status(http.StatusServiceUnavailable),
}

// answer is what the files would say.
func answer(r *http.Request, files http.Handler) []byte {
	rec := httptest.NewRecorder()
	files.ServeHTTP(rec, r)
	return rec.Body.Bytes()
}

// abort ends an answer where it is.
func abort() {
	panic(http.ErrAbortHandler) //nolint:forbidigo // as package http has it
}
