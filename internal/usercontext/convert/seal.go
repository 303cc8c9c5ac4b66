package convert

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
)

// ErrPassword says that a password does not open a sealed context, or that the
// context was changed.
var ErrPassword = errors.New("wrong password, or the context was changed")

// The sealed form is PEM of: version (one byte), log2 of scrypt's N (one byte),
// salt, nonce, and the context under XChaCha20-Poly1305, with everything before
// the nonce as associated data. The key is scrypt of the password, r 8, p 1.
const (
	sealType    = "MICA SEALED CONTEXT"
	sealVersion = 1
	sealCost    = 17 // 128 MiB, about half a second
	maxCost     = 20
	saltSize    = 16
)

// IsSealed reports whether data is a context sealed by Seal.
func IsSealed(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("-----BEGIN "+sealType+"-----"))
}

// Seal encrypts a context with a password.
func Seal(context []byte, password string, random io.Reader) ([]byte, error) {
	return seal(context, password, random, sealCost)
}

func seal(context []byte, password string, random io.Reader, cost byte) ([]byte, error) {
	header := make([]byte, 2+saltSize)
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	header[0], header[1] = sealVersion, cost
	if _, err := io.ReadFull(random, header[2:]); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	key, err := scrypt.Key([]byte(password), header[2:], 1<<cost, 8, 1, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	sealed := append(bytes.Clone(header), nonce...)
	return pem.EncodeToMemory(&pem.Block{Type: sealType, Bytes: aead.Seal(sealed, nonce, context, header)}), nil
}

// Open decrypts a sealed context.
func Open(data []byte, password string) ([]byte, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != sealType || len(block.Bytes) < 2+saltSize+chacha20poly1305.NonceSizeX {
		return nil, errors.New("not a sealed context")
	}
	header := block.Bytes[:2+saltSize]
	if header[0] != sealVersion || header[1] < 10 || header[1] > maxCost {
		return nil, fmt.Errorf("sealed context of version %d, cost %d: made by a newer program?", header[0], header[1])
	}
	key, err := scrypt.Key([]byte(password), header[2:], 1<<header[1], 8, 1, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	rest := block.Bytes[len(header):]
	plain, err := aead.Open(nil, rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:], header)
	if err != nil {
		return nil, ErrPassword
	}
	return plain, nil
}
