package cvmfs

import (
	"crypto/md5"  //nolint:gosec // names paths, protects nothing
	"crypto/sha1" //nolint:gosec // the format's default
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/ripemd160" //nolint:staticcheck // one of the format's algorithms
)

// ErrMalformed is wrapped by errors about bytes that do not have the form the
// format prescribes.
var ErrMalformed = errors.New("malformed")

// Algorithm is a hash algorithm of the format.
type Algorithm uint8

// The algorithms, with the numbers the format gives them. MD5 only ever names
// paths; the others name content.
const (
	MD5 Algorithm = iota
	SHA1
	RIPEMD160
	SHAKE128
)

// New returns a fresh hash of 20 bytes, for MD5 of 16. An unknown algorithm is
// a bug of the caller and panics.
func (a Algorithm) New() hash.Hash {
	switch a {
	case MD5:
		return md5.New() //nolint:gosec // as above
	case SHA1:
		return sha1.New() //nolint:gosec // as above
	case RIPEMD160:
		return ripemd160.New()
	case SHAKE128:
		return &shake{sha3.NewSHAKE128()}
	}
	panic(fmt.Sprintf("cvmfs: unknown hash algorithm %d", a)) //nolint:forbidigo // a bug of the caller, as documented
}

// Size returns the length of a digest in bytes.
func (a Algorithm) Size() int {
	if a == MD5 {
		return md5.Size
	}
	return 20
}

// Valid reports whether a is one of the algorithms.
func (a Algorithm) Valid() bool { return a <= SHAKE128 }

// String returns the name people use: "md5", "sha1", "rmd160" or "shake128".
func (a Algorithm) String() string {
	switch a {
	case MD5:
		return "md5"
	case SHA1:
		return "sha1"
	case RIPEMD160:
		return "rmd160"
	case SHAKE128:
		return "shake128"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// ParseAlgorithm is the inverse of String for the algorithms of content.
func ParseAlgorithm(name string) (Algorithm, error) {
	for a := SHA1; a.Valid(); a++ {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("hash algorithm %q: %w", name, ErrMalformed)
}

// suffix is what the text of a hash carries behind its hexadecimal digits.
func (a Algorithm) suffix() string {
	if a == RIPEMD160 || a == SHAKE128 {
		return "-" + a.String()
	}
	return ""
}

// Sum hashes data in one go.
func (a Algorithm) Sum(data []byte) Hash {
	h := a.New()
	_, _ = h.Write(data) // never fails
	return NewHash(a, h)
}

// shake is SHAKE128 with 160 bits of output, as a hash.Hash.
type shake struct{ *sha3.SHAKE }

func (s *shake) Size() int { return 20 }

// Sum works on a copy, so that writing may go on.
func (s *shake) Sum(b []byte) []byte {
	c := *s.SHAKE
	var out [20]byte
	_, _ = c.Read(out[:]) // never fails
	return append(b, out[:]...)
}

// Suffix says what kind of object a hash names. It is the last letter of the
// object's file name.
type Suffix byte

// The kinds of objects.
const (
	SuffixNone        Suffix = 0 // the content of a file
	SuffixCatalog     Suffix = 'C'
	SuffixHistory     Suffix = 'H'
	SuffixCertificate Suffix = 'X'
	SuffixMetainfo    Suffix = 'M'
	SuffixPartial     Suffix = 'P' // a chunk of a file
)

// Hash is the hash of an object. It is comparable; the zero value means none.
// An MD5 digest fills the first 16 bytes.
type Hash struct {
	Algorithm Algorithm
	Digest    [20]byte
}

// NewHash takes the digest h has come to, which must be of algorithm a.
func NewHash(a Algorithm, h hash.Hash) Hash {
	sum := Hash{Algorithm: a}
	h.Sum(sum.Digest[:0])
	return sum
}

// ParseHash reads the text form of a hash: lower-case hexadecimal digits and
// the algorithm's suffix. Anything else fails with an error wrapping
// ErrMalformed.
//
// Differs: the original takes the algorithm from the length alone and looks at
// neither the digits nor the suffix (cvmfs: cvmfs/crypto/hash.h).
func ParseHash(text string) (Hash, error) {
	for a := MD5; a.Valid(); a++ {
		n := 2 * a.Size()
		if len(text) != n+len(a.suffix()) || text[n:] != a.suffix() {
			continue
		}
		h := Hash{Algorithm: a}
		if !lowerHex(text[:n]) {
			break
		}
		_, _ = hex.Decode(h.Digest[:], []byte(text[:n])) // checked just now
		return h, nil
	}
	return Hash{}, fmt.Errorf("hash %q: %w", clip(text), ErrMalformed)
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// clip bounds what an error message repeats of foreign text.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// String returns the text form; none is the empty string.
func (h Hash) String() string {
	if h == (Hash{}) {
		return ""
	}
	return h.hex() + h.Algorithm.suffix()
}

func (h Hash) hex() string { return hex.EncodeToString(h.Digest[:h.Algorithm.Size()]) }

// IsZero reports whether h names nothing: the zero value, and also the null
// digest of any algorithm, which old tools write for "none".
func (h Hash) IsZero() bool { return h.Digest == [20]byte{} }

// ObjectPath returns where the object of kind s lies below the root of a
// repository: "data/", two digits, "/", the other digits, the suffixes.
func (h Hash) ObjectPath(s Suffix) string {
	text := h.hex()
	path := "data/" + text[:2] + "/" + text[2:] + h.Algorithm.suffix()
	if s != SuffixNone {
		path += string(rune(s))
	}
	return path
}
