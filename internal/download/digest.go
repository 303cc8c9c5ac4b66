package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
)

// maxDigestFile bounds a .sha256 file; longer ones list many files.
const maxDigestFile = 64 << 10

// Text fetches a short document and returns it; it fails if there are more than
// limit bytes.
func (c *Client) Text(ctx context.Context, address string, limit int64) ([]byte, error) {
	r := Request{URL: address}
	u, err := url.Parse(address)
	if err != nil {
		return nil, unreadable(err)
	}
	if u.Scheme == "file" {
		f, err := openURL(r, u)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return short(f, address, limit)
	}
	for try := 1; ; try++ {
		data, err := c.text(ctx, r, limit)
		if err == nil {
			return data, nil
		}
		var f *failure
		if ctx.Err() != nil || !errors.As(err, &f) || f.permanent || try >= or(c.Tries, defaultTries) {
			return nil, c.explain(ctx, r, err)
		}
		if err := sleep(ctx, c.wait(try, f.after)); err != nil {
			return nil, fmt.Errorf("downloading %s: %w", Shown(address), err)
		}
	}
}

func (c *Client) text(ctx context.Context, r Request, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, or(c.Stall, defaultStall))
	defer cancel()
	resp, err := c.ask(ctx, r.URL, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := c.refuse(r, resp, 0); err != nil {
		return nil, err
	}
	data, err := short(resp.Body, r.URL, limit)
	if err != nil && !fail.Is(err, fail.Refused) {
		return nil, classify(err)
	}
	if err != nil {
		return nil, permanent(err)
	}
	return data, nil
}

func short(r io.Reader, address string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fail.New(fail.Refused, "%s has more than %d bytes", Shown(address), limit)
	}
	return data, nil
}

// Digest returns the SHA-256 digest in the document at address, as sha256sum
// writes it: the first 64 characters. A good one is kept at path, if that is not
// empty, and used from then on without asking the server; a kept one that is none
// is fetched again, once.
func (c *Client) Digest(ctx context.Context, address, path string) (string, error) {
	if path != "" {
		if data, err := os.ReadFile(path); err == nil {
			if sum, ok := firstDigest(data); ok {
				return sum, nil
			}
		}
	}
	data, err := c.Text(ctx, address, maxDigestFile)
	if err != nil {
		return "", err
	}
	sum, ok := firstDigest(data)
	if !ok {
		return "", fail.New(fail.Unverified, "%s holds no SHA-256 digest, it begins with %.40q", Shown(address), data).
			Hint("a login page of the network may have answered in the server's place")
	}
	if path == "" {
		return sum, nil
	}
	return sum, atomicfile.Write(path, []byte(sum+"\n"), 0o600)
}

// firstDigest reads the beginning of the first line.
func firstDigest(data []byte) (string, bool) {
	const length = 64
	line, _, _ := strings.Cut(string(data), "\n")
	if len(line) < length || len(line) > length && !strings.ContainsRune(" \t\r", rune(line[length])) {
		return "", false
	}
	sum := strings.ToLower(line[:length])
	return sum, isDigest(sum)
}
