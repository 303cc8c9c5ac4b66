package cvmfs

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // prescribed by the format
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What can be wrong with a repository's signed files, besides ErrMalformed.
var (
	ErrWrongName = errors.New("is of another repository")
	ErrSignature = errors.New("signature does not hold")
	ErrExpired   = errors.New("has expired")
	ErrUntrusted = errors.New("is not trusted")
)

// Trust is what a reader knows beforehand about a repository. It is read-only
// in use, so that one value serves several goroutines.
type Trust struct {
	Name       string           // fully qualified repository name
	MasterKeys []*rsa.PublicKey // any of them may have signed the whitelist
	Now        func() time.Time // nil means time.Now
	Skew       time.Duration    // how much later than its end a whitelist still counts
	Blocked    []Hash           // fingerprints refused even if the whitelist has them
}

// Verify follows the chain from the master keys to the manifest and returns the
// manifest. certificatePEM is the plain object the manifest names as X, whose
// hash the caller has checked (see [CopyVerified]). Errors wrap ErrMalformed,
// ErrWrongName, ErrSignature, ErrExpired or ErrUntrusted.
//
// Protection against rollback is the caller's: compare Revision and Published
// with those last seen.
//
// Differs: the original skips all of this when the root catalogue is the one it
// knows, so that a forged manifest can raise its revision number
// (cvmfs: cvmfs/manifest_fetch.cc); and it compares the expiry by the hour.
func (t Trust) Verify(manifest, whitelist, certificatePEM []byte) (*Manifest, error) {
	ms, err := splitSigned(manifest)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := parseManifestText(ms.text)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if m.Name != t.Name {
		return nil, fmt.Errorf("manifest of %q, wanted %q: %w", m.Name, t.Name, ErrWrongName)
	}
	if m.Certificate.IsZero() {
		return nil, fmt.Errorf("manifest: no certificate: %w", ErrMalformed)
	}
	der, key, err := parseCertificate(certificatePEM)
	if err != nil {
		return nil, err
	}
	if err := ms.signedBy(key); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	w, err := t.verifyWhitelist(whitelist)
	if err != nil {
		return nil, err
	}
	listed := func(list []Hash) bool {
		return slices.ContainsFunc(list, func(f Hash) bool { return Fingerprint(f.Algorithm, der) == f })
	}
	if listed(t.Blocked) {
		return nil, fmt.Errorf("certificate %s: blocked: %w", FormatFingerprint(Fingerprint(SHA1, der)), ErrUntrusted)
	}
	if !listed(w.Fingerprints) {
		return nil, fmt.Errorf("certificate %s: not in the whitelist: %w", FormatFingerprint(Fingerprint(SHA1, der)), ErrUntrusted)
	}
	return m, nil
}

// VerifyWhitelist checks a whitelist alone, as a publisher does before and
// after it signs one.
func (t Trust) VerifyWhitelist(whitelist []byte) (*Whitelist, error) {
	return t.verifyWhitelist(whitelist)
}

func (t Trust) verifyWhitelist(data []byte) (*Whitelist, error) {
	w, err := ParseWhitelist(data)
	if err != nil {
		return nil, err
	}
	s, err := splitSigned(data)
	if err != nil {
		return nil, fmt.Errorf("whitelist: %w", err)
	}
	if w.Name != t.Name {
		return nil, fmt.Errorf("whitelist of %q, wanted %q: %w", w.Name, t.Name, ErrWrongName)
	}
	signedBy := func(key *rsa.PublicKey) bool {
		return rsa.VerifyPKCS1v15(key, crypto.Hash(0), []byte(s.sum), s.signature) == nil
	}
	if !slices.ContainsFunc(t.MasterKeys, signedBy) {
		return nil, fmt.Errorf("whitelist: %w by any of %d master keys", ErrSignature, len(t.MasterKeys))
	}
	now := time.Now
	if t.Now != nil {
		now = t.Now
	}
	if !now().Before(w.Expires.Add(t.Skew)) {
		return nil, fmt.Errorf("whitelist of %q: %w on %s", w.Name, ErrExpired, w.Expires.Format(time.RFC3339))
	}
	if w.PKCS7 || w.CAChain {
		return nil, fmt.Errorf("whitelist of %q: wants verification against certificate authorities, which is not supported: %w", w.Name, ErrUntrusted)
	}
	return w, nil
}

// SignText frames and signs a text of the caller's as a manifest is, for files
// that lie beside one.
func SignText(text []byte, a Algorithm, key *rsa.PrivateKey) ([]byte, error) {
	return joinSigned(text, a, func(sum []byte) ([]byte, error) {
		digest := sha1.Sum(sum) //nolint:gosec // as above
		return rsa.SignPKCS1v15(nil, key, crypto.SHA1, digest[:])
	})
}

// VerifyText returns the text that SignText has signed with the certificate's
// key. Whether that is to be trusted is for the caller to know: take the
// certificate of a manifest that [Trust.Verify] let pass. Errors wrap
// ErrMalformed or ErrSignature.
func VerifyText(data, certificatePEM []byte) ([]byte, error) {
	s, err := unframe(data)
	if err != nil {
		return nil, err
	}
	_, key, err := parseCertificate(certificatePEM)
	if err != nil {
		return nil, err
	}
	if err := s.signedBy(key); err != nil {
		return nil, err
	}
	return s.text, nil
}

// signedBy checks the signature that a certificate's key makes.
func (s signed) signedBy(key *rsa.PublicKey) error {
	digest := sha1.Sum([]byte(s.sum)) //nolint:gosec // as above
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA1, digest[:], s.signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// parseCertificate reads the PEM form of an X.509 certificate. Dates, issuer
// and usage do not matter: the whitelist decides.
func parseCertificate(data []byte) (der []byte, key *rsa.PublicKey, err error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, fmt.Errorf("certificate: no PEM block: %w", ErrMalformed)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w: %w", ErrMalformed, err)
	}
	if key, err = rsaKey(c.PublicKey); err != nil {
		return nil, nil, fmt.Errorf("certificate: its key: %w", err)
	}
	return block.Bytes, key, nil
}
