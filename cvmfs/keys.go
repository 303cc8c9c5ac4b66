package cvmfs

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// ParsePublicKeys reads every RSA public key (PUBLIC KEY or RSA PUBLIC KEY) in
// PEM data. Data without one, other blocks, and text between blocks that looks
// like a damaged block are errors wrapping ErrMalformed.
func ParsePublicKeys(data []byte) ([]*rsa.PublicKey, error) {
	var keys []*rsa.PublicKey
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			if bytes.Contains(data, []byte("-----BEGIN")) {
				return nil, fmt.Errorf("public key: damaged PEM block: %w", ErrMalformed)
			}
			break
		}
		key, err := parsePublicKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
		data = rest
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("public key: no PEM block: %w", ErrMalformed)
	}
	return keys, nil
}

func parsePublicKey(block *pem.Block) (key *rsa.PublicKey, err error) {
	var parsed any
	switch block.Type {
	case "PUBLIC KEY":
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		parsed, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("public key: PEM block %q: %w", clip(block.Type), ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("public key: %w: %w", ErrMalformed, err)
	}
	if key, err = rsaKey(parsed); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return key, nil
}

// maxKeyBits is OpenSSL's limit on the keys that it verifies with
// (openssl: include/openssl/rsa.h, OPENSSL_RSA_MAX_MODULUS_BITS). Of a key of a
// million bits, which fits into a certificate, a single signature takes minutes.
const maxKeyBits = 16384

func rsaKey(parsed any) (*rsa.PublicKey, error) {
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("not RSA: %w", ErrMalformed)
	}
	if key.N.BitLen() > maxKeyBits {
		return nil, fmt.Errorf("a key of %d bits, more than %d: %w", key.N.BitLen(), maxKeyBits, ErrMalformed)
	}
	return key, nil
}

// ParsePrivateKey reads the first RSA private key (PRIVATE KEY or RSA PRIVATE
// KEY, not encrypted) in PEM data. Errors wrap ErrMalformed and never repeat
// any of the data.
func ParsePrivateKey(data []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("private key: no PEM block: %w", ErrMalformed)
	}
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("private key: %w", ErrMalformed)
		}
		key, ok := parsed.(*rsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("private key: not RSA: %w", ErrMalformed)
		}
		return key, nil
	case "RSA PRIVATE KEY":
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("private key: %w", ErrMalformed)
		}
		return key, nil
	}
	return nil, fmt.Errorf("private key: PEM block %q: %w", clip(block.Type), ErrMalformed)
}
