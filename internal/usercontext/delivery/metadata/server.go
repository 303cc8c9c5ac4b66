package metadata

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// Family is one dialect of metadata services.
type Family string

// The families. CloudStack's clients read EC2's tree.
const (
	EC2       Family = "ec2"
	OpenStack Family = "openstack"
	GCE       Family = "gce"
	Azure     Family = "azure"
	NoCloud   Family = "nocloud"
)

// Families returns every family.
func Families() []Family { return []Family{EC2, OpenStack, GCE, Azure, NoCloud} }

// DefaultFamilies are those that do not make a client take the host for another
// cloud.
func DefaultFamilies() []Family { return []Family{EC2, OpenStack, NoCloud} }

// Machine is one machine that is served.
type Machine struct {
	Name     string           // for the log
	Address  netip.Addr       // what its requests come from; zero serves it by secret or own listener only
	MAC      net.HardwareAddr // must be behind Address, if Options.Neighbour can tell; nil is not checked
	Secret   string           // first element of its NoCloud paths, see NewSecret; empty has none
	UserData []byte
	Meta     delivery.Meta
}

// Options are what a server is made of.
type Options struct {
	Machines  []Machine
	Families  []Family                                   // nil is DefaultFamilies
	TokenOnly bool                                       // EC2's tree needs a session token; µCernVM and amiconfig know none
	Neighbour func(netip.Addr) (net.HardwareAddr, error) // finds the hardware address behind an address; nil checks none
	Now       func() time.Time                           // nil is time.Now
	Random    io.Reader                                  // nil is crypto/rand
	Log       *slog.Logger                               // nil discards
}

// Server is an http.Handler. It is safe for concurrent use.
type Server struct {
	o         Options
	byAddress map[netip.Addr]*Machine
	bySecret  map[[sha256.Size]byte]*Machine
	tokenKey  []byte

	mu    sync.Mutex // guards count
	count map[string]*window
}

// window counts the requests of one second.
type window struct {
	second int64
	n      int
}

// Requests a second that a machine, or all strangers together, may make. A boot
// makes some fifty.
const perSecond = 200

// NewSecret makes a secret for a machine's NoCloud paths, of 160 random bits.
func NewSecret(random io.Reader) (string, error) {
	b := make([]byte, 20)
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("making secret: %w", err)
	}
	return fmt.Sprintf("%x", b), nil
}

// goodSecret says whether a secret can be an element of a path, and is no guess. A
// regular expression would cost every start of the program two milliseconds.
func goodSecret(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return len(s) >= 22 && len(s) <= 128 && strings.Trim(s, letters) == ""
}

// New checks the machines and makes a server.
func New(o Options) (*Server, error) {
	if o.Families == nil {
		o.Families = DefaultFamilies()
	}
	for _, f := range o.Families {
		if !slices.Contains(Families(), f) {
			return nil, fail.New(fail.Usage, "unknown metadata family %q", f)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, byAddress: map[netip.Addr]*Machine{}, bySecret: map[[sha256.Size]byte]*Machine{}, count: map[string]*window{}, tokenKey: make([]byte, 32)}
	if _, err := io.ReadFull(o.Random, s.tokenKey); err != nil {
		return nil, fmt.Errorf("making token key: %w", err)
	}
	names := map[string]bool{}
	for _, m := range o.Machines {
		var err error
		if m.Meta, err = m.Meta.Complete(m.UserData); err != nil {
			return nil, fmt.Errorf("machine %q: %w", m.Name, err)
		}
		if m.Name == "" || names[m.Name] {
			return nil, fail.New(fail.Usage, "machine name %q is empty or used twice", m.Name)
		}
		names[m.Name] = true
		if m.Address.IsValid() {
			m.Address = m.Address.Unmap().WithZone("")
			if s.byAddress[m.Address] != nil {
				return nil, fail.New(fail.Usage, "two machines have address %v", m.Address)
			}
			s.byAddress[m.Address] = &m
		}
		if m.Secret != "" {
			if !goodSecret(m.Secret) {
				return nil, fail.New(fail.Usage, "secret of machine %q is not 22 to 128 letters, digits, hyphens and underscores", m.Name)
			}
			key := sha256.Sum256([]byte(m.Secret))
			if s.bySecret[key] != nil {
				return nil, fail.New(fail.Usage, "two machines have one secret")
			}
			s.bySecret[key] = &m
		}
	}
	return s, nil
}

// For returns a handler that takes every request for one of the named machine's:
// for a listener that only that machine can reach.
func (s *Server) For(name string) (http.Handler, error) {
	for i := range s.o.Machines {
		if s.o.Machines[i].Name != name {
			continue
		}
		m := s.o.Machines[i]
		var err error
		if m.Meta, err = m.Meta.Complete(m.UserData); err != nil {
			return nil, err
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, &m) }), nil
	}
	return nil, fail.New(fail.NotFound, "no machine %q", name)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.serve(w, r, s.peer(r)) }

// peer finds the machine that a request comes from, or nil.
func (s *Server) peer(r *http.Request) *Machine {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	m := s.byAddress[ap.Addr().Unmap().WithZone("")]
	if m == nil || !s.rightMAC(m) {
		return nil
	}
	return m
}

func (s *Server) rightMAC(m *Machine) bool {
	if m.MAC == nil || s.o.Neighbour == nil {
		return true
	}
	mac, err := s.o.Neighbour(m.Address)
	if err != nil || mac.String() != m.MAC.String() {
		s.o.Log.Warn("address is used by another machine", "machine", m.Name, "address", m.Address, "mac", mac, "error", err)
		return false
	}
	return true
}

