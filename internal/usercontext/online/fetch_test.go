package online

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// TestChecksum has the values that the original guest's own commands computed.
func TestChecksum(t *testing.T) {
	tests := []struct {
		key            Key
		salt, checksum string
	}{
		{Key{ID: "a1b2c3d4e5f60718293a4b5c6d7e8f90", Secret: "s3cret"}, "10", "d2802c8d7af3cb27c403bae88339666f2c5d3a0a"},
		{Key{ID: "7abc"}, "16", ""},
		{Key{ID: "abcdef"}, "10", ""},
		{Key{Pin: "999912"}, "36", ""},
		{Key{Pin: "000012"}, "00", ""},
	}
	for _, test := range tests {
		if got := test.key.Salt(); got != test.salt {
			t.Errorf("salt of %+v = %q, want %q", test.key, got, test.salt)
		}
		if got := test.key.Checksum(); test.checksum != "" && got != test.checksum {
			t.Errorf("checksum of %+v = %s, want %s", test.key, got, test.checksum)
		}
	}
}

func TestParsePin(t *testing.T) {
	for text, want := range map[string]string{"123456": "123456", "123-456": "123456", "12 34 56": "123456", "12345": "", "12345a": "", "1234567": "", "": "", "１23456": ""} {
		k, err := ParsePin(text, "")
		if k.Pin != want || (err == nil) != (want != "") {
			t.Errorf("ParsePin(%q) = %+v, %v, want %q", text, k, err, want)
		}
		if IsPin(text) != (want != "") {
			t.Errorf("IsPin(%q) = %v", text, IsPin(text))
		}
	}
	if _, err := ParsePin("123455", ""); !fail.Is(err, fail.Usage) {
		t.Errorf("ParsePin of an encrypted context without its secret = %v, want a usage error", err)
	}
	if k, err := ParsePin("123455", "x"); err != nil || k.Secret != "x" {
		t.Errorf("ParsePin with the secret = %+v, %v", k, err)
	}
}

func TestParseKey(t *testing.T) {
	for text, want := range map[string]Key{"abc": {ID: "abc"}, "abc:s:t": {ID: "abc", Secret: "s:t"}, "": {}, ":s": {}, "a/b": {}, "a&b": {}} {
		k, err := ParseKey(text)
		if k != want || (err == nil) != (want.ID != "") {
			t.Errorf("ParseKey(%q) = %+v, %v, want %+v", text, k, err, want)
		}
		if err != nil && strings.Contains(text, ":s") && strings.Contains(err.Error(), ":s") {
			t.Errorf("ParseKey(%q): the error shows the secret: %v", text, err)
		}
	}
}

// site is a strict imitation: it answers as the original's api/context does and
// fails the test on anything that it would not have been asked.
type site struct {
	t        *testing.T
	contexts map[string]string // by ID or pairing number
	secrets  map[string]string
	requests int
}

var hex40 = regexp.MustCompile(`^[0-9a-f]{40}$`)

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests++
	q := r.URL.Query()
	if r.Method != http.MethodGet || r.URL.Path != "/api/context" || r.Header.Get("Authorization") != "" {
		s.t.Errorf("%s %s", r.Method, r.URL)
	}
	for name := range q {
		switch name {
		case "uuid", "ver", "checksum", "pin", "context_id":
		default:
			s.t.Errorf("unknown parameter %q", name)
		}
	}
	selector := q.Get("context_id") + q.Get("pin")
	if q.Get("uuid") == "" || q.Get("ver") == "" || !hex40.MatchString(q.Get("checksum")) || selector == "" || q.Has("pin") == q.Has("context_id") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	text, ok := s.contexts[selector]
	want := Key{ID: q.Get("context_id"), Pin: q.Get("pin"), Secret: s.secrets[selector]}.Checksum()
	switch {
	case !ok:
		text = "not-found"
	case q.Get("checksum") != want:
		text = "invalid-checksum"
	}
	_, _ = io.WriteString(w, text)
}

// through is a Get over a client.
func through(c *http.Client) func(context.Context, *http.Request) ([]byte, error) {
	return func(_ context.Context, r *http.Request) ([]byte, error) {
		resp, err := c.Do(r)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, errors.New(resp.Status)
		}
		return io.ReadAll(resp.Body)
	}
}

const plainContext = "VM_CONTEXT_UUID=a1b2\nVM_CONTEXT_NAME=\"My VM $(reboot)\"\nEC2_USER_DATA=W2Nlcm52bV0KdXNlcnM9dTp1OnAK\nROOT_PUBKEY=c3NoLXJzYSBBQUFBIG1lCg==\nOTHER=$(reboot)\n"

