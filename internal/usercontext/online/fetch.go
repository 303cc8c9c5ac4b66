package online

import (
	"context"
	"crypto/sha1" //nolint:gosec // the checksum of a foreign protocol
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
)

// Site is where CernVM Online was.
const Site = "https://cernvm-online.cern.ch"

// Key says which context to fetch: the one with an ID, or the one that a pairing
// number stands for. Make it with ParseKey or ParsePin.
type Key struct {
	ID, Pin string // one of them
	Secret  string // what the context is encrypted with, "" = it is not
}

var contextID = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)

// ParseKey reads ID or ID:SECRET, as contextualization_key has it.
func ParseKey(text string) (Key, error) {
	id, secret, _ := strings.Cut(strings.TrimSpace(text), ":")
	if !contextID.MatchString(id) {
		return Key{}, fail.New(fail.Usage, "the key does not start with the ID of a context").
			Hint("write ID or ID:SECRET; the site shows the ID of each context")
	}
	return Key{ID: id, Secret: secret}, nil
}

// ParsePin reads a pairing number of six digits, with or without blanks and dashes
// between them.
//
// Compat: a number that ends in an odd digit is of an encrypted context
// (cernvm-online-guest: usr/sbin/cernvm-online.sh).
func ParsePin(text, secret string) (Key, error) {
	pin := strings.NewReplacer(" ", "", "-", "").Replace(text)
	if len(pin) != 6 || strings.Trim(pin, "0123456789") != "" {
		return Key{}, fail.New(fail.Usage, "%q is not a pairing number", text).Hint("it has six digits, and holds for five minutes")
	}
	if pin[5]%2 == 1 && secret == "" {
		return Key{}, fail.New(fail.Usage, "the context of this pairing number is encrypted").Hint("give its password")
	}
	return Key{Pin: pin, Secret: secret}, nil
}

// IsPin reports whether a text looks like a pairing number rather than an ID.
func IsPin(text string) bool {
	_, err := ParsePin(text, "any")
	return err == nil
}

// Salt is what the checksum of a key is salted with: the sum of its first four
// digits; 1, 2, 3 and 4 stand in for those that it lacks.
func (k Key) Salt() string {
	sum, n := 0, 0
	for _, c := range k.ID + k.Pin {
		if c >= '0' && c <= '9' && n < 4 {
			sum += int(c - '0')
			n++
		}
	}
	for ; n < 4; n++ {
		sum += n + 1
	}
	return fmt.Sprintf("%02d", sum)
}

// Checksum proves to the site that the machine knows the secret.
func (k Key) Checksum() string {
	sum := sha1.Sum([]byte(k.Salt() + k.Secret + k.Salt())) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// Client fetches contexts.
type Client struct {
	Site    string // "" is the constant of that name; https only
	UUID    string // of the machine that asks
	Version string // of what asks

	// Get sends a request and returns the body of a successful answer. It must
	// check the server's certificate.
	Get func(ctx context.Context, r *http.Request) ([]byte, error)
}

// Fetched is one context of the site.
type Fetched struct {
	ID, Name string
	UserData []byte
	RootKey  string // public key for root, "" = none
}

// Errors of the site. ErrPassword is another one.
var (
	ErrNotFound      = errors.New("the site has no such context")
	ErrNotAuthorized = errors.New("the site does not give this context to this machine")
	ErrRequest       = errors.New("the site does not understand the request")
)

// Fetch asks for a context and decrypts it.
//
// Compat: the site answers 200 with one bare word where it does not give a context
// (cernvm-online: src/cvmo, api/context). Differs: what comes is not sourced by a
// shell, and only the four known names are taken from it.
func (c Client) Fetch(ctx context.Context, k Key) (Fetched, error) {
	request, err := c.request(ctx, k)
	if err != nil {
		return Fetched{}, err
	}
	body, err := c.Get(ctx, request)
	if err != nil {
		return Fetched{}, fmt.Errorf("fetching a context of CernVM Online: %w", err)
	}
	if len(body) > 2*usercontext.MaxSize {
		return Fetched{}, fmt.Errorf("fetching a context of CernVM Online: %w", usercontext.ErrTooLarge)
	}
	f, err := open(body, k.Secret)
	if err != nil {
		return Fetched{}, fmt.Errorf("fetching a context of CernVM Online: %w", err)
	}
	if f.ID == "" {
		f.ID = k.ID
	}
	return f, nil
}

func (c Client) request(ctx context.Context, k Key) (*http.Request, error) {
	site := c.Site
	if site == "" {
		site = Site
	}
	base, err := url.Parse(site)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fail.New(fail.Usage, "%q is not the https address of a site", site).
			Hint("a context is run as root: it is only fetched from a site that proves who it is")
	}
	query := url.Values{"uuid": {c.UUID}, "ver": {c.Version}, "checksum": {k.Checksum()}}
	if k.Pin != "" {
		query.Set("pin", k.Pin)
	} else {
		query.Set("context_id", k.ID)
	}
	address := base.JoinPath("api/context")
	address.RawQuery = query.Encode()
	return http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
}

// open reads the answer of the site.
func open(body []byte, secret string) (Fetched, error) {
	text := strings.TrimSpace(string(body))
	switch text {
	case "invalid-checksum":
		return Fetched{}, ErrPassword
	case "not-found":
		return Fetched{}, ErrNotFound
	case "not-authorized":
		return Fetched{}, ErrNotAuthorized
	case "invalid-request":
		return Fetched{}, ErrRequest
	}
	if strings.HasPrefix(text, Prefix) {
		plain, err := Decrypt([]byte(text), secret)
		if err != nil {
			return Fetched{}, err
		}
		body = plain
	}
	var f Fetched
	found := false
	for _, a := range usercontext.ParseAssignments(body) {
		switch a.Name {
		case "VM_CONTEXT_UUID":
			f.ID = a.Value
		case "VM_CONTEXT_NAME":
			f.Name = a.Value
		case "EC2_USER_DATA":
			data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(a.Value), ""))
			if err != nil {
				return Fetched{}, fmt.Errorf("its user data is damaged: %w", err)
			}
			f.UserData, found = data, true
		case "ROOT_PUBKEY": // Compat: the key itself; in a context.sh it is a file's name
			if key, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(a.Value), "")); err == nil {
				f.RootKey = strings.TrimSpace(string(key))
			}
		}
	}
	switch {
	case !found:
		return Fetched{}, errors.New("the answer is not a context")
	case len(f.UserData) > usercontext.MaxSize:
		return Fetched{}, usercontext.ErrTooLarge
	}
	if !contextID.MatchString(f.ID) {
		f.ID = ""
	}
	f.Name = strings.Map(func(c rune) rune {
		if c == ' ' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			return c
		}
		return -1
	}, f.Name)
	return f, nil
}
