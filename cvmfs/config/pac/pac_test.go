package pac

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/run"
)

// The test binary is the process that Isolated starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		if err := Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func env() Env {
	return Env{
		Resolve: func(_ context.Context, host string) ([]string, error) {
			found := map[string][]string{"in.example.org": {"2001:db8::1", "10.1.2.3"}, "out.example.org": {"192.0.2.9"}}[host]
			if found == nil {
				return nil, errors.New("no such host")
			}
			return found, nil
		},
		Address: func() string { return "10.0.0.7" },
		Now:     func() time.Time { return time.Date(2026, 11, 29, 13, 30, 15, 0, time.FixedZone("", 3600)) }, // a Sunday
	}
}

func TestFunctions(t *testing.T) {
	for expression, want := range map[string]string{
		`isPlainHostName("www")`: "true", `isPlainHostName("www.a.org")`: "false",
		`dnsDomainIs("www.a.org", ".a.org")`: "true", `dnsDomainIs("www.b.org", ".a.org")`: "false",
		`localHostOrDomainIs("www", "www.a.org")`: "true", `localHostOrDomainIs("www.a.org", "www.a.org")`: "true",
		`localHostOrDomainIs("www.b.org", "www.a.org")`: "false", `localHostOrDomainIs("w", "www.a.org")`: "false",
		`dnsDomainLevels("www.a.org")`: "2", `isResolvable("in.example.org")`: "true", `isResolvable("none.example.org")`: "false",
		`dnsResolve("in.example.org")`: "10.1.2.3", `dnsResolve("none.example.org")`: "null", `myIpAddress()`: "10.0.0.7",
		`isInNet("in.example.org", "10.0.0.0", "255.0.0.0")`: "true", `isInNet("out.example.org", "10.0.0.0", "255.0.0.0")`: "false",
		`isInNet("10.9.9.9", "10.9.0.0", "255.255.0.0")`: "true", `isInNet("none.example.org", "0.0.0.0", "0.0.0.0")`: "false",
		`isInNet(myIpAddress(), "10.0.0.0", "255.255.255.0")`: "true", `convert_addr("1.2.3.4")`: "16909060",
		`shExpMatch("http://www.a.org/x", "*a.org*")`: "true", `shExpMatch("a.b", "a?b")`: "true", `shExpMatch("axb", "a.b")`: "false",
		`shExpMatch("", "*")`: "true", `shExpMatch("ab", "a")`: "false", `shExpMatch("abcb", "a*b")`: "true", `shExpMatch("a[b]", "a[b]")`: "true",
		`weekdayRange("SUN")`: "true", `weekdayRange("MON", "FRI")`: "false", `weekdayRange("SAT", "MON")`: "true", `weekdayRange("SUN", "GMT")`: "true",
		`weekdayRange("XYZ")`: "false", `weekdayRange()`: "false",
		`timeRange(13)`: "true", `timeRange(12, "GMT")`: "true", `timeRange(9, 12)`: "false", `timeRange(9, 13)`: "true", `timeRange(22, 14)`: "true",
		`timeRange(13, 0, 13, 29)`: "false", `timeRange(13, 30, 13, 30)`: "true", `timeRange(13, 30, 16, 13, 40, 0)`: "false",
		`dateRange(29)`: "true", `dateRange(1, 28)`: "false", `dateRange("NOV")`: "true", `dateRange("OCT", "DEC")`: "true", `dateRange("DEC", "FEB")`: "false",
		`dateRange(2026)`: "true", `dateRange(2027, 2028)`: "false", `dateRange(20, "NOV", 5, "DEC")`: "true", `dateRange(1, "DEC", 5, "JAN")`: "false",
		`dateRange("OCT", 2026, "JAN", 2027)`: "true", `dateRange(1, "JAN", 2025, 28, "NOV", 2026)`: "false", `dateRange(1, "NOV", 2)`: "false",
		`alert("x")`: "undefined",
	} {
		got, err := Evaluate(t.Context(), []byte(`function FindProxyForURL(u, h) { return String(`+expression+`) }`), "http://x/", "x", env())
		if err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", expression, got, err, want)
		}
	}
}

