package online

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/version"
)

// Through returns a Client.Get that asks through c. Redirects are not followed: the
// site has none, and another one must not get to see the checksum.
func Through(c *http.Client) func(context.Context, *http.Request) ([]byte, error) {
	own := *c
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return func(ctx context.Context, r *http.Request) ([]byte, error) {
		resp, err := own.Do(r.WithContext(ctx))
		if err != nil {
			var ue *url.Error // its text has the whole address, with the checksum
			if errors.As(err, &ue) {
				err = ue.Err
			}
			return nil, fmt.Errorf("asking %s: %w", r.URL.Host, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answers %s", r.URL.Host, resp.Status)
		}
		return io.ReadAll(io.LimitReader(resp.Body, 2*usercontext.MaxSize+1))
	}
}

// Pair fetches a context for a person: text is its pairing number, or its ID. secret
// is only asked for when the context turns out to be encrypted.
func Pair(ctx context.Context, site, text string, get func(context.Context, *http.Request) ([]byte, error), secret func() (string, error)) (Fetched, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Fetched{}, fmt.Errorf("reading random bytes: %w", err)
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // a random UUID
	c := Client{
		Site: site, Version: "mica-" + version.Number, Get: get,
		UUID: fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]),
	}
	f, err := c.pair(ctx, text, secret)
	for _, e := range []struct {
		err  error
		hint string
	}{
		{ErrNotFound, "a pairing number holds for five minutes, and for one machine"},
		{ErrNotAuthorized, "publish the context, or make a pairing number for it"},
		{ErrPassword, "check the password"},
	} {
		if errors.Is(err, e.err) {
			return Fetched{}, fail.New(fail.NotFound, "%w", err).Hint("%s", e.hint)
		}
	}
	return f, err
}

func (c Client) pair(ctx context.Context, text string, secret func() (string, error)) (Fetched, error) {
	if IsPin(text) {
		k, err := ParsePin(text, "")
		if err == nil {
			return c.Fetch(ctx, k)
		}
		password, err := secret()
		if err != nil {
			return Fetched{}, err
		}
		if k, err = ParsePin(text, password); err != nil {
			return Fetched{}, err
		}
		return c.Fetch(ctx, k)
	}
	k, err := ParseKey(text)
	if err != nil {
		return Fetched{}, err
	}
	f, err := c.Fetch(ctx, k)
	if !errors.Is(err, ErrPassword) || k.Secret != "" {
		return f, err
	}
	if k.Secret, err = secret(); err != nil {
		return Fetched{}, err
	}
	return c.Fetch(ctx, k)
}
