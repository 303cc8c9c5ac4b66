package libvirt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
)

// authority is a certificate authority of a test.
type authority struct {
	*testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

// issue writes a certificate and its key, signed by the authority or, for its
// own, by itself.
func (a *authority) issue(name string, usage x509.ExtKeyUsage) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if a.cert == nil {
		cert.IsCA, cert.KeyUsage, cert.ExtKeyUsage, cert.IPAddresses = true, x509.KeyUsageCertSign, nil, nil
		a.cert, a.key = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		a.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + "cert.pem": {Type: "CERTIFICATE", Bytes: der}, name + "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.Fatal(err)
		}
	}
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{T: t, dir: t.TempDir()}
	a.issue("ca", 0)
	a.issue("server", x509.ExtKeyUsageServerAuth)
	a.issue("client", x509.ExtKeyUsageClientAuth)
	return a
}

// TestBesideTLS reaches the daemon by TLS, and is refused by and refuses one of
// another authority.
func TestBesideTLS(t *testing.T) {
	beside(t, "system")
	a, other := newAuthority(t), newAuthority(t)
	config := filepath.Join(a.dir, "libvirtd.conf")
	text := `listen_tls = 1
listen_tcp = 0
listen_addr = "127.0.0.1"
auth_unix_rw = "none"
ca_file = "` + a.dir + `/cacert.pem"
cert_file = "` + a.dir + `/servercert.pem"
key_file = "` + a.dir + `/serverkey.pem"
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	endDaemon(t)
	startDaemon(t, "--listen", "--config", config)
	t.Cleanup(func() { endDaemon(t); startDaemon(t) })

	at := func(a *authority) map[string]string {
		return map[string]string{"uri": "qemu+tls://127.0.0.1/system?pkipath=" + a.dir}
	}
	g := made(t, func(s *machine.Spec) { s.Options = at(a) })
	g.start()
	g.says("hello")
	if host, err := g.d.(*libvirt.Driver).Host(g.Instance); host != "127.0.0.1" || err != nil {
		t.Errorf("Host = %q, %v; want 127.0.0.1", host, err)
	}
	con, err := g.d.(machine.Consoler).Console(t.Context(), g.Instance)
	g.must("Console", err)
	g.must("closing the console", con.Close())

	_, err = libvirt.Real().Create(t.Context(), order(t, func(s *machine.Spec) { s.Options = at(other) }))
	if !fail.Is(err, fail.Refused) || len(fail.Hints(err)) == 0 {
		t.Errorf("Create with certificates of another authority = %v, hints %q; want class Refused and a hint", err, fail.Hints(err))
	}
	if err := os.Rename(filepath.Join(a.dir, "cacert.pem"), filepath.Join(other.dir, "cacert.pem")); err != nil {
		t.Fatal(err)
	}
	_, err = libvirt.Real().Create(t.Context(), order(t, func(s *machine.Spec) { s.Options = at(other) }))
	if !fail.Is(err, fail.Refused) {
		t.Errorf("Create with a client's certificate of another authority = %v, want class Refused", err)
	}
	if err := os.Rename(filepath.Join(other.dir, "cacert.pem"), filepath.Join(a.dir, "cacert.pem")); err != nil {
		t.Fatal(err) // Destroy reads it again
	}
}
