package convert

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/online"
)

// Loaded is a context with what came beside it.
type Loaded struct {
	*usercontext.Context
	PublicKeys []string // for root, from an export of CernVM Online
	Warnings   []string // what an import could not carry over
}

// Loader reads contexts from anything a user may hold.
type Loader struct {
	// Password asks for the password of an encrypted context; nil refuses them.
	Password func() (string, error)
	Rand     io.Reader // for the salts of hashed passwords; nil is crypto/rand
}

// Load reads a context: one of the forms that usercontext.Parse knows, one sealed
// by Seal, an export of CernVM Online, or an ISO 9660 image with any of them on it.
func (l Loader) Load(name string, data []byte) (Loaded, error) {
	var out Loaded
	medium := ""
	if isImage(data) {
		content, file, err := fromImage(name, data)
		if err != nil {
			return out, err
		}
		data, medium = content, file
	}
	switch {
	case IsSealed(data), len(data) > len(online.Prefix) && string(data[:len(online.Prefix)]) == online.Prefix:
		plain, err := l.open(data)
		if err != nil {
			return out, fmt.Errorf("opening context %s: %w", name, err)
		}
		data = plain
	}
	if online.IsDefinition(data) {
		r, err := online.Render(data, func(password string) (string, error) { return hashPassword(l.random(), password) })
		if err != nil {
			return out, fmt.Errorf("importing %s: %w", name, err)
		}
		out.Warnings = r.Warnings
		if r.RootKey != "" {
			out.PublicKeys = []string{r.RootKey}
		}
		data = r.Context
	}
	c, err := usercontext.Parse(name, data)
	if medium != "" {
		c.Layers = append([]string{"CD image, " + medium}, c.Layers...)
	}
	out.Context = c
	if err != nil {
		return out, fail.New(fail.Failed, "%w", err)
	}
	return out, nil
}

func (l Loader) random() io.Reader {
	if l.Rand == nil {
		return rand.Reader
	}
	return l.Rand
}

func (l Loader) open(data []byte) ([]byte, error) {
	if l.Password == nil {
		return nil, fail.New(fail.Usage, "%w", usercontext.ErrEncrypted).Hint("decrypt it first: mica context decrypt FILE")
	}
	password, err := l.Password()
	if err != nil {
		return nil, err
	}
	var plain []byte
	if IsSealed(data) {
		plain, err = Open(data, password)
	} else {
		plain, err = online.Decrypt(data, password)
	}
	if errors.Is(err, ErrPassword) || errors.Is(err, online.ErrPassword) {
		return nil, fail.New(fail.Unverified, "%w", err)
	}
	return plain, err
}

// hashPassword hashes a password with SHA-512 crypt.
func hashPassword(random io.Reader, password string) (string, error) {
	const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	salt := make([]byte, 16)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	for i := range salt {
		salt[i] = alphabet[salt[i]%64]
	}
	h, err := shacrypt.New(shacrypt.WithSHA512(), shacrypt.WithIterations(5000))
	if err != nil {
		return "", fmt.Errorf("hashing a password: %w", err)
	}
	d, err := h.HashWithSalt(password, salt)
	if err != nil {
		return "", fmt.Errorf("hashing a password: %w", err)
	}
	return d.Encode(), nil
}
