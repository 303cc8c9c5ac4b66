package cvmfs_test

import (
	"bytes"
	"errors"
	"testing"

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
