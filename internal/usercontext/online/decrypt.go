package online

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/md5" //nolint:gosec // the key derivation of a foreign format
	"encoding/base64"
	"errors"
	"fmt"
)

// Prefix starts an encrypted context.
const Prefix = "ENCRYPTED:"

// ErrPassword says that a password does not decrypt a context, or that the
// context is damaged: the format cannot tell one from the other.
var ErrPassword = errors.New("wrong password, or damaged context")

// marker is in every rendered context.
var marker = []byte("EC2_USER_DATA=")

// Decrypt decrypts an encrypted context. The result is a rendered one, which
// usercontext.Parse reads.
func Decrypt(data []byte, password string) ([]byte, error) {
	plain, err := decrypt(data, password)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(plain, marker) {
		return nil, ErrPassword
	}
	return plain, nil
}

func decrypt(data []byte, password string) ([]byte, error) {
	encoded, ok := bytes.CutPrefix(bytes.TrimSpace(data), []byte(Prefix))
	if !ok {
		return nil, fmt.Errorf("not an encrypted context: it does not start with %s", Prefix)
	}
	sealed, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(encoded), nil)))
	if err != nil {
		return nil, fmt.Errorf("decoding the encrypted context: %w", err)
	}
	rest, ok := bytes.CutPrefix(sealed, []byte("Salted__"))
	if !ok || len(rest) < 8 {
		return nil, errors.New("decoding the encrypted context: no salt")
	}
	key, iv := deriveKey(password, rest[:8])
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cfb8(block, iv, rest[8:]), nil
}

// deriveKey is OpenSSL's EVP_BytesToKey with MD5 and one round.
func deriveKey(password string, salt []byte) (key, iv []byte) {
	var all, last []byte
	for len(all) < 48 {
		sum := md5.Sum(append(append(bytes.Clone(last), password...), salt...)) //nolint:gosec // as above
		last = sum[:]
		all = append(all, last...)
	}
	return all[:32], all[32:48]
}

// cfb8 decrypts in cipher feedback mode with segments of one byte, which the
// standard library does not have.
func cfb8(block cipher.Block, iv, data []byte) []byte {
	shift := bytes.Clone(iv)
	pad := make([]byte, block.BlockSize())
	out := make([]byte, len(data))
	for i, c := range data {
		block.Encrypt(pad, shift)
		out[i] = c ^ pad[0]
		shift = append(shift[1:], c)
	}
	return out
}
