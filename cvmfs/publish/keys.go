package publish

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/internal/atomicfile"
)

// ErrKeys is wrapped by errors about keys that are missing or do not belong
// together.
var ErrKeys = errors.New("keys")

// ErrNoKeys is wrapped by errors about a directory that has not the keys of a
// repository.
var ErrNoKeys = errors.New("the keys are not there")

// Keys are what signs a repository.
type Keys struct {
	Name        string
	Master      *rsa.PrivateKey // nil if it is kept elsewhere: publishing goes on until the whitelist ends
	Public      *rsa.PublicKey  // of the master key; what readers are given
	Repository  *rsa.PrivateKey
	Certificate []byte // PEM, of Repository
}

func keyFile(dir, name, kind string) string { return filepath.Join(dir, name+"."+kind) }

// LoadKeys reads the keys of a repository from a directory. The master key may
// be absent. If any other is, the error wraps ErrNoKeys and fs.ErrNotExist.
func LoadKeys(dir, name string) (*Keys, error) {
	k := &Keys{Name: name}
	files := make(map[string][]byte)
	for _, kind := range []string{"pub", "key", "crt", "masterkey"} {
		data, err := os.ReadFile(keyFile(dir, name, kind))
		if errors.Is(err, fs.ErrNotExist) && kind == "masterkey" {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading keys of %q: %w: %w", name, ErrNoKeys, err)
		}
		if err != nil {
			return nil, fmt.Errorf("reading keys of %q: %w", name, err)
		}
		files[kind] = data
	}
	public, err := cvmfs.ParsePublicKeys(files["pub"])
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", keyFile(dir, name, "pub"), err)
	}
	k.Public = public[0]
	if k.Repository, err = cvmfs.ParsePrivateKey(files["key"]); err != nil {
		return nil, fmt.Errorf("reading %s: %w", keyFile(dir, name, "key"), err)
	}
	k.Certificate = files["crt"]
	if err := k.checkCertificate(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", keyFile(dir, name, "crt"), err)
	}
	if data := files["masterkey"]; data != nil {
		if k.Master, err = cvmfs.ParsePrivateKey(data); err != nil {
			return nil, fmt.Errorf("reading %s: %w", keyFile(dir, name, "masterkey"), err)
		}
		if !k.Master.PublicKey.Equal(k.Public) {
			return nil, fmt.Errorf("%w: %s and %s are no pair", ErrKeys, keyFile(dir, name, "masterkey"), keyFile(dir, name, "pub"))
		}
	}
	return k, nil
}

func (k *Keys) checkCertificate() error {
	block, _ := pem.Decode(k.Certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("no certificate: %w", cvmfs.ErrMalformed)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("%w: %w", cvmfs.ErrMalformed, err)
	}
	if !k.Repository.PublicKey.Equal(c.PublicKey) {
		return fmt.Errorf("%w: the certificate is of another key", ErrKeys)
	}
	return nil
}

// der is the certificate as it is fingerprinted.
func (k *Keys) der() []byte {
	block, _ := pem.Decode(k.Certificate)
	return block.Bytes
}

func (k *Keys) fingerprint() cvmfs.Hash { return cvmfs.Fingerprint(cvmfs.SHA1, k.der()) }

// trust is what a reader with the public key knows.
func (k *Keys) trust(now func() time.Time) cvmfs.Trust {
	return cvmfs.Trust{Name: k.Name, MasterKeys: []*rsa.PublicKey{k.Public}, Now: now}
}

// CreateKeys makes a master key, a repository key and its certificate, and
// writes them to a directory, which it creates for its owner alone. Keys that
// exist are never touched: the error then wraps fs.ErrExist.
func CreateKeys(dir, name string, now time.Time) (*Keys, error) {
	if err := cvmfs.CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating keys of %q: %w", name, err)
	}
	for _, kind := range []string{"masterkey", "pub", "key", "crt"} {
		if _, err := os.Lstat(keyFile(dir, name, kind)); err == nil {
			return nil, fmt.Errorf("creating keys of %q: %s: %w", name, keyFile(dir, name, kind), fs.ErrExist)
		}
	}
	k, err := newKeys(name, now)
	if err != nil {
		return nil, fmt.Errorf("creating keys of %q: %w", name, err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.Public)
	if err != nil {
		return nil, fmt.Errorf("creating keys of %q: %w", name, err)
	}
	// The certificate comes last: while it is missing the set is not complete,
	// and LoadKeys says so.
	for _, f := range []struct {
		kind string
		data []byte
		perm fs.FileMode
	}{
		{"masterkey", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.Master)), 0o400},
		{"key", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.Repository)), 0o400},
		{"pub", pemOf("PUBLIC KEY", public), 0o444},
		{"crt", k.Certificate, 0o444},
	} {
		if err := atomicfile.Write(keyFile(dir, name, f.kind), f.data, f.perm); err != nil {
			return nil, fmt.Errorf("creating keys of %q: %w", name, err)
		}
	}
	return k, nil
}

func pemOf(kind string, data []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
}

const keyBits = 2048

func newKeys(name string, now time.Time) (*Keys, error) {
	master, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	short := name
	if len(short) > 30 {
		short = short[:30] + "[...]" // Compat: a subject has room for 64 characters (cvmfs: cvmfs/server/cvmfs_server_ssl.sh)
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: short + " CernVM-FS Release Managers"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0), // no reader looks
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &Keys{Name: name, Master: master, Public: &master.PublicKey, Repository: key, Certificate: pemOf("CERTIFICATE", der)}, nil
}
