package guest

import (
	"fmt"
	"io"
	"regexp"

	"github.com/go-crypt/crypt/algorithm/shacrypt"
)

// cryptForms are the hashes of crypt(5) that today's systems know.
var cryptForms = regexp.MustCompile(`^\$(1|md5|5|6|7|y|gy|2[abxy]?|sha1|3)\$[-+./A-Za-z0-9$,=]+$`)

// IsHash reports whether text is a password hash of crypt(5) rather than a
// password.
func IsHash(text string) bool { return cryptForms.MatchString(text) }

// sha512Rounds is the default of crypt(3).
const sha512Rounds = 5000

// Hash hashes a password with SHA-512 crypt, 5000 rounds and a salt of 16
// characters.
func (r *Root) Hash(password string) (string, error) {
	const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	salt := make([]byte, 16)
	if _, err := io.ReadFull(r.options.Rand, salt); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	for i := range salt {
		salt[i] = alphabet[salt[i]%64]
	}
	h, err := shacrypt.New(shacrypt.WithSHA512(), shacrypt.WithIterations(sha512Rounds))
	if err != nil {
		return "", fmt.Errorf("hashing a password: %w", err)
	}
	d, err := h.HashWithSalt(password, salt)
	if err != nil {
		return "", fmt.Errorf("hashing a password: %w", err)
	}
	return d.Encode(), nil
}

// HasPassword reports whether some password opens an account.
func (r *Root) HasPassword(name string) (bool, error) {
	hash, err := r.passwordField(name)
	return hash != "" && hash[0] != '!' && hash[0] != '*', err
}

// PasswordIs reports whether an account has this very password, as far as its
// hash is one of SHA crypt.
func (r *Root) PasswordIs(name, password string) (bool, error) {
	hash, err := r.passwordField(name)
	if err != nil || !IsHash(hash) {
		return false, err
	}
	d, err := shacrypt.Decode(hash)
	if err != nil {
		return false, nil //nolint:nilerr // of another scheme
	}
	return d.Match(password), nil
}

func (r *Root) passwordField(name string) (string, error) {
	a, err := r.readAccounts()
	if err != nil {
		return "", err
	}
	if f := a.shadow.find(name); f != nil {
		return f[1], nil
	}
	return "", nil
}
