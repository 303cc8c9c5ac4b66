package cvmfs

import (
	"bytes"
	"fmt"
)

// Bounds of the two signed files, far above anything real.
const (
	maxSignedText = 64 << 10
	maxSigned     = 128 << 10
)

// signed is the frame both signed files share: text, a line "--", a line with
// the hash of the text, and the signature of that line's characters.
type signed struct {
	text      []byte
	sum       string
	algorithm Algorithm
	signature []byte
}

// splitSigned takes a signed file apart and checks its hash line against its
// text. It does not look at the signature.
func splitSigned(data []byte) (signed, error) {
	if len(data) > maxSigned {
		return signed{}, fmt.Errorf("%d bytes are too many: %w", len(data), ErrMalformed)
	}
	s, err := unframe(data)
	if err == nil && len(s.text) > maxSignedText {
		return signed{}, fmt.Errorf("%d bytes of text are too many: %w", len(s.text), ErrMalformed)
	}
	return s, err
}

// unframe is splitSigned for a file of any length.
func unframe(data []byte) (signed, error) {
	end := 0 // of the text
	if !bytes.HasPrefix(data, []byte("--\n")) {
		if end = bytes.Index(data, []byte("\n--\n")) + 1; end == 0 {
			return signed{}, fmt.Errorf("no line \"--\": %w", ErrMalformed)
		}
	}
	line, signature, found := bytes.Cut(data[end+3:], []byte("\n"))
	if !found {
		return signed{}, fmt.Errorf("no hash line: %w", ErrMalformed)
	}
	want, err := ParseHash(string(line))
	if err != nil {
		return signed{}, fmt.Errorf("hash line: %w", err)
	}
	if got := want.Algorithm.Sum(data[:end]); got != want {
		return signed{}, fmt.Errorf("the text has hash %s, its hash line says %s: %w", got, want, ErrMalformed)
	}
	return signed{text: data[:end], sum: string(line), algorithm: want.Algorithm, signature: signature}, nil
}

// joinSigned is the inverse of splitSigned; sign gets the characters of the
// hash line.
func joinSigned(text []byte, a Algorithm, sign func(sum []byte) ([]byte, error)) ([]byte, error) {
	sum := []byte(a.Sum(text).String())
	signature, err := sign(sum)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{text, []byte("--\n"), sum, []byte("\n"), signature}, nil), nil
}