// request is one request on its way.
type request struct {
	*http.Request
	machine *Machine // whose data is asked for
	path    []string
	now     time.Time
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, peer *Machine) {
	a := s.answer(w, r, peer)
	name := "stranger"
	if a.machine != nil {
		name = a.machine.Name
	}
	s.o.Log.Info("metadata", "machine", name, "method", r.Method, "path", a.logged, "status", a.status)
	a.write(w, r.Method)
}

// reply is what goes back.
type reply struct {
	status  int
	kind    string // content type
	body    []byte
	header  map[string]string
	machine *Machine
	logged  string // the path, secret masked
}

const (
	plain = "text/plain; charset=utf-8"
	bytes = "application/octet-stream"
	jsonT = "application/json"
)

func text(body string) reply           { return reply{status: http.StatusOK, kind: plain, body: []byte(body)} }
func raw(kind string, b []byte) reply  { return reply{status: http.StatusOK, kind: kind, body: b} }
func status(code int) reply            { return reply{status: code} }
func (a reply) with(k, v string) reply { a.header = map[string]string{k: v}; return a }

var missing = status(http.StatusNotFound)

// write sends the reply. Errors are HTML: amiconfig takes anything else for data.
func (a reply) write(w http.ResponseWriter, method string) {
	if a.status != http.StatusOK {
		title := fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
		a.kind, a.body = "text/html", []byte("<html><head><title>"+title+"</title></head><body><h1>"+title+"</h1></body></html>\n")
	}
	h := w.Header()
	h.Set("Server", "Mica")
	h.Set("Content-Type", a.kind)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	for k, v := range a.header {
		h.Set(k, v)
	}
	w.WriteHeader(a.status)
	if method != http.MethodHead {
		_, _ = w.Write(a.body) // a client that went away is no fault of ours
	}
}

// answer finds the machine and the family, and asks it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, peer *Machine) reply {
	path, ok := split(r)
	if !ok || !allowedHost(r.Host) {
		a := missing
		a.logged = "(refused)"
		return a
	}
	q := request{Request: r, machine: peer, path: path, now: s.o.Now()}
	logged := "/" + strings.Join(path, "/")
	serve := s.family
	if len(path) > 0 && s.serves(NoCloud) {
		if m := s.bySecret[sha256.Sum256([]byte(path[0]))]; m != nil {
			// Where the address is known too, both must be right.
			if m.Address.IsValid() && (peer == nil || peer.Name != m.Name) {
				m = nil
			}
			q.machine, q.path = m, path[1:]
			logged = "/********/" + strings.Join(path[1:], "/")
			serve = func(_ http.ResponseWriter, q request) reply { return noCloud(q) }
		}
	}
	a := missing
	switch {
	case !s.admit(q):
		a = status(http.StatusTooManyRequests).with("Retry-After", "1")
	case q.machine != nil:
		a = serve(w, q)
	}
	a.machine, a.logged = q.machine, logged
	return a
}

func (s *Server) serves(f Family) bool { return slices.Contains(s.o.Families, f) }

// family picks the dialect by the first element of the path.
func (s *Server) family(w http.ResponseWriter, q request) reply {
	first := ""
	if len(q.path) > 0 {
		first = q.path[0]
	}
	switch {
	case first == "openstack" && s.serves(OpenStack):
		return openStack(q)
	case first == "computeMetadata" && s.serves(GCE):
		return google(q)
	case first == "metadata" && s.serves(Azure):
		return azure(q)
	case first == "openstack" || first == "computeMetadata" || first == "metadata":
		return missing
	case s.serves(EC2) || s.serves(OpenStack): // OpenStack has EC2's tree beside its own
		return s.ec2(w, q)
	}
	return missing
}

// split takes the path apart. Repeated slashes count once. Encoded separators and
// dots that would climb are refused, not resolved.
func split(r *http.Request) ([]string, bool) {
	escaped := strings.ToLower(r.URL.EscapedPath())
	if strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") || strings.Contains(escaped, "%00") {
		return nil, false
	}
	var parts []string
	for p := range strings.SplitSeq(r.URL.Path, "/") {
		switch p {
		case "":
		case ".", "..":
			return nil, false
		default:
			parts = append(parts, p)
		}
	}
	return parts, true
}

// allowedHost refuses names that a page in a guest's browser could have pointed
// here. An address cannot be pointed anywhere.
func allowedHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "" || host == "metadata.google.internal" || host == "metadata" || host == "localhost"
}

// admit counts a request against its machine's second.
func (s *Server) admit(q request) bool {
	name := "" // strangers share one
	if q.machine != nil {
		name = q.machine.Name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.count[name]
	if c == nil {
		c = &window{}
		s.count[name] = c
	}
	if now := q.now.Unix(); c.second != now {
		c.second, c.n = now, 0
	}
	c.n++
	return c.n <= perSecond
}

// reads says whether the method asks for data.
func (q request) reads() bool { return q.Method == http.MethodGet || q.Method == http.MethodHead }

// Serve serves on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving metadata: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	err := server.Shutdown(stopping)
	if err != nil {
		err = server.Close()
	}
	if serr := <-ended; serr != nil && !errors.Is(serr, http.ErrServerClosed) {
		err = serr
	}
	return err
}

// connKey finds a request's connection in its context.
type connKey struct{}