// Scripts of the shapes that sites really have.
func TestScripts(t *testing.T) {
	const site = `
// squids of the site for machines inside, the public ones for others
var squids = ["PROXY squid1.example.org:3128", "PROXY squid2.example.org:3128"];
function pick(host) { var n = 0; for (var i = 0; i < host.length; i++) n += host.charCodeAt(i); return squids[n % squids.length]; }
function FindProxyForURL(url, host) {
	if (isPlainHostName(host) || shExpMatch(host, "*.local")) return "DIRECT";
	if (shExpMatch(url, "http://*openhtc.io*")) return "DIRECT";
	if (url.substring(0, 5) == "http:" && isInNet(myIpAddress(), "10.0.0.0", "255.0.0.0")) {
		return pick(host) + "; DIRECT";
	}
	if (/^ftp:/.test(url)) { throw new Error("no ftp"); }
	switch (dnsResolve(host)) { case null: return "PROXY backup.example.org:80"; default: return "SOCKS s:1"; }
}`
	for _, test := range []struct{ url, host, want string }{
		{"http://www/", "www", "DIRECT"},
		{"http://s1cern-cvmfs.openhtc.io/cvmfs/x", "s1cern-cvmfs.openhtc.io", "DIRECT"},
		{"http://a.example.org/", "a.example.org", "PROXY squid"},
		{"https://none.example.org/", "none.example.org", "PROXY backup.example.org:80"},
		{"https://out.example.org/", "out.example.org", "SOCKS s:1"},
	} {
		got, err := Evaluate(t.Context(), []byte(site), test.url, test.host, env())
		if err != nil || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, %v, want %q", test.url, got, err, test.want)
		}
	}
	if _, err := Evaluate(t.Context(), []byte(site), "ftp://a.example.org/", "a.example.org", env()); !errors.Is(err, ErrScript) {
		t.Errorf("a script that throws: %v", err)
	}
	for script, want := range map[string]string{
		"function FindProxyForURL() { return null }": "DIRECT", "function FindProxyForURL() { return ' ' }": "DIRECT",
		"var FindProxyForURL = function(u, h) { return h }": "x",
	} {
		if got, err := Evaluate(t.Context(), []byte(script), "http://x/", "x", env()); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", script, got, err, want)
		}
	}
}

func TestBadScripts(t *testing.T) {
	for _, script := range []string{
		"", "<html>log in</html>", "function FindProxyForURL(", "var FindProxyForURL = 1", "function FindProxyForURL() { return 1 }",
		"function FindProxyForURL() { }", "function FindProxyForURL() { return {} }", "function FindProxyForURL() { return FindProxyForURL() }",
		"function FindProxyForURL() { return require('fs') }", "function FindProxyForURL() { return new XMLHttpRequest() }",
		"function FindProxyForURL() { var s = 'x'; while (s.length < 100000) s += s; return s }",
	} {
		if got, err := Evaluate(t.Context(), []byte(script), "http://x/", "x", env()); !errors.Is(err, ErrScript) {
			t.Errorf("%s: %.50q, %v, want %v", script, got, err, ErrScript)
		}
	}
}

func TestEndless(t *testing.T) {
	for _, script := range []string{
		"while (true) {}", "function FindProxyForURL() { for (;;) { try { f() } catch (e) {} } }",
		"function FindProxyForURL() { while (true) dnsResolve('none.example.org') }",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		start := time.Now()
		_, err := Evaluate(ctx, []byte(script), "http://x/", "x", env())
		cancel()
		if took := time.Since(start); !errors.Is(err, ErrScript) || !errors.Is(err, context.DeadlineExceeded) || took > 20*time.Second {
			t.Errorf("%s: %v after %v", script, err, took)
		}
	}
}

// In its own process a script can take neither the memory nor the time of ours.
func TestIsolated(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	i := Isolated{Runner: run.Host{}, Path: exe, Args: []string{"serve"}}
	if got, err := i.Evaluate(t.Context(), []byte("function FindProxyForURL(u, h) { return 'PROXY ' + h + ':1' }"), "http://x/", "x"); err != nil || got != "PROXY x:1" {
		t.Errorf("Evaluate = %q, %v", got, err)
	}
	for _, script := range []string{
		"function FindProxyForURL() { var a = []; for (;;) a.push('x'.repeat(1 << 20) + a.length) }",
		"function FindProxyForURL() { return 'x'.repeat(1 << 29) }",
		"function FindProxyForURL() { return new Array(1 << 28).join('xxxxxxxx') }",
		"nonsense(",
	} {
		if _, err := i.Evaluate(t.Context(), []byte(script), "http://x/", "x"); !errors.Is(err, ErrScript) {
			t.Errorf("%s: %v, want %v", script, err, ErrScript)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := i.Evaluate(ctx, []byte("while (true) {}"), "http://x/", "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an endless script whose caller gives up: %v", err)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("http://www.a.org/", "*a?org*")
	f.Add("", "**")
	f.Fuzz(func(t *testing.T, text, pattern string) {
		if match(text, pattern) && !strings.ContainsAny(pattern, "*?") && string([]rune(text)) != string([]rune(pattern)) {
			t.Errorf("%q matches %q", text, pattern)
		}
		if !match(text, "*") || !match(text, text) && !strings.Contains(text, "*") {
			t.Errorf("%q does not match itself", text)
		}
	})
}
