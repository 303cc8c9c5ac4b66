package cvmfstest

import (
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// Distrust is a state of a repository that a server serves without a fault, and
// that readers must not show.
type Distrust struct {
	Change func(t testing.TB, r Repo)
	Err    error // what the reader's error wraps
	// Seen says that only a reader can tell who has seen revision 3; it then finds
	// that the repository has gone back.
	Seen bool
}

// Distrusts are the ways in which signed files can be wrong although each byte
// comes as it is. What they lead to is the content of revision 2, so that nothing
// of it can be taken for that of revision 3; all but those of Seen call it
// revision 4.
var Distrusts = map[string]Distrust{
	"expired whitelist": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision = 4 })
		r.signWhitelist(t, func(w *cvmfs.Whitelist) { w.Expires = time.Now().Add(-time.Hour) })
	}, Err: cvmfs.ErrExpired},
	"whitelist of another repository": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision = 4 })
		r.signWhitelist(t, func(w *cvmfs.Whitelist) { w.Name = "other.peer.example" })
	}, Err: cvmfs.ErrWrongName},
	"whitelist without the certificate": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision = 4 })
		r.signWhitelist(t, func(w *cvmfs.Whitelist) { w.Fingerprints = []cvmfs.Hash{cvmfs.SHA1.Sum(nil)} })
	}, Err: cvmfs.ErrUntrusted},
	"whitelist of another master key": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision = 4 })
		r.write(t, cvmfs.WhitelistFile, func() ([]byte, error) {
			w, err := cvmfs.ParseWhitelist(r.Read(t, cvmfs.WhitelistFile))
			if err != nil {
				return nil, err
			}
			return w.Sign(newKey(t))
		})
	}, Err: cvmfs.ErrSignature},
	"manifest of another key": {Change: func(t testing.TB, r Repo) {
		m := r.other(t)
		m.Revision = 4
		r.write(t, cvmfs.ManifestFile, func() ([]byte, error) { return m.Sign(newKey(t)) })
	}, Err: cvmfs.ErrSignature},
	"manifest of another repository": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision, m.Name = 4, "other.peer.example" })
	}, Err: cvmfs.ErrWrongName},
	"rolled back": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision = 2 })
	}, Seen: true},
	"older with a later number": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision, m.Published = 4, m.Published.Add(-time.Hour) })
	}, Seen: true},
	"the same number for something else": {Change: func(t testing.TB, r Repo) {
		r.signOther(t, func(m *cvmfs.Manifest) { m.Revision = 3 })
	}, Seen: true},
}

// other is the manifest with the root catalogue of revision 2.
func (r Repo) other(t testing.TB) *cvmfs.Manifest {
	t.Helper()
	m := r.Head(t)
	h, err := cvmfs.ParseHash(RootHashes[2])
	if err != nil {
		t.Fatal(err)
	}
	m.RootHash, m.RootSize = h, 0
	return m
}

func (r Repo) signOther(t testing.TB, change func(*cvmfs.Manifest)) {
	t.Helper()
	m := r.other(t)
	change(m)
	r.Sign(t, m)
}

// signWhitelist signs a changed whitelist with the repository's own master key.
func (r Repo) signWhitelist(t testing.TB, change func(*cvmfs.Whitelist)) {
	t.Helper()
	r.write(t, cvmfs.WhitelistFile, func() ([]byte, error) {
		w, err := cvmfs.ParseWhitelist(r.Read(t, cvmfs.WhitelistFile))
		if err != nil {
			return nil, err
		}
		change(w)
		key, err := cvmfs.ParsePrivateKey(r.Key(t, "masterkey"))
		if err != nil {
			return nil, err
		}
		return w.Sign(key)
	})
}

// write replaces a file of the repository.
func (r Repo) write(t testing.TB, name string, content func() ([]byte, error)) {
	t.Helper()
	data, err := content()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