func TestFetch(t *testing.T) {
	s := &site{t: t, secrets: map[string]string{"a1b2": "s3cret", "123455": "s3cret"}, contexts: map[string]string{
		"open": plainContext, "123456": plainContext, "a1b2": plainContext, "refused": "not-authorized\n", "odd": "invalid-request",
		"page": "<html>Welcome</html>", "broken": "EC2_USER_DATA=@@\n", "empty": "EC2_USER_DATA=\n", "big": "EC2_USER_DATA=" + strings.Repeat("QUFB", 1<<19) + "\n",
	}}
	if openssl, err := exec.LookPath("openssl"); err == nil {
		cmd := exec.CommandContext(t.Context(), openssl, "enc", "-aes-256-cfb8", "-md", "md5", "-salt", "-pass", "pass:s3cret", "-a", "-A")
		cmd.Stdin = strings.NewReader(plainContext)
		sealed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		s.contexts["123455"] = Prefix + string(sealed)
	} else {
		tier.Tool(t, "openssl")
	}
	server := httptest.NewTLSServer(s)
	defer server.Close()
	full := Fetched{ID: "a1b2", Name: "My VM reboot", UserData: []byte("[cernvm]\nusers=u:u:p\n"), RootKey: "ssh-rsa AAAA me"}
	tests := []struct {
		key  Key
		want Fetched
		err  error
	}{
		{Key{ID: "open"}, full, nil},
		{Key{Pin: "123456"}, full, nil},
		{Key{ID: "a1b2", Secret: "s3cret"}, full, nil},
		{Key{ID: "a1b2", Secret: "wrong"}, Fetched{}, ErrPassword},
		{Key{Pin: "123455", Secret: "s3cret"}, full, nil},
		{Key{ID: "nosuch"}, Fetched{}, ErrNotFound},
		{Key{ID: "refused"}, Fetched{}, ErrNotAuthorized},
		{Key{ID: "odd"}, Fetched{}, ErrRequest},
		{Key{ID: "page"}, Fetched{}, errAny},
		{Key{ID: "broken"}, Fetched{}, errAny},
		{Key{ID: "empty"}, Fetched{ID: "empty", UserData: []byte{}}, nil},
		{Key{ID: "big"}, Fetched{}, errAny},
	}
	for _, test := range tests {
		c := Client{Site: server.URL, UUID: "u", Version: "v", Get: through(server.Client())}
		got, err := c.Fetch(t.Context(), test.key)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("Fetch(%+v) (-want +got)\n%s", test.key, diff)
		}
		if !errors.Is(err, test.err) && (err == nil || !errors.Is(test.err, errAny)) {
			t.Errorf("Fetch(%+v) = %v, want %v", test.key, err, test.err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Fetch(%+v): the error shows the secret: %v", test.key, err)
		}
	}
	if s.requests != len(tests) {
		t.Errorf("%d requests for %d contexts", s.requests, len(tests))
	}
	// The site must prove who it is.
	if _, err := (Client{Site: server.URL, UUID: "u", Version: "v", Get: through(&http.Client{})}).Fetch(t.Context(), Key{ID: "open"}); err == nil || s.requests != len(tests) {
		t.Errorf("fetching from a site with an unknown certificate = %v after %d requests", err, s.requests-len(tests))
	}
	for _, address := range []string{"http://" + strings.TrimPrefix(server.URL, "https://"), "ftp://x", "https://", "x"} {
		if _, err := (Client{Site: address, UUID: "u", Version: "v"}).Fetch(t.Context(), Key{ID: "open"}); !fail.Is(err, fail.Usage) {
			t.Errorf("fetching from %s = %v, want a usage error", address, err)
		}
	}
}

var errAny = errors.New("any error")

func FuzzOpenAnswer(f *testing.F) {
	f.Add([]byte(plainContext), "")
	f.Add([]byte("ENCRYPTED:U2FsdGVkX18BAgMEBQYHCNVMfM1TDghAPgvN5T6KLJQ6lA=="), "s3cret")
	f.Add([]byte("not-found"), "")
	f.Fuzz(func(t *testing.T, body []byte, secret string) {
		got, err := open(body, secret)
		if err != nil {
			return
		}
		if strings.ContainsAny(got.Name+got.ID, "\"'`$\\;\n") {
			t.Errorf("open(%q) = %+v: a name that a shell would run", body, got)
		}
		encoded := []byte(base64.StdEncoding.EncodeToString(got.UserData))
		again, err := open(append([]byte("EC2_USER_DATA="), append(encoded, '\n')...), "")
		if err != nil || !bytes.Equal(again.UserData, got.UserData) {
			t.Errorf("open of %q again = %q, %v", got.UserData, again.UserData, err)
		}
	})
}

func TestPair(t *testing.T) {
	s := &site{t: t, secrets: map[string]string{"locked": "s3cret", "123455": "s3cret"}, contexts: map[string]string{
		"open": plainContext, "123456": plainContext, "locked": plainContext, "123455": plainContext,
	}}
	server := httptest.NewTLSServer(s)
	defer server.Close()
	elsewhere := httptest.NewTLSServer(http.RedirectHandler(server.URL+"/api/context", http.StatusFound))
	defer elsewhere.Close()
	for _, test := range []struct {
		site, text, password string
		asked, found         bool
	}{
		{server.URL, "open", "", false, true},
		{server.URL, "123 456", "", false, true},
		{server.URL, "locked", "s3cret", true, true},
		{server.URL, "locked", "wrong", true, false},
		{server.URL, "123455", "s3cret", true, true},
		{server.URL, "123455", "", true, false},
		{server.URL, "none", "", false, false},
		{server.URL, "a/b", "", false, false},
		{elsewhere.URL, "open", "", false, false},
	} {
		asked := false
		f, err := Pair(t.Context(), test.site, test.text, Through(server.Client()), func() (string, error) { asked = true; return test.password, nil })
		if (err == nil) != test.found || asked != test.asked || test.found && len(f.UserData) == 0 {
			t.Errorf("Pair(%s, %q) = %+v, %v, asked for a password %v; want %+v", test.site, test.text, f, err, asked, test)
		}
		if err != nil && !strings.Contains(err.Error(), "answers") && (len(fail.Hints(err)) == 0 || !fail.Is(err, fail.Usage) && !fail.Is(err, fail.NotFound)) {
			t.Errorf("Pair(%q): %v has no remedy", test.text, err)
		}
	}
	if n, err := Pair(t.Context(), server.URL, "locked", Through(server.Client()), func() (string, error) { return "", errAny }); !errors.Is(err, errAny) {
		t.Errorf("Pair without a terminal = %+v, %v", n, err)
	}
}
