package cvmfs

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Whitelist is the list of certificates a repository's owner trusts, for a
// limited time.
type Whitelist struct {
	Issued       time.Time // not evaluated, as in the original
	Expires      time.Time
	Name         string
	PKCS7        bool      // V: a PKCS #7 form must be verified too; refused by Trust.Verify
	CAChain      bool      // W: the certificate must also verify against CAs; refused likewise
	Fingerprints []Hash    // of the DER form of certificates, each by its own algorithm
	Algorithm    Algorithm // of the hash line; SHA1 where zero
}

// stamp is the form of both times.
const stamp = "20060102150405"

// ParseWhitelist reads a whitelist and checks its form and its hash line, not
// its signature: see [Trust.Verify]. Errors wrap ErrMalformed.
func ParseWhitelist(data []byte) (*Whitelist, error) {
	s, err := splitSigned(data)
	if err != nil {
		return nil, fmt.Errorf("whitelist: %w", err)
	}
	w, err := parseWhitelistText(s.text)
	if err != nil {
		return nil, fmt.Errorf("whitelist: %w", err)
	}
	w.Algorithm = s.algorithm
	return w, nil
}

func parseWhitelistText(text []byte) (*Whitelist, error) {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) < 3 || !strings.HasPrefix(lines[1], "E") || !strings.HasPrefix(lines[2], "N") {
		return nil, fmt.Errorf("no times and name: %w", ErrMalformed)
	}
	w := &Whitelist{Name: lines[2][1:]}
	var err error
	if w.Issued, err = parseStamp(lines[0]); err != nil {
		return nil, err
	}
	if w.Expires, err = parseStamp(lines[1][1:]); err != nil {
		return nil, err
	}
	if err := CheckName(w.Name); err != nil {
		return nil, err
	}
	lines = lines[3:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "V") {
		if lines[0] != "Vpkcs7" {
			return nil, fmt.Errorf("verification flag %q: %w", clip(lines[0]), ErrMalformed)
		}
		w.PKCS7, lines = true, lines[1:]
	}
	if len(lines) > 0 && strings.HasPrefix(lines[0], "W") {
		if lines[0] != "Wcachain" {
			return nil, fmt.Errorf("verification flag %q: %w", clip(lines[0]), ErrMalformed)
		}
		w.CAChain, lines = true, lines[1:]
	}
	for _, line := range lines {
		if i := strings.IndexAny(line, " \t#"); i >= 0 {
			line = line[:i]
		}
		if line == "" {
			continue
		}
		f, err := ParseFingerprint(line)
		if err != nil {
			return nil, err
		}
		w.Fingerprints = append(w.Fingerprints, f)
	}
	return w, nil
}

func parseStamp(s string) (time.Time, error) {
	t, err := time.Parse(stamp, s)
	if err != nil || !digits(s) {
		return time.Time{}, fmt.Errorf("time %q: %w", clip(s), ErrMalformed)
	}
	return t, nil
}

// Sign returns the whitelist as it is published, signed with a master key. A
// whitelist that a reader would refuse is not signed.
func (w *Whitelist) Sign(master *rsa.PrivateKey) ([]byte, error) {
	a := w.Algorithm
	if a == MD5 {
		a = SHA1
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nE%s\nN%s\n", w.Issued.UTC().Format(stamp), w.Expires.UTC().Format(stamp), w.Name)
	if w.PKCS7 {
		b.WriteString("Vpkcs7\n")
	}
	if w.CAChain {
		b.WriteString("Wcachain\n")
	}
	for _, f := range w.Fingerprints {
		b.WriteString(FormatFingerprint(f) + "\n")
	}
	if _, err := parseWhitelistText(b.Bytes()); err != nil {
		return nil, fmt.Errorf("signing whitelist: %w", err)
	}
	data, err := joinSigned(b.Bytes(), a, func(sum []byte) ([]byte, error) {
		return rsa.SignPKCS1v15(nil, master, crypto.Hash(0), sum)
	})
	if err != nil {
		return nil, fmt.Errorf("signing whitelist: %w", err)
	}
	return data, nil
}

// Fingerprint returns the fingerprint of a certificate's DER form.
func Fingerprint(a Algorithm, der []byte) Hash { return a.Sum(der) }

// FormatFingerprint returns the form of whitelists: upper-case pairs between
// colons, and the algorithm's suffix in upper case where it has one.
func FormatFingerprint(h Hash) string {
	digits := strings.ToUpper(h.hex())
	pairs := make([]string, 0, len(digits)/2)
	for i := 0; i < len(digits); i += 2 {
		pairs = append(pairs, digits[i:i+2])
	}
	return strings.Join(pairs, ":") + strings.ToUpper(h.Algorithm.suffix())
}

// ParseFingerprint is the inverse of FormatFingerprint. Errors wrap
// ErrMalformed.
func ParseFingerprint(s string) (Hash, error) {
	const length = 20*3 - 1
	for a := SHA1; a.Valid(); a++ {
		if len(s) != length+len(a.suffix()) || s[length:] != strings.ToUpper(a.suffix()) {
			continue
		}
		h := Hash{Algorithm: a}
		raw, err := hex.DecodeString(strings.ReplaceAll(s[:length], ":", ""))
		if err != nil || len(raw) != len(h.Digest) {
			break
		}
		copy(h.Digest[:], raw)
		if FormatFingerprint(h) != s {
			break // colons elsewhere, or lower case
		}
		return h, nil
	}
	return Hash{}, fmt.Errorf("fingerprint %q: %w", clip(s), ErrMalformed)
}
