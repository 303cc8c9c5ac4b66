package pac

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/dop251/goja"
)

const (
	maxStack    = 500 // calls in calls
	maxAnswer   = 16 << 10
	maxLookups  = 64
	lookupLimit = 3 * time.Second
)

// ErrScript says that a script is at fault: it does not compile, throws, runs too
// long, or answers with something else than text.
var ErrScript = errors.New("the proxy script failed")

// Env is what a script can see of the world.
type Env struct {
	Resolve func(ctx context.Context, host string) ([]string, error) // nil means the system's name service
	Address func() string                                            // of this computer; nil means that of the route out
	Now     func() time.Time
}

// Evaluate runs FindProxyForURL of a script. The answer is as the script gave it;
// none at all is DIRECT.
func Evaluate(ctx context.Context, script []byte, url, host string, env Env) (string, error) {
	vm := goja.New()
	vm.SetMaxCallStackSize(maxStack)
	stop := context.AfterFunc(ctx, func() { vm.Interrupt(context.Cause(ctx)) })
	defer stop()
	s := &sandbox{ctx: ctx, env: env}
	for name, f := range s.functions() {
		if err := vm.Set(name, f); err != nil {
			return "", fmt.Errorf("preparing a proxy script: %w", err)
		}
	}
	if _, err := vm.RunString(string(script)); err != nil {
		return "", fail(ctx, err)
	}
	find, ok := goja.AssertFunction(vm.Get("FindProxyForURL"))
	if !ok {
		return "", fmt.Errorf("%w: it has no function FindProxyForURL", ErrScript)
	}
	value, err := find(goja.Undefined(), vm.ToValue(url), vm.ToValue(host))
	if err != nil {
		return "", fail(ctx, err)
	}
	if goja.IsNull(value) {
		return "DIRECT", nil
	}
	answer, ok := value.Export().(string)
	if !ok || len(answer) > maxAnswer {
		return "", fmt.Errorf("%w: its answer is no text, or too long", ErrScript)
	}
	if strings.TrimSpace(answer) == "" {
		answer = "DIRECT"
	}
	return answer, nil
}

func fail(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: it does not end: %w", ErrScript, context.Cause(ctx))
	}
	return fmt.Errorf("%w: %w", ErrScript, err)
}

// sandbox has the functions that scripts may call.
type sandbox struct {
	ctx     context.Context //nolint:containedctx // of one evaluation
	env     Env
	lookups int
}

func (s *sandbox) functions() map[string]any {
	return map[string]any{
		"isPlainHostName": func(host string) bool { return !strings.Contains(host, ".") },
		"dnsDomainIs": func(host, domain string) bool {
			return strings.HasSuffix(strings.ToLower(host), strings.ToLower(domain))
		},
		"localHostOrDomainIs": func(host, full string) bool {
			return host == full || !strings.Contains(host, ".") && strings.HasPrefix(full, host+".")
		},
		"dnsDomainLevels": func(host string) int { return strings.Count(host, ".") },
		"isResolvable":    func(host string) bool { return s.resolve(host) != "" },
		"dnsResolve": func(host string) any {
			if a := s.resolve(host); a != "" {
				return a
			}
			return nil
		},
		"isInNet": s.isInNet,
		"convert_addr": func(address string) uint32 {
			n, _ := quad(address)
			return n
		},
		"myIpAddress":  s.address,
		"shExpMatch":   match,
		"weekdayRange": func(args ...string) bool { return weekdayRange(s.now(), args) },
		"dateRange":    func(args ...string) bool { return dateRange(s.now(), args) },
		"timeRange":    func(args ...string) bool { return timeRange(s.now(), args) },
		"alert":        func(...string) {},
	}
}

func (s *sandbox) now() time.Time {
	if s.env.Now != nil {
		return s.env.Now()
	}
	return time.Now()
}

// resolve returns the first IPv4 address of a host, "" if there is none.
func (s *sandbox) resolve(host string) string {
	if net.ParseIP(host) != nil {
		return host
	}
	if s.lookups++; s.lookups > maxLookups || host == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(s.ctx, lookupLimit)
	defer cancel()
	resolve := s.env.Resolve
	if resolve == nil {
		resolve = net.DefaultResolver.LookupHost
	}
	found, err := resolve(ctx, host)
	if err != nil {
		return ""
	}
	for _, a := range found {
		if _, ok := quad(a); ok {
			return a
		}
	}
	return ""
}

// address finds the address that this computer has towards the world. No packet
// is sent for it.
func (s *sandbox) address() string {
	if s.env.Address != nil {
		return s.env.Address()
	}
	conn, err := (&net.Dialer{}).DialContext(s.ctx, "udp4", "192.0.2.1:9")
	if err != nil {
		return "127.0.0.1"
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return "127.0.0.1"
	}
	return host
}

func (s *sandbox) isInNet(host, pattern, mask string) bool {
	address, ok := quad(s.resolve(host))
	network, ok2 := quad(pattern)
	bits, ok3 := quad(mask)
	return ok && ok2 && ok3 && address&bits == network&bits
}

// quad reads an IPv4 address.
func quad(text string) (uint32, bool) {
	ip := net.ParseIP(text).To4()
	if ip == nil {
		return 0, false
	}
	return uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3]), true
}

// match compares a text with a pattern of * and ?, in time that grows with the
// product of their lengths at most.
func match(text, pattern string) bool {
	t, p := []rune(text), []rune(pattern)
	i, j, star, mark := 0, 0, -1, 0
	for i < len(t) {
		switch {
		case j < len(p) && p[j] == '*':
			star, mark = j, i
			j++
		case j < len(p) && (p[j] == '?' || p[j] == t[i]):
			i, j = i+1, j+1
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	for j < len(p) && p[j] == '*' {
		j++
	}
	return j == len(p)
}
