package cvmfs_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

// Data is keys that verify and sign, or malformed; what is said of a private key
// never repeats it.
func FuzzKeys(f *testing.F) {
	repo := cvmfstest.Small(f)
	for _, kind := range []string{"pub", "key", "masterkey", "crt"} {
		f.Add(repo.Key(f, kind))
	}
	f.Add([]byte("-----BEGIN RSA PUBLIC KEY-----\nMAYCAQACAQA=\n-----END RSA PUBLIC KEY-----\n"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := cvmfs.ParsePublicKeys(data)
		if (err == nil) != (len(keys) > 0) || err != nil && !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("ParsePublicKeys = %d keys, %v, want some or ErrMalformed", len(keys), err)
		}
		for _, k := range keys {
			if k.N == nil || k.N.Sign() <= 0 || k.E < 2 {
				t.Errorf("ParsePublicKeys gives %v", k)
			}
		}
		key, err := cvmfs.ParsePrivateKey(data)
		if (err == nil) != (key != nil) || err != nil && !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("ParsePrivateKey = %v, want ErrMalformed", err)
		}
		for line := range bytes.Lines(data) {
			if err != nil && len(line) > 60 && bytes.Contains([]byte(err.Error()), bytes.TrimSpace(line)) {
				t.Errorf("ParsePrivateKey repeats a line: %v", err)
			}
		}
	})
}

// certificateOf makes one of a key that need not be anybody's, as a server may send it.
func certificateOf(t testing.TB, public any) []byte {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// hugeKey is a key with which a single verification would take minutes, and what
// it is to verify.
func hugeKey(t testing.TB, signed []byte) (pem, text []byte) {
	t.Helper()
	const bits = 1_000_000
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	n.SetBit(n, 0, 1)
	at := bytes.LastIndexByte(signed[:bytes.Index(signed, []byte("--\n"))+3+41], '\n') + 1
	signature := make([]byte, bits/8)
	signature[1] = 1
	return certificateOf(t, &rsa.PublicKey{N: n, E: 1<<31 - 1}), append(signed[:at:at], signature...)
}

// A certificate comes from a server that nobody trusts yet: it is malformed, or
// did not sign, or did.
func FuzzCertificate(f *testing.F) {
	repo := cvmfstest.Small(f)
	key, err := cvmfs.ParsePrivateKey(repo.Key(f, "key"))
	if err != nil {
		f.Fatal(err)
	}
	const text = "text\n"
	signed, err := cvmfs.SignText([]byte(text), cvmfs.SHA1, key)
	if err != nil {
		f.Fatal(err)
	}
	good := repo.Key(f, "crt")
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(append([]byte("Certificate:\n    Data:\n"), good...)) // as openssl x509 -text writes it
	f.Add(append(bytes.Clone(good), good...))
	f.Add(repo.Key(f, "pub"))
	f.Add(certificateOf(f, &key.PublicKey))
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(certificateOf(f, &curve.PublicKey))
	huge, _ := hugeKey(f, signed)
	f.Add(huge[:len(huge)/100])
	f.Fuzz(func(t *testing.T, certificate []byte) {
		began := time.Now()
		got, err := cvmfs.VerifyText(signed, certificate)
		switch {
		case err == nil && string(got) != text:
			t.Errorf("VerifyText = %q", got)
		case err != nil && !errors.Is(err, cvmfs.ErrMalformed) && !errors.Is(err, cvmfs.ErrSignature):
			t.Errorf("VerifyText = %v, want ErrMalformed or ErrSignature", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A server, or whoever is between, cannot keep a client busy with a key that
// nobody vouches for.
func TestHugeKey(t *testing.T) {
	repo := cvmfstest.Small(t)
	key, err := cvmfs.ParsePrivateKey(repo.Key(t, "key"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := cvmfs.SignText([]byte("text\n"), cvmfs.SHA1, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, text := hugeKey(t, signed)
	began := time.Now()
	if _, err := cvmfs.VerifyText(text, certificate); !errors.Is(err, cvmfs.ErrMalformed) {
		t.Errorf("VerifyText = %v, want ErrMalformed", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
