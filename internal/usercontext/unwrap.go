package usercontext

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrTooLarge says that a context is, or unpacks to, more than MaxSize.
var ErrTooLarge = errors.New("larger than 1 MiB")

const maxLayers = 3

// Unwrap removes gzip and base64 from around a context, up to three layers, and
// returns their names, outermost first. Base64 is only believed when what it
// hides looks like a context. With an error, the data returned is what it could
// still reach.
func Unwrap(data []byte) ([]byte, []string, error) {
	var layers []string
	if len(data) > MaxSize {
		return data[:MaxSize], nil, ErrTooLarge
	}
	for {
		switch {
		case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
			if len(layers) == maxLayers {
				return data, layers, fmt.Errorf("more than %d layers of compression or encoding", maxLayers)
			}
			inner, trailing, err := gunzip(data)
			if err != nil {
				return data, layers, fmt.Errorf("decompressing gzip: %w", err)
			}
			name := "gzip"
			if trailing > 0 {
				name = fmt.Sprintf("gzip (%d bytes behind it ignored)", trailing)
			}
			data, layers = inner, append(layers, name)
		default:
			inner, ok := decodeBase64(data)
			if !ok {
				return data, layers, nil
			}
			if len(layers) == maxLayers {
				return data, layers, fmt.Errorf("more than %d layers of compression or encoding", maxLayers)
			}
			data, layers = inner, append(layers, "base64")
		}
	}
}

// gunzip unpacks one gzip member, and says how many bytes follow it.
func gunzip(data []byte) (plain []byte, trailing int, err error) {
	src := bufio.NewReader(bytes.NewReader(data))
	z, err := gzip.NewReader(src)
	if err != nil {
		return nil, 0, err
	}
	z.Multistream(false)
	plain, err = io.ReadAll(io.LimitReader(z, MaxSize+1))
	if err != nil {
		return nil, 0, err
	}
	if len(plain) > MaxSize {
		return nil, 0, ErrTooLarge
	}
	rest, err := io.Copy(io.Discard, src)
	return plain, int(rest), err
}

// decodeBase64 decodes data if all of it is base64 and the result starts like a
// context.
func decodeBase64(data []byte) ([]byte, bool) {
	if len(data) < 4 {
		return nil, false
	}
	packed := make([]byte, 0, len(data))
	for _, c := range data {
		switch {
		case isSpace(c):
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/', c == '=':
			packed = append(packed, c)
		default:
			return nil, false
		}
	}
	plain := make([]byte, base64.StdEncoding.DecodedLen(len(packed)))
	n, err := base64.StdEncoding.Decode(plain, packed)
	if err != nil || !startsLikeContext(plain[:n]) {
		return nil, false
	}
	return plain[:n], true
}

// startsLikeContext reports whether data begins as one of the known forms does.
func startsLikeContext(data []byte) bool {
	head := string(bytes.TrimLeft(data[:min(len(data), 256)], " \t\r\n"))
	for _, magic := range []string{"#!", "#cloud", "[", "MIME-Version", "Content-Type", "\x1f\x8b", "#include", "## template"} {
		if len(head) >= len(magic) && strings.EqualFold(head[:len(magic)], magic) {
			return true
		}
	}
	return false
}
